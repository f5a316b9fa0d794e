"""The scheduler's side: pins blocks, decides what is saved and loaded, refuses what cannot be served.

Called by vLLM's scheduler, in its thread and between its steps; so nothing here waits. Expiry needs no
clock of its own: blocks are wanted by requests only, and every request passes `arrived` first.
"""

from collections.abc import Collection, Sequence
from typing import Any

from mooring.engine.vllm.connector.ask import Ask, Request, read_ask
from mooring.engine.vllm.connector.blocks import HeldBlocks
from mooring.engine.vllm.connector.failures import Failures
from mooring.engine.vllm.connector.geometry import Geometry
from mooring.engine.vllm.connector.library import Library
from mooring.engine.vllm.connector.matching import Matching, Unserved
from mooring.engine.vllm.connector.messages import (
    Code,
    Keep,
    List,
    Load,
    Outcome,
    Problem,
    Refusal,
    Release,
    ReleaseAllBut,
    Save,
    Stat,
    Step,
    Use,
)
from mooring.engine.vllm.connector.problems import problem_of


class ContextScheduler:
    """Everything about contexts that vLLM's scheduler has to be told."""

    def __init__(self, held: HeldBlocks, library: Library, geometry: Geometry, *, strict: bool) -> None:
        self._held = held
        self._library = library
        self._geometry = geometry
        self._strict = strict
        self._failures = Failures()
        self._matching = Matching(library, geometry, self._failures)
        self._asks: dict[str, Ask] = {}
        self._step = Step()
        self._unwanted: set[str] = set()
        """Contexts being saved that are to be deleted as soon as they are."""

    # --- a request's way

    def arrived(self, request: Request) -> None:
        """Before it is scheduled: so leases and releases free blocks in time, also in a full pool."""
        self._held.expire()
        ask = read_ask(request, self._geometry.block_tokens)
        if ask is None:
            return
        self._asks[ask.request_id] = ask
        saving = set(self._held.saving)
        match ask.order:
            case Release(ids, delete):
                self._forget(ids)
                if delete:  # what is being written is deleted after that
                    self._unwanted |= saving & set(ids)
                    ask.errand = self._library.delete(set(ids) - saving)
            case ReleaseAllBut(ids, delete):
                running = {other.context for other in self._asks.values() if other.context}
                self._forget({*self._held.pins.others(ids), *running.difference(ids)})
                if delete:
                    self._unwanted |= saving - set(ids)
                    ask.errand = self._library.delete_all_but(saving | set(ids))
            case Keep(context):
                self._unwanted.discard(context)
            case List():
                ask.errand = self._library.contexts()
            case _:
                pass

    def _forget(self, contexts: Collection[str]) -> None:
        """Unpin, and let no answer that still uses one pin it again."""
        self._held.unpin(contexts)
        for ask in self._asks.values():
            if isinstance(ask.order, Use) and ask.order.id in contexts:
                ask.released = True

    def matched(self, request: Request, computed: int) -> int | None:
        """How many tokens beyond the `computed` ones will be loaded; None: ask again later."""
        ask = self._asks.get(request.request_id)
        match ask.order if ask else None:
            case Release() | ReleaseAllBut() | List():
                assert ask is not None
                return None if ask.errand and not ask.errand.done() else 0
            case Keep() | Use():
                assert ask is not None
                return self._match(ask, request, computed)
            case _:
                return 0

    def _match(self, ask: Ask, request: Request, computed: int) -> int | None:
        try:
            return self._matching.tokens_to_load(ask, request, computed)
        except Unserved as unserved:
            ask.problem = unserved.problem
            if not (self._strict and isinstance(ask.order, Use)):
                return 0
            if not ask.refused:
                self._failures.add(ask.order.id, unserved.problem)
            ask.refused = True
            return 1  # one token is enough to have a load that fails

    def allocated(self, request: Request, block_ids: Sequence[int], external: int) -> None:
        """The request has blocks; `external` of their tokens are to be loaded now."""
        ask = self._asks.get(request.request_id)
        if ask is None or not isinstance(ask.order, (Keep, Use)):
            return
        if ask.refused:
            if external:
                self._step.refusals.append(Refusal(ask.request_id))
        elif external:
            assert ask.load is not None
            first = ask.load_from // self._geometry.block_tokens
            end = first + external // self._geometry.block_tokens
            self._step.loads.append(Load(ask.request_id, ask.load, first, tuple(block_ids[first:end])))
        else:
            if ask.load is not None:
                self._matching.came(ask)
            self._held.renew(ask.order.id, ask.order.lease_s)

    def finished(
        self, request: Request, block_ids: Sequence[int], *, in_order: bool
    ) -> dict[str, Any] | None:
        """The report. `in_order`: it was neither aborted nor failed."""
        ask = self._asks.pop(request.request_id, None)
        if ask is None:
            return None
        loaded = ask.load is None
        self._matching.came(ask)
        if (
            isinstance(ask.order, (Keep, Use))
            and ask.problem is None
            and in_order
            and loaded
            and not ask.released
            and request.num_computed_tokens >= ask.full_tokens
        ):
            self._hold(ask, ask.order, block_ids[: ask.full_tokens // self._geometry.block_tokens])
        if ask.errand and ask.errand.done() and (error := ask.errand.exception()):
            ask.problem = problem_of(error)
        return self._report(ask)

    def _hold(self, ask: Ask, order: Keep | Use, block_ids: Sequence[int]) -> None:
        pinned = self._held.pin(order.id, ask.full_tokens, block_ids, order.lease_s)
        if not isinstance(order, Keep):
            return
        ask.durable = ask.durable or self._matching.is_durable(ask)
        if not pinned:
            ask.problem = Problem(
                Code.PIN_BUDGET, "no room for another pin; it can be loaded once durable"
            )
        if ask.durable:
            return
        ask.problem = self._failures.of_storage(order.id) or ask.problem
        if order.id not in self._held.saving and not self._save(ask, order.id, block_ids):
            ask.problem = Problem(Code.PIN_BUDGET, "pins and saves hold all blocks that they may")

    def _save(self, ask: Ask, context: str, block_ids: Sequence[int]) -> bool:
        if not self._held.hold_for_save(context, block_ids):
            return False
        manifest = self._geometry.manifest(context, ask.full_tokens)
        self._step.saves.append(Save(manifest, tuple(block_ids)))
        return True

    # --- between steps

    def take_step(self) -> Step:
        """What the worker has to do now."""
        self._held.expire()
        step, self._step = self._step, Step()
        return step

    def heard(self, outcome: Outcome) -> None:
        """What the worker did."""
        for context, problem in outcome.saved.items():
            self._held.saved(context)
            if problem is not None:
                self._failures.add(context, problem)
                continue
            self._failures.clear(context)
            for ask in self._asks.values():
                if ask.context == context:  # it may have looked before the tier had it
                    ask.durable = True
        for context, problem in outcome.failed_loads.items():
            self._failures.add_broken(context, problem)
        if gone := self._unwanted & outcome.saved.keys():
            self._unwanted -= gone
            self._library.delete(gone)

    @property
    def needs_steps(self) -> bool:
        """Whether an engine without requests must go on stepping, so that saves can end."""
        return bool(self._held.saving)

    def close(self) -> None:
        self._library.close()

    # --- reports

    def _report(self, ask: Ask) -> dict[str, Any]:
        pins = self._held.pins
        report: dict[str, Any] = {
            "pin_budget_blocks": pins.budget_blocks,
            "pinned_blocks": pins.used_blocks,
            "block_tokens": self._geometry.block_tokens,
            "fingerprint": self._geometry.fingerprint,
            "tier": self._library.tier,
        }
        if ask.context is not None:
            pin = pins.get(ask.context)
            report |= {"id": ask.context, "pinned_tokens": pin.tokens if pin else 0}
        match ask.order:
            case Keep():
                report["durable"] = ask.durable
            case Stat():
                report |= {"pinned": pins.tokens(), "saving": sorted(self._held.saving)}
                report["failures"] = self._failures.as_json()
            case List():
                report["kept"] = sorted(self._kept(ask))
            case _:
                pass
        if ask.problem is not None:
            report["error"] = ask.problem.as_json()
        return report

    def _kept(self, ask: Ask) -> set[str]:
        there: set[str] = set()
        if ask.errand and ask.errand.done() and not ask.errand.exception():
            there = ask.errand.result()
        return there | self._held.pins.tokens().keys() | set(self._held.saving)
