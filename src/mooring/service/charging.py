"""Charges tenants for what they keep and use, each thing once.

What a change of a cache costs is written in the change's own transaction. What a chat costs is written
before its client hears the end of it; chats that end at the same time share a transaction.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mooring.core.charge import Charge, ChargeKind, Life
from mooring.core.errors import (
    InvalidRequest,
    MooringError,
    QuotaExceeded,
    RegistryBusy,
    RegistryUnavailable,
)
from mooring.core.usage import Usage
from mooring.registry.group_commit import GroupCommit
from mooring.registry.journal import Journal
from mooring.registry.ledger import Ledger, Step
from mooring.service.billing import StoragePiece, storage_pieces
from mooring.service.lately import Lately
from mooring.service.pricing import (
    NANO,
    PriceHistory,
    PricePlan,
    Prices,
    plan_from_json,
    plan_to_json,
)

_log = logging.getLogger("mooring.charging")
_MOST_PAID = 10**9 * NANO
_AWAY = (RegistryUnavailable, RegistryBusy)
_BATCH = 200  # bills that are written in one transaction


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
        commits: GroupCommit,
        plan: PricePlan,
        *,
        overdraft: int | None = None,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`overdraft`, in nano-units, is how far below 0 a prepaid balance may be; None: not prepaid.

        With a journal, chats that end while the registry is away are charged when it is back.
        """
        self._ledger = ledger
        self._commits = commits
        self._history = PriceHistory(((0, plan),))
        self._overdraft = overdraft
        self._journal = journal
        self._clock = clock
        self._running_lately = Lately(self._running_amount)

    @property
    def plan(self) -> PricePlan:
        """The one in force."""
        return self._history.plans[-1][1]

    def put_in_force(self) -> None:
        """Charge by the configured plan from now on, and by the recorded ones for what was before.

        Blocking. So a changed configuration never changes the price of what is past.
        """
        self._ledger.put_in_force(plan_to_json(self.plan), int(self._clock()))
        self.recall()

    def recall(self) -> bool:
        """Charge by the plans that a server has put in force, if one has. Blocking."""
        recorded = [(since, plan_from_json(plan)) for since, plan in self._ledger.plans()]
        if recorded:
            self._history = PriceHistory(tuple(recorded))
        return bool(recorded)

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
            currency=self.plan.currency,
            plan=self.plan.name,
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
        return [
            Charge(
                key=f"storage:{life.cache_id}:{life.serial}:{piece.first_minute}",
                tenant=life.tenant,
                kind=ChargeKind.STORAGE,
                quantity=life.tokens * piece.minutes,
                unit=piece.unit,
                amount=life.tokens * piece.minutes * piece.unit,
                plain=0,
                currency=piece.plan.currency,
                plan=piece.plan.name,
                model=life.model,
                created_at=piece.began_at,
                cache_id=life.cache_id,
            )
            for piece in self._pieces(life, ended_at)
        ]

    # Chats

    async def admit(self, tenant: str) -> None:
        """Raises QuotaExceeded: a prepaid balance is used up, storage that runs included."""
        if self._overdraft is None:
            return
        used = await self._running_lately.get(tenant) - self._overdraft
        known = self._ledger.at_least(tenant, self.plan.currency)
        if known is not None and known > used:
            return
        left = await asyncio.to_thread(self._ledger.balance, tenant, self.plan.currency) - used
        if left <= 0:
            raise QuotaExceeded(f"the balance is used up ({self.plan.show(left)}): top it up to go on")

    async def charge(self, bill: ChatBill) -> None:
        """Write a chat's lines; returns when they are durable, in the registry or in the journal.

        Where nothing is owed, an answer is not refused because it could not be metered.

        Raises:
            RegistryFailed, StorageFull: they could not be written, and something is owed.
        """
        lines = self._lines(bill)
        try:
            try:
                await self._commits.run_for(self._ledger.post, lines)
            except _AWAY:
                if self._journal is None:
                    raise
                await asyncio.to_thread(self._journal.keep, lines)
                _log.warning("chat charged later id=%s", bill.request_id)
        except MooringError:
            if any(line.amount for line in lines):
                raise
            _log.error("chat not metered id=%s", bill.request_id)

    async def post_waiting(self) -> None:
        """Write what the journal holds. Raises RegistryFailed: the registry is still away."""
        if self._journal is not None and self._journal.size():
            await asyncio.to_thread(self._post_waiting, self._journal)

    def _post_waiting(self, journal: Journal) -> None:
        bills = journal.take()
        for batch in (bills[at : at + _BATCH] for at in range(0, len(bills), _BATCH)):
            try:
                self._ledger.post(line for bill in batch for line in bill)
            except _AWAY:
                raise
            except MooringError:
                for bill in batch:
                    self._post_or_reject(journal, bill)
        journal.posted()
        if bills:
            _log.info("charges written that had waited chats=%d", len(bills))

    def _post_or_reject(self, journal: Journal, bill: list[Charge]) -> None:
        try:
            self._ledger.post(bill)
        except _AWAY:
            raise
        except MooringError:
            journal.reject(bill)

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
                currency=self.plan.currency,
                plan=self.plan.name,
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
        if not 0 < amount <= _MOST_PAID:
            raise InvalidRequest(
                f"amount: must be above 0 and at most {_MOST_PAID // NANO}", param="amount"
            )
        line = Charge(
            key=f"top_up:{tenant}:{reference}",
            tenant=tenant,
            kind=ChargeKind.TOP_UP,
            quantity=1,
            unit=-amount,
            amount=-amount,
            plain=0,
            currency=self.plan.currency,
            plan=self.plan.name,
            model="",
            created_at=int(self._clock()),
        )
        await self._commits.run_for(self._ledger.post, [line])

    async def balance(self, tenant: str) -> int:
        """Nano-units of the plan's currency: what came in, less charges and the storage that runs."""

        def read() -> int:
            return self._ledger.balance(tenant, self.plan.currency) - self._running_amount(tenant)

        return await asyncio.to_thread(read)

    async def available(self, tenant: str) -> int:
        """The balance, and what may be overdrawn."""
        return await self.balance(tenant) + (self._overdraft or 0)

    def running(self, tenant: str) -> list[Charge]:
        """What the storage that runs has cost so far, as the lines that it would be. Blocking."""
        now = int(self._clock())
        lives = self._ledger.open_lives(tenant)
        return [line for life in lives for line in self._storage(life, life.end(now))]

    def _running_amount(self, tenant: str) -> int:
        """The same, added up, in the plan's currency."""
        currency, now = self.plan.currency, int(self._clock())
        return sum(
            life.tokens * piece.minutes * piece.unit
            for life in self._ledger.open_lives(tenant)
            for piece in self._pieces(life, life.end(now))
            if piece.plan.currency == currency
        )

    def _pieces(self, life: Life, ended_at: int) -> Iterator[StoragePiece]:
        return storage_pieces(self._history, life.model, life.tokens, life.began_at, ended_at)

    def _prices(self, moment: float, model: str, tokens: int) -> Prices:
        return self.plan.at(moment).prices(model, tokens)
