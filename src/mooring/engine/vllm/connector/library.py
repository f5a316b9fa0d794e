"""The shared tier as the scheduler sees it: asked in a thread of its own, because it is far away."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from mooring.kvstore.codec import Rejected
from mooring.kvstore.shared.contexts import ContextStore
from mooring.kvstore.shared.manifest import Manifest

log = logging.getLogger(__name__)


class Library:
    """One thread answers in the order of the questions: what is asked after a deletion sees it done."""

    def __init__(
        self, store: ContextStore, tier: str, *, orphan_age_s: float, maintenance_s: float
    ) -> None:
        self._store = store
        self.tier = tier
        """Its name, for reports."""
        self._orphan_age_s = orphan_age_s
        self._maintenance_s = maintenance_s
        self._thread = ThreadPoolExecutor(1, "mooring-library")
        self._stopped = threading.Event()
        self._caretaker = threading.Thread(target=self._care, name="mooring-caretaker", daemon=True)
        self._caretaker.start()

    def find(self, context: str) -> "Future[Manifest | None]":
        """The complete manifest, or None; raises Rejected or OSError."""
        return self._thread.submit(self._store.find, context)

    def delete(self, contexts: Collection[str]) -> "Future[None]":
        return self._thread.submit(self._delete, tuple(contexts))

    def delete_all_but(self, kept: Collection[str]) -> "Future[None]":
        return self._thread.submit(self._delete_all_but, frozenset(kept))

    def contexts(self) -> "Future[set[str]]":
        """The ids of all that are there, complete or not."""
        return self._thread.submit(self._store.contexts)

    def close(self) -> None:
        self._stopped.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _delete(self, contexts: Collection[str]) -> None:
        for context in contexts:
            self._store.delete(context)

    def _delete_all_but(self, kept: Collection[str]) -> None:
        self._delete(self._store.contexts() - set(kept))

    def _care(self) -> None:
        """Now and then: remove what crashes left, and restore lost copies."""
        looked_at = -float("inf")
        while True:
            if time.monotonic() - looked_at >= self._orphan_age_s:
                looked_at = time.monotonic()
                self._log_errors(lambda: self._store.remove_orphans(self._orphan_age_s, time.time()))
            if self._store.loses_copies:
                self._log_errors(self._repair)
            if self._stopped.wait(self._maintenance_s):
                return

    def _repair(self) -> None:
        if poor := self._store.repair():
            log.warning("%d contexts have too few copies in the shared tier", len(poor))

    @staticmethod
    def _log_errors(work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, Rejected) as error:
            log.warning("the shared tier could not be tended: %s", error)
