"""A generation as the cluster sees it: under which salt it runs, and what may count as cached. Pure."""

from dataclasses import dataclass

from mooring.core.errors import InvalidRequest, PromptTooLong
from mooring.core.prefix import Prefix, common_length
from mooring.engine.interface import Generation
from mooring.engine.vllm.completions import one_time_salt


@dataclass(eq=False)
class Ask:
    """A generation on its way through the cluster."""

    generation: Generation
    salt: str
    """What vLLM shares its cache by."""
    shared: bool
    """Others come under the same salt."""
    used: Prefix | None
    """The kept prefix, if the prompt begins with all of it."""
    limit: int
    """The most tokens that may count as cached."""
    recomputed_tokens: int | None = None
    """Of the kept prefix, computed again for this request, which had found it gone."""

    def cached(self, reported_tokens: int) -> int:
        """What was computed before the request came, of what vLLM took from its cache."""
        return max(0, min(reported_tokens, self.limit) - (self.recomputed_tokens or 0))


def make_ask(generation: Generation, *, context_tokens: int, block_tokens: int, automatic: bool) -> Ask:
    """`automatic`: what was not named is reused, too.

    Without it a request that names a prefix still shares the prefix's salt, so that vLLM may find more
    than was named; only the named prefix's whole blocks count, which are what was kept.

    Raises:
        InvalidRequest: the prompt is empty.
        PromptTooLong: it can never fit.
    """
    prompt, prefix = generation.prompt, generation.prefix
    if not prompt:
        raise InvalidRequest(
            "messages: the model's chat template makes nothing of them", param="messages"
        )
    needed = len(prompt) + generation.sampling.max_tokens
    if needed > context_tokens:
        raise PromptTooLong(
            f"the request needs {needed} tokens; the workers' context has {context_tokens}:"
            " lower max_tokens, or shorten the messages"
        )
    automatic = automatic and generation.scope is not None
    named = 0 if prefix is None else common_length(prompt, prefix.tokens)
    scope = prefix.scope if prefix is not None else generation.scope if automatic else None
    return Ask(
        generation=generation,
        salt=one_time_salt() if scope is None else scope,
        shared=scope is not None,
        used=prefix if prefix is not None and named == len(prefix) > 0 else None,
        limit=min(len(prompt) - 1, len(prompt) if automatic else named // block_tokens * block_tokens),
    )
