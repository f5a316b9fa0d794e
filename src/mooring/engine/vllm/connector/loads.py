"""Reads contexts from the shared tier into device blocks, several at a time, in threads of their own."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from mooring.engine.vllm.connector.device import DeviceBlocks
from mooring.engine.vllm.connector.messages import Load, Problem
from mooring.engine.vllm.connector.problems import problem_of
from mooring.kvstore.codec import Rejected
from mooring.kvstore.shared.contexts import ContextStore

log = logging.getLogger(__name__)

_THREADS = 2


class Loads:
    """A payload is verified as a whole before its first byte goes to the device."""

    def __init__(self, store: ContextStore, device: DeviceBlocks) -> None:
        self._store = store
        self._device = device
        self._threads = ThreadPoolExecutor(_THREADS, "mooring-load")
        self._running: list[tuple[Load, Future[Problem | None]]] = []

    def begin(self, load: Load) -> None:
        self._running.append((load, self._threads.submit(self._load, load)))

    def take_done(self) -> list[tuple[Load, Problem | None]]:
        """Loads that ended since the last call; None: the blocks are filled."""
        done = [(load, future.result()) for load, future in self._running if future.done()]
        self._running = [(load, future) for load, future in self._running if not future.done()]
        return done

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _load(self, load: Load) -> Problem | None:
        manifest = load.manifest
        end = load.first + len(load.block_ids)
        try:
            for part in manifest.objects():
                first, last = max(part.start, load.first), min(part.end, end)
                if first < last:
                    payload = self._store.get_object(manifest, part)
                    blocks = load.block_ids[first - load.first : last - load.first]
                    self._device.write(blocks, payload, skip=first - part.start)
        except (OSError, Rejected) as error:
            return problem_of(error)
        log.info(
            "loaded context=%s tokens=%d", manifest.context, len(load.block_ids) * manifest.block_tokens
        )
        return None
