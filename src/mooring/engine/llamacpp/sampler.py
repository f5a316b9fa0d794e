"""A request's sampling parameters as a llama.cpp sampler chain."""

import secrets

import numpy as np
from numpy.typing import NDArray

from mooring.engine.interface import SampledToken, Sampling, TokenLogprob
from mooring.engine.llamacpp.binding import Model, SamplerChain

_SEEDS = 2**32 - 1  # llama.cpp takes the last one as "choose for me"
_GREEDY_BELOW = 1e-4  # far above where dividing by the temperature overflows


def make_chain(sampling: Sampling, *, choice: int, vocabulary: int) -> SamplerChain:
    """The chain for one choice: penalties, then top-p, then temperature, then the draw.

    Penalties count the tokens drawn so far, as OpenAI defines them, not the prompt's.
    """
    chain = SamplerChain()
    if sampling.frequency_penalty or sampling.presence_penalty:
        chain.penalties(
            vocabulary,
            sampling.max_tokens,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    if sampling.temperature < _GREEDY_BELOW:
        chain.greedy()
        return chain
    if sampling.top_p < 1:
        chain.top_p(sampling.top_p)
    chain.temperature(sampling.temperature)
    seed = secrets.randbelow(_SEEDS) if sampling.seed is None else sampling.seed + choice
    chain.draw(seed % _SEEDS)
    return chain


def report_logprobs(model: Model, logits: NDArray[np.float32], drawn: int, top: int) -> SampledToken:
    """Log probabilities of the drawn token and of the `top` best, from logits of shape [vocab].

    They are the model's own, before penalties and temperature.
    """
    shifted = logits.astype(np.float64) - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())

    def entry(token: int) -> TokenLogprob:
        return TokenLogprob(token, model.piece(token), float(logprobs[token]))

    best = np.argsort(-logprobs, kind="stable")[:top]
    return SampledToken(entry(drawn), tuple(entry(int(token)) for token in best))
