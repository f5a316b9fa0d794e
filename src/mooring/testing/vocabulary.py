"""The vocabulary of a model file, to build other models on."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import gguf


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary and the chat template that goes with it."""

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    eos: int
    chat_template: str
    pre: str
    """llama.cpp's name for how text is cut before the merges."""


def bundled_model() -> Path:
    """The model that ships with Mooring."""
    return Path(str(resources.files("mooring") / "assets" / "demo.gguf"))


def read_vocabulary(path: Path | None = None) -> Vocabulary:
    """The vocabulary of a GGUF; of the bundled model when no path is given."""
    reader = gguf.GGUFReader(path or bundled_model())

    def field(key: str) -> object:
        found = reader.get_field(key)
        assert found is not None, f"{path} has no {key}"
        return found.contents()

    return Vocabulary(
        tokens=field("tokenizer.ggml.tokens"),  # type: ignore[arg-type]
        types=field("tokenizer.ggml.token_type"),  # type: ignore[arg-type]
        merges=field("tokenizer.ggml.merges"),  # type: ignore[arg-type]
        eos=int(field("tokenizer.ggml.eos_token_id")),  # type: ignore[call-overload]
        chat_template=str(field("tokenizer.chat_template")),
        pre=str(field("tokenizer.ggml.pre")),
    )
