"""Changes that wait at the same time share a transaction, and so its sync of the disk.

A sync takes as long for one change as for a hundred. While one is under way others gather.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mooring.core.errors import RegistryBusy
from mooring.registry.database import Database

T = TypeVar("T")


@dataclass(frozen=True)
class _Change:
    """What somebody waits for."""

    make: Callable[[], Any]
    done: asyncio.Future[Any]


class GroupCommit:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Change] = []
        self._writer: asyncio.Task[None] | None = None

    async def run(self, make: Callable[[], T]) -> T:
        """Call something that changes the registry; returns its result when that is durable.

        It is done even if its caller stops waiting, and perhaps tried twice: when one of a group fails,
        nothing of the group remains, and each is done again in a transaction of its own.
        """
        change = _Change(make, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="group commit")
        result: T = await asyncio.shield(change.done)
        return result

    async def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                outcomes = await self._outcomes([change.make for change in group])
                for change, outcome in zip(group, outcomes, strict=True):
                    if isinstance(outcome, BaseException):
                        change.done.set_exception(outcome)
                    else:
                        change.done.set_result(outcome)
            finally:
                for change in group:  # the loop is being closed: nobody is left waiting
                    change.done.cancel()

    async def _outcomes(self, group: list[Callable[[], Any]]) -> list[Any]:
        """The result of each, or what it raised, whatever that is."""
        together: list[Any] | BaseException
        (together,) = await asyncio.gather(self._together(group), return_exceptions=True)
        if not isinstance(together, BaseException):
            return together
        if len(group) == 1 or isinstance(together, RegistryBusy):
            return [together] * len(group)
        alone = (asyncio.to_thread(make) for make in group)
        return await asyncio.gather(*alone, return_exceptions=True)

    async def _together(self, group: list[Callable[[], Any]]) -> list[Any]:
        """Statements take microseconds and run right here: a thread would wait longer for Python's lock.

        What may take long is done in a thread: to wait for another writer, and to sync the disk.
        """
        try:
            transaction = self._database.open(wait=False)
        except RegistryBusy:
            transaction = await asyncio.to_thread(self._database.open)
        try:
            with transaction.joined():
                results = [make() for make in group]
        except BaseException:
            transaction.close()
            raise
        await asyncio.to_thread(transaction.finish)
        return results
