"""The engine's events as OpenAI's completion objects, whole or chunk by chunk."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mooring.core.usage import Usage
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    SampledToken,
    TokenLogprob,
)
from mooring.service.answer import Answer, DryRun
from mooring.service.charging import new_request_id
from mooring.service.tool_calls import ToolCallDelta


@dataclass(frozen=True)
class Envelope:
    """What all chunks of a completion share."""

    model: str
    """As the client named it."""
    fingerprint: str
    id: str = field(default_factory=new_request_id)
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.fingerprint[:10]}",
            "choices": choices,
        } | more


async def chunks(
    envelope: Envelope, answer: Answer, choices: int, *, include_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """`chat.completion.chunk` objects; each choice's last one carries that choice's usage."""

    def chunk(choice: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        entry = {"index": choice, "delta": delta, "finish_reason": None} | more
        return envelope.wrap("chat.completion.chunk", [entry])

    for choice in range(choices):
        yield chunk(choice, {"role": "assistant", "content": ""})
    async for event in answer.events:
        match event:
            case Delta(choice, text, logprobs):
                more = {"logprobs": logprobs_to_wire(logprobs)} if logprobs else {}
                yield chunk(choice, {"content": text}, **more)
            case ToolCallDelta(choice):
                yield chunk(choice, {"tool_calls": [tool_call_delta_to_wire(event)]})
            case ChoiceFinished(choice, reason, drawn):
                usage = Usage(answer.prompt_tokens, answer.cached_tokens, drawn)
                yield chunk(choice, {}, finish_reason=reason.value, usage=usage_to_wire(usage))
            case Finished(usage) if include_usage:
                wire = usage_to_wire(usage)
                yield envelope.wrap("chat.completion.chunk", [], usage=wire)


async def collect(
    envelope: Envelope, events: AsyncIterator[Event | ToolCallDelta], choices: int
) -> dict[str, Any]:
    """The whole `chat.completion`."""
    texts = [""] * choices
    calls: list[list[dict[str, Any]]] = [[] for _ in range(choices)]
    logprobs: list[list[SampledToken]] = [[] for _ in range(choices)]
    reasons: dict[int, str] = {}
    usage = None
    async for event in events:
        match event:
            case Delta(choice, text, tokens):
                texts[choice] += text
                logprobs[choice] += tokens
            case ToolCallDelta(choice, index):
                if index == len(calls[choice]):
                    calls[choice].append(tool_call_delta_to_wire(event))
                else:
                    calls[choice][index]["function"]["arguments"] += event.arguments
            case ChoiceFinished(choice, reason, _):
                reasons[choice] = reason.value
            case Finished(counted):
                usage = counted
    assert usage is not None, "a stream ends with Finished, or raises"
    entries = [
        {
            "index": choice,
            "message": _message(texts[choice], calls[choice]),
            "logprobs": logprobs_to_wire(logprobs[choice]) if logprobs[choice] else None,
            "finish_reason": reasons[choice],
        }
        for choice in range(choices)
    ]
    return envelope.wrap("chat.completion", entries, usage=usage_to_wire(usage))


def dry_completion(envelope: Envelope, run: DryRun) -> dict[str, Any]:
    """A completion without choices: what the cache would have saved."""
    saved = 0 if run.hit is None else run.hit.saved_tokens
    usage = usage_to_wire(Usage(run.prompt_tokens, saved, 0))
    return envelope.wrap("chat.completion", [], usage=usage)


def _message(text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    if not calls:
        return message
    # Only a delta needs its index.
    whole = [{key: value for key, value in call.items() if key != "index"} for call in calls]
    return message | {"content": text or None, "tool_calls": whole}


def tool_call_delta_to_wire(delta: ToolCallDelta) -> dict[str, Any]:
    """A call's first delta carries its id and name; all of them a piece of its arguments."""
    if delta.id is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    return {
        "index": delta.index,
        "id": delta.id,
        "type": "function",
        "function": {"name": delta.name, "arguments": delta.arguments},
    }


def usage_to_wire(usage: Usage) -> dict[str, Any]:
    """Moonshot's `cached_tokens` and OpenAI's `prompt_tokens_details`, the same number twice."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def logprobs_to_wire(tokens: Sequence[SampledToken]) -> dict[str, Any]:
    return {
        "content": [
            _logprob(token.drawn) | {"top_logprobs": [_logprob(other) for other in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.data.decode(errors="replace"),
        "logprob": token.logprob,
        "bytes": list(token.data),
    }
