"""What a chat used: written into the log, the ledger and the limits while its events pass."""

import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mooring.core.errors import MooringError
from mooring.core.usage import Usage
from mooring.engine.interface import ChoiceFinished, Delta, Event, Finished, Source, Started
from mooring.service.charging import Charging, ChatBill
from mooring.service.limiting import Limiter, Slot

_log = logging.getLogger("mooring.chat")


@dataclass(frozen=True)
class Metered:
    """Whose chat it is, and what is known of it before it begins."""

    request_id: str
    tenant: str
    model: str
    prompt_tokens: int
    cache_id: str | None
    """The cache that it named; whether that was a hit, the events tell."""
    tag: str | None


async def charged(
    events: AsyncGenerator[Event],
    chat: Metered,
    charging: Charging,
    limiter: Limiter,
    slot: Slot,
) -> AsyncGenerator[Event]:
    """The same events; what they cost is in the ledger before the answer's end is passed on.

    The end begins with the last choice's `ChoiceFinished`: a client may stop reading there. An answer
    that its client broke off is charged for the prompt and for what had been sent; one that the engine
    failed to give is not charged at all.
    """
    cached, sent, ended = 0, 0, False
    held: list[Event] = []  # choices' ends, until it is known whether they are the answer's

    async def charge(usage: Usage) -> None:
        hit = usage.cached_tokens > 0
        cache_id, tag = (chat.cache_id, chat.tag) if hit else (None, None)
        await limiter.answered(slot, usage.completion_tokens)
        bill = ChatBill(chat.request_id, chat.tenant, chat.model, usage, cache_id, tag)
        await charging.charge(bill)

    try:
        async for event in events:
            match event:
                case Started(cached_tokens):
                    cached = cached_tokens
                case ChoiceFinished():
                    held.append(event)
                    continue
                case Delta():
                    sent += 1
                case Finished(usage):
                    ended = True
                    await charge(usage)
            for earlier in (*held, event):
                yield earlier
            held.clear()
    except MooringError:
        ended = True
        raise
    finally:
        slot.leave()
        await events.aclose()
        if not ended and sent:
            try:
                await charge(Usage(chat.prompt_tokens, cached, sent))
            except MooringError as error:  # its client is gone: nobody else hears of it
                _log.error("chat not charged id=%s error=%s", chat.request_id, error)


async def logged(events: AsyncGenerator[Event], chat: Metered) -> AsyncGenerator[Event]:
    """The same events; one log line when they end, whichever way."""
    begun, ttft_s, outcome = time.monotonic(), 0.0, "cancelled"
    started, usage = Started(0, Source.NONE), Usage(0, 0, 0)
    try:
        async for event in events:
            match event:
                case Started():
                    started = event
                case Delta() | ChoiceFinished() if not ttft_s:
                    ttft_s = time.monotonic() - begun
                case Finished(usage):
                    outcome = "done"
            yield event
    except MooringError:
        outcome = "failed"
        raise
    finally:
        await events.aclose()
        _log.info(
            "chat %s id=%s tenant=%s model=%s cache=%s source=%s cached_tokens=%d prompt_tokens=%d"
            " completion_tokens=%d ttft_s=%.3f seconds=%.3f",
            outcome,
            chat.request_id,
            chat.tenant,
            chat.model,
            chat.cache_id or "-",
            started.source,
            started.cached_tokens,
            usage.prompt_tokens,
            usage.completion_tokens,
            ttft_s,
            time.monotonic() - begun,
        )
