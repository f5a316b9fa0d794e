"""Writes contexts from the device to the shared tier, one after another, in a thread of its own."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mooring.engine.vllm.connector.device import DeviceBlocks
from mooring.engine.vllm.connector.messages import Problem, Save
from mooring.engine.vllm.connector.problems import problem_of
from mooring.kvstore.shared.contexts import ContextStore

log = logging.getLogger(__name__)


class Saves:
    """Object after object, so that host memory holds one at a time, however long the context is."""

    def __init__(self, store: ContextStore, device: DeviceBlocks) -> None:
        self._store = store
        self._device = device
        self._thread = ThreadPoolExecutor(1, "mooring-save")
        self._running: dict[str, Future[Problem | None]] = {}

    def begin(self, save: Save) -> None:
        """The blocks must stay as they are until `take_done` names the context."""
        fence = self._device.fence()
        self._running[save.manifest.context] = self._thread.submit(self._save, save, fence)

    def take_done(self) -> dict[str, Problem | None]:
        """Contexts whose save ended since the last call; None: durable."""
        done = {context: future.result() for context, future in self._running.items() if future.done()}
        for context in done:
            del self._running[context]
        return done

    def close(self) -> None:
        """What is being written is finished; what waits is not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _save(self, save: Save, fence: Any) -> Problem | None:
        manifest = save.manifest
        try:
            self._store.begin(manifest)
            for part in manifest.objects():
                payload = self._device.read(save.block_ids[part.start : part.end], fence)
                self._store.put_object(part, payload)
            self._store.commit(manifest)
        except OSError as error:
            self._undo(save)
            return problem_of(error)
        log.info("saved context=%s tokens=%d", manifest.context, manifest.tokens)
        return None

    def _undo(self, save: Save) -> None:
        """A full tier must not stay full of what is of no use."""
        try:
            self._store.delete(save.manifest.context)
        except OSError as error:  # then it is removed as an orphan
            log.warning("context=%s was left incomplete: %s", save.manifest.context, error)
