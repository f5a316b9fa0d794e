"""One request that has orders for the connector, from its arrival to its end."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from mooring.core.prefix import Prefix
from mooring.engine.vllm.connector.messages import Code, Keep, Malformed, Order, Problem, Use, read_order
from mooring.kvstore.shared.manifest import Manifest


class Request(Protocol):
    """What is used of vLLM's request."""

    request_id: str
    prompt_token_ids: Sequence[int] | None
    num_tokens: int
    num_computed_tokens: int
    cache_salt: str | None
    kv_transfer_params: dict[str, Any] | None


@dataclass
class Ask:
    """What a request wants, and how far that is."""

    request_id: str
    order: Order | None
    """None: it could not be read, as `problem` says."""
    full_tokens: int = 0
    """Of the prefix, those in whole blocks: what can be pinned and saved."""
    problem: Problem | None = None
    lookup: "Future[Manifest | None] | None" = None
    errand: "Future[Any] | None" = None
    """In the tier, for an order that is not about this request."""
    released: bool = False
    """Its context was released while it ran: there is nothing to be pinned any more."""
    durable: bool = False
    refused: bool = False
    """Claims a load that will be said to have failed: the way to end a request early."""
    load: Manifest | None = None
    """What is to be loaded, or is being loaded."""
    load_from: int = 0
    """The tokens before are on the device."""

    @property
    def context(self) -> str | None:
        return self.order.id if isinstance(self.order, (Keep, Use)) else None


def read_ask(request: Request, block_tokens: int) -> Ask | None:
    """None for a request without orders. The prefix is hashed here, once."""
    try:
        order = read_order(request.kv_transfer_params)
    except Malformed as error:
        return Ask(request.request_id, None, problem=Problem(Code.MALFORMED, str(error)))
    if order is None:
        return None
    ask = Ask(request.request_id, order)
    if isinstance(order, (Keep, Use)):
        ask.full_tokens = order.tokens // block_tokens * block_tokens
        if why := _mismatch(request, order):
            ask.problem = Problem(Code.MISMATCH, why)
        elif not ask.full_tokens:
            ask.problem = Problem(Code.TOO_SHORT, f"a prefix is kept from {block_tokens} tokens on")
    return ask


def _mismatch(request: Request, order: Keep | Use) -> str | None:
    """Why the id is not that of the prompt's beginning, in the request's scope."""
    prompt = request.prompt_token_ids
    if prompt is None or any(
        getattr(request, name, None) for name in ("prompt_is_token_ids", "mm_features", "lora_request")
    ):
        return "only prompts of plain tokens, without an adapter, can be kept"
    if not request.cache_salt:
        return "a kept prefix needs a cache_salt, the scope that it belongs to"
    if len(prompt) < order.tokens:
        return f"the prompt has {len(prompt)} tokens, fewer than the prefix"
    if Prefix(request.cache_salt, tuple(prompt[: order.tokens])).id != order.id:
        return "the id is not that of these tokens in this scope"
    return None
