"""Charges tenants for what they keep and use, each thing once.

What a change of a cache costs is written in the change's own transaction. What a chat costs is written
before its client hears the end of it; chats that end at the same time share a transaction.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mooring.core.charge import Charge, ChargeKind, Life
from mooring.core.errors import InvalidRequest, MooringError, QuotaExceeded
from mooring.core.usage import Usage
from mooring.registry.ledger import Ledger, Step
from mooring.service.billing import begun_minutes, storage_fee_between
from mooring.service.pricing import PricePlan, Prices

_log = logging.getLogger("mooring.charging")


@dataclass(frozen=True)
class ChatBill:
    """What a chat is charged for."""

    request_id: str
    tenant: str
    model: str
    usage: Usage
    cache_id: str | None
    """The cache that it used, if it used one."""
    tag: str | None


def new_request_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


class Charging:
    """The bill of all tenants under one plan."""

    def __init__(
        self,
        ledger: Ledger,
        plan: PricePlan,
        *,
        overdraft: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`overdraft`, in nano-units, is how far below 0 a prepaid balance may be; None: not prepaid."""
        self._ledger = ledger
        self._plan = plan
        self._overdraft = overdraft
        self._clock = clock
        self._waiting: list[tuple[Sequence[Charge], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def plan(self) -> PricePlan:
        return self._plan

    @property
    def is_prepaid(self) -> bool:
        return self._overdraft is not None

    # Caches: steps of the registry's transactions

    def ready(self, cache_id: str, tenant: str, model: str, tokens: int) -> Step:
        """A cache has become ready."""
        now = int(self._clock())
        unit = self._prices(now, model, tokens).creation
        charge = Charge(
            key=f"creation:{cache_id}",
            tenant=tenant,
            kind=ChargeKind.CREATION,
            quantity=tokens,
            unit=unit,
            amount=unit * tokens,
            plain=0,
            currency=self._plan.currency,
            plan=self._plan.name,
            model=model,
            created_at=now,
            cache_id=cache_id,
        )
        return self._ledger.beginning(cache_id, tokens, now, [charge])

    def over(self, cache_id: str) -> Step:
        """A cache was deleted, has been found past its end, or could not be filled again."""
        return self._ledger.ending(cache_id, int(self._clock()), self._storage)

    def moved(self, cache_id: str, until: int, now: int) -> Step:
        """A cache has another end.

        `now` is what the cache's own change goes by: were it read again a second later, a cache at its
        very end could stay ready and lose its life.
        """
        return self._ledger.moving(cache_id, until, now, self._storage)

    def _storage(self, life: Life, ended_at: int) -> list[Charge]:
        minutes = begun_minutes(ended_at - life.began_at)
        amount = storage_fee_between(self._plan, life.model, life.tokens, life.began_at, ended_at)
        unit = self._prices(life.began_at, life.model, life.tokens).storage_minute
        return [
            Charge(
                key=f"storage:{life.cache_id}:{life.serial}",
                tenant=life.tenant,
                kind=ChargeKind.STORAGE,
                quantity=life.tokens * minutes,
                unit=unit,
                amount=amount,
                plain=0,
                currency=self._plan.currency,
                plan=self._plan.name,
                model=life.model,
                created_at=ended_at,
                cache_id=life.cache_id,
            )
        ]

    # Chats

    async def admit(self, tenant: str) -> None:
        """Raises QuotaExceeded: a prepaid balance is used up, storage that runs included."""
        if self._overdraft is None:
            return
        balance = await self.available(tenant)
        if balance <= 0:
            raise QuotaExceeded(
                f"the balance is used up ({self._plan.show(balance)}): top it up to go on"
            )

    async def charge(self, bill: ChatBill) -> None:
        """Write a chat's lines; returns when they are durable.

        Where nothing is owed, an answer is not refused because it could not be metered.

        Raises:
            RegistryFailed, StorageFull: they could not be written, and something is owed.
        """
        lines = self._lines(bill)
        try:
            await self._write_soon(lines)
        except MooringError:
            if any(line.amount for line in lines):
                raise
            _log.error("chat not metered id=%s", bill.request_id)

    async def _write_soon(self, lines: Sequence[Charge]) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="ledger")
        await asyncio.shield(done)

    async def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            lines = [line for each, _ in batch for line in each]
            error: MooringError | None = None
            try:
                await asyncio.to_thread(self._ledger.post, lines)
            except MooringError as failure:
                _log.error("ledger not written chats=%d error=%s", len(batch), failure)
                error = failure
            for _, done in batch:
                if done.cancelled():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    def _lines(self, bill: ChatBill) -> list[Charge]:
        usage, now = bill.usage, int(self._clock())
        prices = self._prices(now, bill.model, usage.total_tokens)
        used = {
            ChargeKind.CALL: (1 if bill.cache_id is not None else 0, prices.call, 0),
            ChargeKind.INPUT: (
                usage.prompt_tokens - usage.cached_tokens,
                prices.input,
                prices.input,
            ),
            ChargeKind.CACHED_INPUT: (usage.cached_tokens, prices.cached_input, prices.input),
            ChargeKind.OUTPUT: (usage.completion_tokens, prices.output, prices.output),
        }
        return [
            Charge(
                key=f"{bill.request_id}:{kind}",
                tenant=bill.tenant,
                kind=kind,
                quantity=quantity,
                unit=unit,
                amount=quantity * unit,
                plain=quantity * plain,
                currency=self._plan.currency,
                plan=self._plan.name,
                model=bill.model,
                created_at=now,
                cache_id=bill.cache_id,
                tag=bill.tag,
                request_id=bill.request_id,
            )
            for kind, (quantity, unit, plain) in used.items()
            if quantity
        ]

    # Money

    async def top_up(self, tenant: str, amount: int, reference: str) -> None:
        """Money came in: nano-units. The same reference counts once. Raises InvalidRequest."""
        if amount <= 0:
            raise InvalidRequest("amount: must be above 0", param="amount")
        line = Charge(
            key=f"top_up:{tenant}:{reference}",
            tenant=tenant,
            kind=ChargeKind.TOP_UP,
            quantity=1,
            unit=-amount,
            amount=-amount,
            plain=0,
            currency=self._plan.currency,
            plan=self._plan.name,
            model="",
            created_at=int(self._clock()),
        )
        await asyncio.to_thread(self._ledger.post, [line])

    async def balance(self, tenant: str) -> int:
        """Nano-units: what came in, less all charges, less the storage that runs."""

        def read() -> int:
            now = int(self._clock())
            running = sum(
                line.amount
                for life in self._ledger.open_lives(tenant)
                for line in self._storage(life, life.end(now))
            )
            return self._ledger.balance(tenant) - running

        return await asyncio.to_thread(read)

    async def available(self, tenant: str) -> int:
        """The balance, and what may be overdrawn."""
        return await self.balance(tenant) + (self._overdraft or 0)

    def running(self, tenant: str) -> list[Charge]:
        """What the storage that runs has cost so far, as the lines that it would be. Blocking."""
        now = int(self._clock())
        lives = self._ledger.open_lives(tenant)
        return [line for life in lives for line in self._storage(life, life.end(now))]

    def _prices(self, moment: float, model: str, tokens: int) -> Prices:
        return self._plan.at(moment).prices(model, tokens)
