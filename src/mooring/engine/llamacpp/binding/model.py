"""A loaded model file."""

import ctypes
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from llama_cpp import llama_cpp as lib

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.binding import sequences
from mooring.engine.llamacpp.binding.library import last_words


class Model:
    """A loaded GGUF: weights, vocabulary and metadata. Tokenising is safe from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load `path`, calling `on_progress` with the share loaded, 0.0 to 1.0.

        Raises:
            ModelUnreadable: no such file, or not a GGUF that this llama.cpp can load.
        """
        if not path.is_file():
            raise ModelUnreadable(f"no model file at {path}")
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if on_progress is not None:

            def report(share: float, _: object) -> bool:
                on_progress(share)
                return True

            self._progress_callback = lib.llama_progress_callback(report)
            params.progress_callback = self._progress_callback
        self.path = path
        handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            said = "; ".join(last_words)
            raise ModelUnreadable(f"llama.cpp cannot load {path}, is it a whole GGUF? {said}")
        self.handle = handle
        self.vocab = lib.llama_model_get_vocab(handle)
        self.vocab_size: int = lib.llama_vocab_n_tokens(self.vocab)

    def close(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The GGUF's key-value pairs, as llama.cpp prints them."""
        pairs = {}
        for index in range(lib.llama_model_meta_count(self.handle)):
            key = _read_text(lib.llama_model_meta_key_by_index, self.handle, index)
            pairs[key] = _read_text(lib.llama_model_meta_val_str_by_index, self.handle, index)
        return pairs

    @property
    def trained_context_tokens(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def layers(self) -> int:
        return int(lib.llama_model_n_layer(self.handle))

    @property
    def heads(self) -> int:
        return int(lib.llama_model_n_head(self.handle))

    @property
    def window(self) -> int:
        """Tokens that the layers with a sliding window see; 0 when there are none."""
        return int(lib.llama_model_n_swa(self.handle))

    @cached_property
    def sequences(self) -> sequences.Sequences:
        """What can be done with this model's sequences."""
        architecture = self.metadata.get("general.architecture", "")
        if lib.llama_model_has_encoder(self.handle):
            return sequences.ENCODER
        if lib.llama_model_is_diffusion(self.handle):
            return sequences.DIFFUSION
        if self.metadata.get(f"{architecture}.attention.causal") == "false":
            return sequences.NOT_CAUSAL
        if lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle):
            return sequences.STATE
        return sequences.WINDOW if self.window else sequences.ATTENTION

    def special_text(self, which: str) -> str:
        """The text of the `bos` or `eos` token; empty when the vocabulary has none."""
        read = {"bos": lib.llama_vocab_bos, "eos": lib.llama_vocab_eos}[which]
        token = read(self.vocab)
        if token < 0:
            return ""
        return str(lib.llama_vocab_get_text(self.vocab, token).decode(errors="replace"))

    @property
    def adds_bos(self) -> bool:
        return bool(lib.llama_vocab_get_add_bos(self.vocab))

    def control_texts(self) -> list[str]:
        """The texts of all control tokens, such as the ones that begin and end turns."""
        return list(self.control_tokens)

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """All control tokens by their texts."""
        return {
            lib.llama_vocab_get_text(self.vocab, token).decode(errors="replace"): token
            for token in range(self.vocab_size)
            if self.is_control(token)
        }

    @cached_property
    def longest_piece_bytes(self) -> int:
        """No token stands for more bytes of text than this."""
        return max(len(self.piece(token)) for token in range(self.vocab_size))

    def tokenize(self, text: str, *, add_bos: bool, control: bool) -> tuple[int, ...]:
        """Token ids of `text`; `control` recognises control tokens by their texts.

        Releases the GIL. Some pre-tokenizers recurse once a character, so the calling thread needs
        a stack of hundreds of bytes a character, or the process dies.
        """
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_bos, control)
        assert count >= 0, "a token is at least one byte"
        return tuple(tokens[:count])

    def is_control(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_control(self.vocab, token))

    @cached_property
    def eos_tokens(self) -> list[int]:
        """All tokens that end an answer, the vocabulary's own `eos` first if it has one."""
        eos = int(lib.llama_vocab_eos(self.vocab))
        others = (token for token in range(self.vocab_size) if self.ends_generation(token))
        return [*([eos] if eos >= 0 else []), *(token for token in others if token != eos)]

    def piece(self, token: int, *, control: bool = False) -> bytes:
        """The bytes a token stands for; empty for control tokens, unless their text is asked for."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = lib.llama_token_to_piece(self.vocab, token, buffer, room, 0, control)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    def ends_generation(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))


def _read_text(read: Callable[..., int], *arguments: object) -> str:
    """Call a `snprintf`-like reader, growing the buffer until the whole text fits."""
    room = 256
    while True:
        buffer = ctypes.create_string_buffer(room)
        size = read(*arguments, buffer, room)
        if size < room:
            return buffer.raw[: max(size, 0)].decode(errors="replace")
        room = size + 1
