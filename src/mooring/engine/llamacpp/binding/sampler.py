"""Drawing tokens."""

from llama_cpp import llama_cpp as lib

from mooring.engine.llamacpp.binding.context import DecodeContext


class SamplerChain:
    """A chain of llama.cpp samplers, applied to one batch row at a time."""

    def __init__(self) -> None:
        self._handle = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())

    def close(self) -> None:
        if self._handle:
            lib.llama_sampler_free(self._handle)
            self._handle = None

    def penalties(self, vocab_size: int, last: int, frequency: float, presence: float) -> None:
        self._add(lib.llama_sampler_init_penalties(vocab_size, last, 1.0, frequency, presence))

    def top_p(self, p: float) -> None:
        self._add(lib.llama_sampler_init_top_p(p, 1))

    def temperature(self, t: float) -> None:
        self._add(lib.llama_sampler_init_temp(t))

    def draw(self, seed: int) -> None:
        self._add(lib.llama_sampler_init_dist(seed))

    def greedy(self) -> None:
        self._add(lib.llama_sampler_init_greedy())

    def sample(self, context: DecodeContext, row: int) -> int:
        """The next token from the logits of `row`; the chain remembers it for its penalties."""
        return int(lib.llama_sampler_sample(self._handle, context.handle, row))

    def _add(self, sampler: object) -> None:
        lib.llama_sampler_chain_add(self._handle, sampler)
