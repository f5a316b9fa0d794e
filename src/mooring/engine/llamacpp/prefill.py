"""Brings an ask's tokens into its sequence: what others hold is shared, what is stored restored.

The rest is evaluated; that is the scheduler's. With `saving`, the only part of the engine that touches
`kvstore`. Nothing here blocks a step: an ask that has to wait is looked at again in the next one.
"""

import logging
import time
from collections.abc import Iterable, Iterator

from mooring.core.prefix import TOKEN_BYTES, Prefix
from mooring.engine.interface import Source
from mooring.engine.llamacpp.buffer import Buffer, shared_tokens
from mooring.engine.llamacpp.rates import Rates
from mooring.engine.llamacpp.request import Ask, Request, Stage, Ticket
from mooring.engine.llamacpp.restoring import Restore
from mooring.engine.llamacpp.saving import Saving
from mooring.engine.llamacpp.sequence import Sequence
from mooring.kvstore.match import Match, Stored
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.prefill")
_STEP_BYTES = 32 << 20
"""Imported in one step at most (but one block always): a few milliseconds at memory speed."""
NOTHING = Match((), 0)
_PRODUCING = {Stage.RESTORING, Stage.FILLING}


class Prefill:
    """The asks that are admitted and not yet being evaluated."""

    def __init__(
        self,
        buffer: Buffer,
        store: KvStore,
        saving: Saving,
        rates: Rates,
        metrics: Metrics,
        *,
        whole: bool,
    ) -> None:
        """`whole`: the model's sequences cannot be cut, so only whole prefixes are shared and stored."""
        self._buffer = buffer
        self._store = store
        self._saving = saving
        self._rates = rates
        self._metrics = metrics
        self._whole = whole
        self._arriving: list[Ask] = []
        self._producing: list[Ask] = []
        """Whose sequences are growing towards their tokens; others may be waiting for that."""

    # Before admission

    def read_ahead(self, ask: Ask) -> None:
        """An ask has queued: begin to read what is stored of it."""
        ask.restore = self._stored(ask, beyond=0)

    def ticket_for(self, ask: Ask) -> Ticket | None:
        """What has to be admitted before a request, so that the prefix it names is there for it.

        That is when the store does not keep the prefix (it is computed again, and saved), or when it is
        a checkpoint that the request can only begin from.
        """
        if not isinstance(ask, Request) or ask.generation.prefix is None or not ask.named:
            return None
        if ask.helped:
            return None  # once is enough: what failed may fail again, and it can compute all by itself
        prefix = ask.generation.prefix
        kept = self._store.kept(prefix.id) or self._saving.under_way(prefix.id)
        if self._whole:
            if ask.limit == 0 or self.promising(ask)[1]:
                return None
        elif kept or any(_keeps(other, prefix.id) for other in [*self._arriving, *self._producing]):
            return None
        ticket = Ticket(nobody, prefix)
        if not self._buffer.total.holds(ticket.needed):
            return None
        ask.helped = True
        if not kept:
            ask.ticket = ticket
            self.report_lost(prefix)
        self.read_ahead(ticket)
        return ticket

    def report_lost(self, prefix: Prefix) -> None:
        """A prefix that should be kept has to be computed again."""
        self._metrics.recomputed_prefixes.inc()
        _log.warning("prefix gone, computing it again prefix=%s", prefix.id[:12])

    def promising(self, ask: Ask) -> tuple[Sequence | None, int]:
        """The sequence that holds, or will hold, most of an ask's tokens, and how many."""
        best, share = None, 0
        for sequence in self._buffer.sequences:
            if (planned := self._planned(sequence, ask)) > share:
                best, share = sequence, planned
        return best, share

    # Admitted

    def begin(self, ask: Ask) -> None:
        """An ask has its sequences."""
        ask.stage = Stage.SHARING
        self._arriving.append(ask)

    def advance(self) -> Iterator[Ask]:
        """Move on whoever can; yields those whose other tokens are to be evaluated now."""
        budget = _STEP_BYTES
        for ask in list(self._arriving):
            if ask.stage is Stage.SHARING:
                self._share(ask)
            if ask.stage is Stage.RESTORING and budget > 0:
                budget -= self._restore(ask)
            if ask.stage is Stage.FILLING:
                self._arriving.remove(ask)
                assert ask.taken == ask.sequence.done
                yield ask

    def importing(self) -> bool:
        """Whether bytes are here that wait for the next step only."""
        return any(
            ask.stage is Stage.RESTORING and ask.restore is not None and ask.restore.fetch.done()
            for ask in self._arriving
        )

    def forget(self, ask: Ask) -> None:
        """An ask is at its end, or its tokens are all there: nobody can be waiting for it any more."""
        if ask in self._arriving:
            self._arriving.remove(ask)
        if ask in self._producing:
            self._producing.remove(ask)
        self._stop_reading(ask)

    def wanted(self, sequence: Sequence) -> bool:
        """Whether somebody is about to share a sequence."""
        return any(ask.stage is Stage.SHARING and self._planned(sequence, ask) for ask in self._arriving)

    def behind(self, ask: Ask) -> Iterable[Ask]:
        """Who waits for an ask's tokens."""
        return [other for other in self._arriving if other.behind is ask]

    # Sharing

    def _planned(self, sequence: Sequence, ask: Ask) -> int:
        """How many of the ask's leading tokens a sequence holds or will hold."""
        if sequence in ask.sequences:
            return 0
        share = min(shared_tokens(sequence, ask.scope, ask.label), ask.limit)
        if self._whole and not share == ask.limit == sequence.tokens_planned:
            return 0
        return share

    def _held(self, sequence: Sequence, ask: Ask) -> int:
        """How many of them can be shared now."""
        planned = self._planned(sequence, ask)
        if self._whole:
            return planned if sequence.done == planned else 0
        return min(planned, sequence.done)

    def _share(self, ask: Ask) -> None:
        """Take what another sequence holds, unless one is about to hold more."""
        best, share = None, 0
        for sequence in self._buffer.sequences:
            if (held := self._held(sequence, ask)) > share:
                best, share = sequence, held
        waited_for = ask.behind
        ask.behind = self._ahead(ask, share)
        if ask.behind is not None:
            return  # all wait for one computation instead of starting their own
        if best is not None:
            self._buffer.share(best, ask.sequence, share)
            computed = waited_for is not None and waited_for.taken < share
            ask.taken_from[Source.COMPUTED if computed else Source.RESIDENT] = share
        ask.stage = Stage.RESTORING
        self._producing.append(ask)
        if ask.restore is None or self._match(ask).tokens > ask.restore.match.tokens:
            self._stop_reading(ask)  # more has been stored since it queued
            ask.restore = self._stored(ask, beyond=share)
        if ask.restore is None:
            self._store.touch(self._match(ask).blocks)  # resident is used, too

    def _ahead(self, ask: Ask, share: int) -> Ask | None:
        """Who is bringing more of an ask's tokens into the buffer than are there now."""
        for other in self._producing:
            if other.stage in _PRODUCING and self._planned(other.sequence, ask) > share:
                return other
        return None

    # Restoring

    def _stored(self, ask: Ask, *, beyond: int) -> Restore | None:
        """Begin to read what is stored of an ask's tokens [beyond, limit); None when nothing is."""
        match = self._match(ask)
        blocks = [block for block in match.blocks if block.used > beyond]
        if not blocks or not self._worth_loading(blocks, beyond):
            return None
        return Restore(match, self._store.fetch(blocks))

    def _match(self, ask: Ask) -> Match:
        if ask.scope is None:
            return NOTHING
        return self._store.match(ask.scope, ask.label[: TOKEN_BYTES * ask.limit])

    def _stop_reading(self, ask: Ask) -> None:
        if ask.restore is not None:
            ask.restore.fetch.cancel()
            ask.restore = None

    def _worth_loading(self, blocks: list[Stored], beyond: int) -> bool:
        size = sum(block.size_bytes for block in blocks)
        read_s = self._store.seconds_to_read(blocks)
        return self._rates.worth_loading(read_s, size, blocks[-1].used - beyond)

    def _restore(self, ask: Ask) -> int:
        """Import the blocks that were read, as many as fit into a step; returns their bytes."""
        restore, imported = ask.restore, 0
        if restore is None:
            ask.stage = Stage.FILLING
            return 0
        if not restore.fetch.done():
            return 0
        while imported < _STEP_BYTES and not restore.complete:
            size = self._import(ask, restore)
            if size is None:  # what comes after a gap is of no use
                restore.next = len(restore.fetch.blocks)
                break
            imported += size
            restore.next += 1
        if restore.complete:
            ask.restore, ask.stage = None, Stage.FILLING
        return imported

    def _import(self, ask: Ask, restore: Restore) -> int | None:
        """One block; the bytes that were imported, or None when it cannot be."""
        block, sequence = restore.fetch.blocks[restore.next], ask.sequence
        end = min(block.used, ask.limit)
        if end <= sequence.done:
            return 0
        payload = restore.fetch.payload(restore.next)
        if payload is None or block.start > sequence.done:
            return None
        begun, held = time.perf_counter(), sequence.done
        if not self._buffer.restore(sequence, payload, block.start, end):
            self._metrics.rejected_kv.labels("refused").inc()
            return None
        self._rates.import_bytes.measured(payload.nbytes, time.perf_counter() - begun)
        ask.taken_from[Source(restore.fetch.tier(restore.next))] += sequence.done - held
        return int(payload.nbytes)


def _keeps(ask: Ask, prefix_id: str) -> bool:
    return isinstance(ask, Ticket) and ask.prefix.id == prefix_id


def nobody(_: object) -> None:
    """The sink of a ticket that the engine made for itself."""
