"""Prefixes made durable: one worker computes each, once, whoever asks; all forget it when told to."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from mooring.core.errors import (
    EngineFailed,
    EngineLost,
    EngineUnavailable,
    PromptTooLong,
    StorageFull,
)
from mooring.core.prefix import Prefix
from mooring.engine.interface import Kept, Progress
from mooring.engine.vllm.cluster import Cluster
from mooring.engine.vllm.completions import keep_body
from mooring.engine.vllm.member import Load, Member
from mooring.engine.vllm.worker import GenerationFailed, WorkerLost, report_of
from mooring.telemetry import ClusterMetrics

_log = logging.getLogger("mooring.cluster")

OnProgress = Callable[[Progress], None]
Message = dict[str, object]
_MOST_ENDS = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_DURABLE_S = 300.0
"""Bytes that are not in the shared tier by then will not come to be there."""
_REMEMBERED_RELEASES = 10_000
_REMEMBERED_TOKENS = 2_000_000


@dataclass(eq=False)
class _Keep:
    """A prefix being kept, and who waits for it."""

    task: "asyncio.Task[Kept]"
    listeners: list[OnProgress]
    waiting: int = 0


class Keeping:
    """What the cluster keeps."""

    def __init__(self, cluster: Cluster, metrics: ClusterMetrics, lease_s: int) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._lease_s = lease_s
        self._keeps: dict[str, _Keep] = {}
        self._released: OrderedDict[str, None] = OrderedDict()
        """Released lately: a worker that was away has to be told when it returns."""
        self._homes: OrderedDict[str, tuple[Prefix, str]] = OrderedDict()
        """Prefixes used lately and the worker that holds each, the longest unused first."""
        self._home_tokens = 0

    @property
    def block_tokens(self) -> int:
        return self._cluster.identity.block_tokens

    async def keep(
        self, prefix: Prefix, on_progress: OnProgress | None = None, *, again: bool = False
    ) -> Kept:
        """As `Engine.keep`; `again`: it had been kept, and a request found it gone."""
        if len(prefix) + 1 > self._cluster.identity.context_tokens:
            raise PromptTooLong(
                f"{len(prefix)} tokens do not fit into the workers' context of"
                f" {self._cluster.identity.context_tokens}"
            )
        if len(prefix) < self.block_tokens:
            _log.info("too short to be kept prefix=%s tokens=%d", prefix.id[:12], len(prefix))
            return Kept(0)
        keep = self._keeps.get(prefix.id)
        if keep is None:
            listeners: list[OnProgress] = []
            task = asyncio.create_task(
                self._keep(prefix, listeners, again), name=f"keep {prefix.id[:12]}"
            )
            keep = self._keeps[prefix.id] = _Keep(task, listeners)
        if on_progress is not None:
            keep.listeners.append(on_progress)
        keep.waiting += 1
        try:
            return await asyncio.shield(keep.task)
        finally:
            keep.waiting -= 1
            if keep.waiting == 0:  # it has ended, or nobody wants it any more
                if self._keeps.get(prefix.id) is keep:
                    del self._keeps[prefix.id]
                keep.task.cancel()

    async def _keep(self, prefix: Prefix, listeners: list[OnProgress], again: bool) -> Kept:
        self._released.pop(prefix.id, None)
        lost: set[Member] = set()
        while True:
            member, held = self._cluster.choose(
                prefix.scope, prefix.tokens, prefix, stored=prefix.id in self._homes, avoid=lost
            )
            try:
                with member.loaded(len(prefix) - held) as load:
                    evaluated = await self._keep_on(member, prefix, load)
                break
            except WorkerLost as error:
                self._cluster.suspect(member, error)
                lost.add(member)
                if len(lost) == _MOST_ENDS:
                    raise EngineLost(f"{error}, while it computed a prefix") from error
            except GenerationFailed as error:
                raise EngineFailed(f"{member.name} could not keep a prefix: {error}") from error
        self._metrics.evaluated_tokens.labels("prefix").inc(evaluated)
        if again and evaluated >= self.block_tokens:
            self._metrics.recomputed_prefixes.inc()
            _log.warning("kept prefix lost and computed again prefix=%s", prefix.id[:12])
        for listener in listeners:
            listener(Progress(evaluated, evaluated))
        return Kept(evaluated)

    async def _keep_on(self, member: Member, prefix: Prefix, load: Load) -> int:
        """Until it is durable; how many of its tokens were computed for that."""
        body = self._body(prefix)
        reply = await member.ask(body)
        load.tokens, evaluated = 0, _evaluated(reply, prefix)
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while not _durable(member, report_of(reply)):
            if waited_s > _DURABLE_S:
                raise EngineFailed(f"{member.name} does not write a prefix to the shared tier")
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            reply = await member.ask(body)
        self.used(member, prefix)
        return evaluated

    def used(self, member: Member, prefix: Prefix) -> None:
        """A worker holds this prefix now."""
        self._cluster.holdings.record(member.name, prefix.scope, prefix.tokens)
        self._forget_home(prefix.id)
        self._homes[prefix.id] = prefix, member.name
        self._home_tokens += len(prefix)
        while self._home_tokens > _REMEMBERED_TOKENS and len(self._homes) > 1:
            self._forget_home(next(iter(self._homes)))

    async def release(self, prefix_id: str) -> None:
        """As `Engine.release`; workers that are away hear of it when they return."""
        self._forget_home(prefix_id)
        self._released[prefix_id] = None
        self._released.move_to_end(prefix_id)
        while len(self._released) > _REMEMBERED_RELEASES:
            self._released.popitem(last=False)
        if not await self._forget({"release": [prefix_id]}):
            raise EngineUnavailable("no vLLM worker could delete a prefix from the shared tier")

    async def kept(self) -> set[str]:
        """As `SharedStore.kept`: in the shared tier, or pinned on a worker that can be reached."""
        reports = await self._cluster.ask(self._cluster.reachable, {"list": True})
        return {prefix_id for report in reports if report for prefix_id in report["kept"]}

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        """As `Engine.release_all_but`."""
        wanted = set(prefix_ids)
        for prefix_id in [each for each in self._homes if each not in wanted]:
            self._forget_home(prefix_id)
        await self._forget({"release_all_but": sorted(wanted)})

    async def _forget(self, message: Message) -> bool:
        """All workers that can be reached unpin; one of them deletes the bytes, or this is False."""
        rest, deleted = self._cluster.reachable, False
        while rest and not deleted:
            deleted = await self._cluster.tell([rest.pop(0)], message | {"delete": True}) > 0
        await self._cluster.tell(rest, message)
        return deleted

    async def welcome(self, member: Member) -> None:
        """A worker is back: tell it what it missed, and let it load what it held before.

        What it holds is not compared with what is wanted: other Mooring servers may have kept prefixes
        that this one has never heard of. Leases end what nobody releases.
        """
        if self._released:
            await self._cluster.tell([member], {"release": list(self._released)})
        homes = [prefix for prefix, home in self._homes.values() if home == member.name]
        for prefix in reversed(homes):  # what was used last comes first
            try:
                report = report_of(await member.ask(self._body(prefix)))
            except Exception as error:  # noqa: BLE001 - whoever uses it next loads it then
                _log.warning("not warmed worker=%s error=%s", member.name, error)
                return
            if _error_code(report) is not None:  # no more room, or nothing to load
                break
            self._cluster.holdings.record(member.name, prefix.scope, prefix.tokens)
        _log.info("worker warmed worker=%s prefixes=%d", member.name, len(homes))

    def _body(self, prefix: Prefix) -> dict[str, Any]:
        identity = self._cluster.identity
        return keep_body(identity.model, prefix, self._lease_s, identity.context_tokens)

    def _forget_home(self, prefix_id: str) -> None:
        if (known := self._homes.pop(prefix_id, None)) is not None:
            self._home_tokens -= len(known[0])

    async def close(self) -> None:
        tasks = [keep.task for keep in self._keeps.values()]
        await asyncio.gather(*tasks, return_exceptions=True)


def _evaluated(reply: dict[str, Any], prefix: Prefix) -> int:
    """What vLLM computed of the prefix itself; the token behind it is not part of it."""
    details = reply["usage"].get("prompt_tokens_details") or {}
    return max(0, len(prefix) - int(details.get("cached_tokens") or 0))


def _error_code(report: dict[str, Any]) -> str | None:
    error = report.get("error")
    return None if not error else str(error.get("code"))


def _durable(member: Member, report: dict[str, Any]) -> bool:
    code = _error_code(report)
    said = (report.get("error") or {}).get("message", "")
    if code == "storage_full":
        raise StorageFull(f"the shared tier is full: {said}")
    if code not in (
        None,
        "pin_budget",
    ):  # without room on the device it is in the shared tier all the same
        raise EngineFailed(f"{member.name} cannot keep a prefix: {code}: {said}")
    return bool(report.get("durable"))
