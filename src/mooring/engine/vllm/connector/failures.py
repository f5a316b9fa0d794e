"""The last contexts that could not be served or saved, and why; those whose bytes did not load."""

import logging
from collections import OrderedDict

from mooring.engine.vllm.connector.messages import Code, Problem

log = logging.getLogger(__name__)

_REMEMBERED = 100


class Failures:
    """vLLM tells a failed request's client nothing but that it failed; a later report can say why."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, Problem] = OrderedDict()
        self._broken: set[str] = set()

    def add(self, context: str, problem: Problem) -> None:
        log.warning("context=%s code=%s %s", context, problem.code, problem.message)
        self._last[context] = problem
        self._last.move_to_end(context)
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def add_broken(self, context: str, problem: Problem) -> None:
        """Its bytes are stored and did not load: to be computed anew when it is kept again."""
        self.add(context, problem)
        self._broken.add(context)

    def is_broken(self, context: str) -> bool:
        return context in self._broken

    def of_storage(self, context: str) -> Problem | None:
        """Why the context could not be saved, if that was so the last time."""
        problem = self._last.get(context)
        return problem if problem and problem.code in {Code.STORAGE, Code.STORAGE_FULL} else None

    def clear(self, context: str) -> None:
        self._last.pop(context, None)
        self._broken.discard(context)

    def as_json(self) -> dict[str, dict[str, str]]:
        return {context: problem.as_json() for context, problem in self._last.items()}
