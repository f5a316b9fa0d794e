"""The worker's side: moves bytes between the device and the shared tier, in threads, never in a step."""

from mooring.engine.vllm.connector.device import DeviceBlocks
from mooring.engine.vllm.connector.loads import Loads
from mooring.engine.vllm.connector.messages import Outcome, Step
from mooring.engine.vllm.connector.saves import Saves
from mooring.kvstore.shared.contexts import ContextStore


class ContextWorker:
    """Called by vLLM's model runner once a step, also in steps that compute nothing."""

    def __init__(self, store: ContextStore, device: DeviceBlocks) -> None:
        self._saves = Saves(store, device)
        self._loads = Loads(store, device)
        self._refused: set[str] = set()
        self._outcome = Outcome()

    def begin_loads(self, step: Step) -> None:
        for load in step.loads:
            self._loads.begin(load)
        self._refused.update(refusal.request for refusal in step.refusals)

    def begin_saves(self, step: Step) -> None:
        """After the step's kernels were started: a save comes after them."""
        for save in step.saves:
            self._saves.begin(save)

    def take_loaded(self) -> tuple[set[str], set[str]]:
        """Requests whose load ended, and those of them whose load failed."""
        ended, failed = set(self._refused), self._refused
        self._refused = set()
        for load, problem in self._loads.take_done():
            ended.add(load.request)
            if problem is not None:
                failed.add(load.request)
                self._outcome.failed_loads[load.manifest.context] = problem
        return ended, failed

    def take_outcome(self) -> Outcome | None:
        """What the scheduler's side should hear; None when that is nothing."""
        self._outcome.saved |= self._saves.take_done()
        outcome, self._outcome = self._outcome, Outcome()
        return outcome if outcome else None

    def close(self) -> None:
        self._loads.close()
        self._saves.close()
