"""Changes that wait at the same time share a transaction, and so its sync of the disk.

A sync takes as long for one change as for a hundred. While one is under way others gather.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mooring.core.errors import RegistryBusy, RegistryUnavailable
from mooring.registry.database import Database, Transaction

T = TypeVar("T")

_QUICK_S = 0.001
"""A sync that takes less may hold up the event loop: handing it to a thread and back costs as much."""
_WEIGHT = 0.1


@dataclass(frozen=True)
class _Change:
    """What somebody waits for."""

    make: Callable[..., Any]
    items: Sequence[Any] | None
    """None: no arguments. Else the same call of a whole group is made once, with all items."""
    done: asyncio.Future[Any]


class GroupCommit:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Change] = []
        self._writer: asyncio.Task[None] | None = None
        self._sync_s = 1.0
        """How long a sync takes, on a moving average: slow until measured."""

    async def run(self, make: Callable[[], T]) -> T:
        """Call something that changes the registry; returns its result when that is durable.

        It is done even if its caller stops waiting, and perhaps tried twice: when one of a group fails,
        nothing of the group remains, and each is done again in a transaction of its own.
        """
        result: T = await self._wait_for(make, None)
        return result

    async def run_for(self, make: Callable[[Sequence[T]], None], items: Sequence[T]) -> None:
        """The same for something that takes any number of items at once, and returns nothing."""
        await self._wait_for(make, items)

    async def _wait_for(self, make: Callable[..., Any], items: Sequence[Any] | None) -> Any:
        change = _Change(make, items, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="group commit")
        return await asyncio.shield(change.done)

    async def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                outcomes = await self._outcomes(group)
                for change, outcome in zip(group, outcomes, strict=True):
                    if isinstance(outcome, BaseException):
                        change.done.set_exception(outcome)
                    else:
                        change.done.set_result(outcome)
            finally:
                for change in group:  # the loop is being closed: nobody is left waiting
                    change.done.cancel()

    async def _outcomes(self, group: list[_Change]) -> list[Any]:
        """The result of each, or what it raised, whatever that is."""
        together: list[Any] | BaseException
        (together,) = await asyncio.gather(self._together(group), return_exceptions=True)
        if not isinstance(together, BaseException):
            return together
        if len(group) == 1 or isinstance(together, RegistryUnavailable):
            return [together] * len(group)
        if isinstance(together, RegistryBusy) and not self._database.is_shared:
            return [together] * len(group)
        alone = (asyncio.to_thread(self._alone, change) for change in group)
        return await asyncio.gather(*alone, return_exceptions=True)

    def _alone(self, change: _Change) -> Any:
        with self._database.begin():
            return change.make() if change.items is None else change.make(change.items)

    async def _together(self, group: list[_Change]) -> list[Any]:
        """Statements take microseconds and run right here: no thread wants Python's lock for them.

        What may take long is done in a thread: to wait for another writer, and to sync a slow disk; and
        everything where statements travel, and wait for those of other servers.
        """
        if self._database.is_shared:
            return await asyncio.to_thread(self._written, group)
        try:
            transaction = self._database.open(wait=False)
        except RegistryBusy:
            transaction = await asyncio.to_thread(self._database.open)
        try:
            with transaction.joined():
                results = _made(group)
        except BaseException:
            transaction.close()
            raise
        await self._finish(transaction, alone=len(group) == 1)
        return results

    def _written(self, group: list[_Change]) -> list[Any]:
        with self._database.begin():
            return _made(group)

    async def _finish(self, transaction: Transaction, *, alone: bool) -> None:
        """Sync the disk: in a thread, unless that has been taking longer than the sync itself."""
        begun = time.perf_counter()
        if alone and self._sync_s < _QUICK_S:
            transaction.finish()
        else:
            await asyncio.to_thread(transaction.finish)
        self._sync_s += _WEIGHT * (time.perf_counter() - begun - self._sync_s)


def _made(group: list[_Change]) -> list[Any]:
    results = [change.make() if change.items is None else None for change in group]
    for make, items in _merged(group).items():
        make(items)
    return results


def _merged(group: list[_Change]) -> dict[Callable[..., Any], list[Any]]:
    """What is called with items, and all that it is called with."""
    merged: dict[Callable[..., Any], list[Any]] = {}
    for change in group:
        if change.items is not None:
            merged.setdefault(change.make, []).extend(change.items)
    return merged
