"""What is sent to vLLM's `/v1/completions`. Pure: requests of the engine's interface to JSON bodies."""

import secrets
from collections.abc import Mapping
from typing import Any

from mooring.core.errors import InvalidRequest
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import Generation, Grammar, Sampling

_GREEDY_BELOW = 1e-4  # as the embedded engine has it: dividing by less overflows
_MOST_GRAMMAR_CHARACTERS = 1 << 16
_SEEDS = 1 << 63
_NO_CONTENT: Tokens = (1,)  # for requests that only carry a message to the connector

# What a model's own `generation_config.json` would set; the interface knows none of it.
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


def one_time_salt() -> str:
    """Nothing is shared under it; no tenant's id has its first character."""
    return "~" + secrets.token_hex(16)


def generation_body(
    model: str, generation: Generation, salt: str, message: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A streamed answer; `message` is for the connector.

    Raises:
        InvalidRequest: the grammar is too large.
    """
    sampling = generation.sampling
    body: dict[str, Any] = {
        **_NEUTRAL,
        "model": model,
        "prompt": generation.prompt,
        "cache_salt": salt,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "add_special_tokens": False,
        "skip_special_tokens": not generation.marks,
        **_sampling(sampling),
    }
    if generation.grammar is not None:
        body["structured_outputs"] = {"grammar": _grammar(generation.grammar)}
    return body | _for_connector(message)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    greedy = sampling.temperature < _GREEDY_BELOW
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": 0.0 if greedy else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "n": sampling.choices,
        "stop": list(sampling.stop),
    }
    if greedy and sampling.choices > 1:
        fields |= {"temperature": 1.0, "top_k": 1}  # vLLM refuses n > 1 at temperature 0
    if sampling.seed is not None:
        # vLLM counts on from it for each choice; negative ones come round as they do elsewhere.
        fields["seed"] = sampling.seed % (_SEEDS - sampling.choices)
    if sampling.top_logprobs is not None:
        # As ids: two tokens can have the same text, and texts that are no UTF-8 have none.
        fields |= {"logprobs": sampling.top_logprobs, "return_tokens_as_token_ids": True}
    return fields


def _grammar(grammar: Grammar) -> str:
    if len(grammar.text) > _MOST_GRAMMAR_CHARACTERS:
        raise InvalidRequest(
            f"{grammar.param}: no answer can be held to it: larger than"
            f" {_MOST_GRAMMAR_CHARACTERS} characters",
            param=grammar.param,
        )
    return grammar.text


def keep_body(model: str, prefix: Prefix, lease_s: int, context_tokens: int) -> dict[str, Any]:
    """Compute, or load, and pin a prefix.

    vLLM always computes a prompt's last token, and with it the block that it is in. So one more token
    stands behind the prefix where there is room for it.
    """
    prompt = prefix.tokens
    if len(prompt) + 2 <= context_tokens:
        prompt += prompt[-1:]
    message = {"keep": prefix.id, "tokens": len(prefix), "lease_s": lease_s}
    return _short(model, prompt, prefix.scope) | _for_connector(message)


def use_message(prefix: Prefix, lease_s: int) -> dict[str, Any]:
    """The prompt begins with this kept prefix."""
    return {"use": prefix.id, "tokens": len(prefix), "lease_s": lease_s}


def message_body(model: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing but a message to the connector."""
    return _short(model, _NO_CONTENT, one_time_salt()) | _for_connector(message)


def _short(model: str, prompt: Tokens, salt: str) -> dict[str, Any]:
    return {
        **_NEUTRAL,
        "model": model,
        "prompt": prompt,
        "cache_salt": salt,
        "max_tokens": 1,
        "temperature": 0.0,
    }


def _for_connector(message: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if message is None else {"kv_transfer_params": {"mooring": dict(message)}}
