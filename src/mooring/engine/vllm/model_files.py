"""What the engine needs of a model beside its weights: configuration, tokenizer, chat template."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from httpx2 import HTTPError
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from mooring.core.errors import ModelUnreadable
from mooring.engine.template import ChatTemplate
from mooring.engine.vllm.vocabulary import Vocabulary, read_json

_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
_RANDOM_WEIGHTS = "random weights"


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder, read."""

    folder: Path
    config: Mapping[str, Any]
    vocabulary: Vocabulary
    template_source: str
    template: ChatTemplate

    @property
    def random_weights(self) -> bool:
        """The model says of itself that its answers mean nothing."""
        return _RANDOM_WEIGHTS in str(self.config.get("description", "")).lower()


def find_folder(source: str) -> Path:
    """The local folder of `source`; of `hf:owner/repo` all but the weights is downloaded.

    Raises:
        ModelUnreadable: there is no such folder or repository, or it cannot be reached.
    """
    if not source.startswith("hf:"):
        folder = Path(source).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelUnreadable(f"no model in {folder}: with vLLM, a folder with config.json")
        return folder
    repository = source.removeprefix("hf:")
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=_FILES))
    except HFValidationError as error:
        raise ModelUnreadable(f"{source!r} is not hf:owner/repo: {error}") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ModelUnreadable(f"cannot download {source}: {error}") from error


@dataclass(frozen=True)
class FoundConfig:
    """A model's `config.json`, and which version of the model it is of."""

    config: Mapping[str, Any]
    revision: str | None
    """The commit on Hugging Face; None for a folder."""


def find_config(model: str) -> FoundConfig:
    """The configuration of a folder, or of `owner/repo` as vLLM has it. Raises ModelUnreadable."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return FoundConfig(read_json(folder / "config.json"), None)
    try:
        path = Path(huggingface_hub.hf_hub_download(model, "config.json"))
        return FoundConfig(read_json(path), path.parent.name)  # .../snapshots/<commit>/config.json
    except (HFValidationError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ModelUnreadable(f"cannot read the configuration of {model}: {error}") from error


def read_model(folder: Path) -> ModelFiles:
    """Raises ModelUnreadable: something is missing or broken; StartRefused: an extra is missing."""
    vocabulary = Vocabulary(folder)
    source = _template_source(folder)
    template = ChatTemplate(
        source, bos=vocabulary.special_text("bos"), eos=vocabulary.special_text("eos")
    )
    return ModelFiles(folder, read_json(folder / "config.json"), vocabulary, source, template)


def _template_source(folder: Path) -> str:
    """Newer models have a file of its own for it; older ones a field, with one or several."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text("utf-8")
    field = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(field, list):
        field = {each["name"]: each["template"] for each in field}.get("default")
    if not isinstance(field, str):
        raise ModelUnreadable(f"{folder} has no chat template: use an instruct or chat model")
    return field
