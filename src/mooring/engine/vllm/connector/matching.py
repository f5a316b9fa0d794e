"""Decides for a request how much of its prefix will be loaded: all that the device lacks, or nothing.

A context comes to the device once: whoever wants it while another request loads or computes it waits,
and then shares that request's blocks.
"""

from mooring.engine.vllm.connector.ask import Ask, Request
from mooring.engine.vllm.connector.failures import Failures
from mooring.engine.vllm.connector.geometry import Geometry
from mooring.engine.vllm.connector.library import Library
from mooring.engine.vllm.connector.messages import Code, Keep, Problem
from mooring.engine.vllm.connector.problems import problem_of
from mooring.kvstore.codec import Rejected
from mooring.kvstore.shared.manifest import Manifest

WAIT = None
"""Ask again later."""


class Unserved(Exception):
    """What the request builds on is not to be had."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Matching:
    """What is in the tier, what is on its way, and for whom."""

    def __init__(self, library: Library, geometry: Geometry, failures: Failures) -> None:
        self._library = library
        self._geometry = geometry
        self._failures = failures
        self._coming: dict[str, str] = {}
        """Contexts on their way to the device, and the requests that bring them."""

    def tokens_to_load(self, ask: Ask, request: Request, computed: int) -> int | None:
        """Beyond the `computed` ones, which the device has.

        Raises:
            Unserved: neither the device nor the tier has what the request names.
        """
        if ask.problem is not None:
            if ask.problem.code is Code.TOO_SHORT:
                return 0
            raise Unserved(ask.problem)
        assert ask.context is not None
        block_tokens = self._geometry.block_tokens
        # The last token is always computed: what comes after it must be drawn.
        wanted = min(ask.full_tokens, (request.num_tokens - 1) // block_tokens * block_tokens)
        if isinstance(ask.order, Keep) and not self._settled(ask):
            return WAIT  # its report will say whether the tier has it
        if computed >= wanted:
            return 0
        if self._coming.get(ask.context, ask.request_id) != ask.request_id or not self._settled(ask):
            return WAIT
        ask.load = self._loadable(ask)
        ask.load_from = computed
        self._coming[ask.context] = ask.request_id
        return 0 if ask.load is None else wanted - computed

    def came(self, ask: Ask) -> None:
        """What the request was to bring is in vLLM's prefix cache, or will never be."""
        ask.load = None
        if ask.context is not None and self._coming.get(ask.context) == ask.request_id:
            del self._coming[ask.context]

    def is_durable(self, ask: Ask) -> bool:
        assert ask.context is not None
        assert ask.lookup is not None
        try:
            manifest = ask.lookup.result()
        except (OSError, Rejected):
            return False
        return self._fits(ask, manifest) and not self._failures.is_broken(ask.context)

    def _settled(self, ask: Ask) -> bool:
        """Whether the tier has said what it has of the context."""
        assert ask.context is not None
        if ask.lookup is None:
            ask.lookup = self._library.find(ask.context)
        return ask.lookup.done()

    def _loadable(self, ask: Ask) -> Manifest | None:
        """What to load; None: compute it, which only a keep may."""
        assert ask.lookup is not None
        if isinstance(ask.order, Keep):
            return ask.lookup.result() if self.is_durable(ask) else None
        try:
            manifest = ask.lookup.result()
        except (OSError, Rejected) as error:
            raise Unserved(problem_of(error)) from error
        if manifest is None:
            raise Unserved(Problem(Code.UNKNOWN, "neither on the device nor in the shared tier"))
        if not self._fits(ask, manifest):
            raise Unserved(Problem(Code.MISMATCH, "what is stored under the id is of another shape"))
        return manifest

    def _fits(self, ask: Ask, manifest: Manifest | None) -> bool:
        assert ask.context is not None
        return manifest is not None and self._geometry.fits(manifest, ask.context, ask.full_tokens)
