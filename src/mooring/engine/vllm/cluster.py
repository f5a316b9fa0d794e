"""All workers: which are up, which one serves a request, and what happens when one goes or returns."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from mooring.config import VllmConfig
from mooring.core.errors import EngineFailed, EngineUnavailable, StartRefused, WorkerNotFound
from mooring.core.prefix import Prefix, Tokens, pack
from mooring.engine.vllm.completions import message_body
from mooring.engine.vllm.health import Pulse
from mooring.engine.vllm.holdings import CHUNK_TOKENS, Holdings
from mooring.engine.vllm.identity import Unfit, difference, identify
from mooring.engine.vllm.member import Member, State
from mooring.engine.vllm.router import Standing, Wanted, choose
from mooring.engine.vllm.vocabulary import Vocabulary
from mooring.engine.vllm.worker import Identity, Worker, WorkerLost
from mooring.telemetry import ClusterMetrics

_log = logging.getLogger("mooring.cluster")
_CHECKS_A_STOCK = 4


class Cluster:
    """The workers of one engine; `begin` comes first."""

    def __init__(self, config: VllmConfig, vocabulary: Vocabulary, metrics: ClusterMetrics) -> None:
        urls = dict.fromkeys(url.rstrip("/") for url in config.workers)  # each once
        self.members = [Member(Worker(url, config.api_key)) for url in urls]
        self.holdings = Holdings()
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._interval_s = config.health_interval_s
        self._identity: Identity | None = None
        self._on_return: Callable[[Member], Awaitable[None]] | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._returns: set[asyncio.Task[None]] = set()

    @property
    def identity(self) -> Identity:
        assert self._identity is not None, "it has begun"
        return self._identity

    async def begin(self, on_return: Callable[[Member], Awaitable[None]]) -> Identity:
        """Ask all workers what they serve; from now on `on_return` hears of each that is up again.

        Raises:
            StartRefused: none can be used, or two serve different things.
        """
        self._on_return = on_return
        await asyncio.gather(*(self._ask_identity(member) for member in self.members))
        usable = [member for member in self.members if member.identity is not None]
        if not usable:
            raise StartRefused(f"no vLLM worker can be used: {self._reasons()}")
        self._identity = usable[0].identity
        assert self._identity is not None
        for member in self.members:
            if member.identity is None:
                self._set(member, State.DOWN, member.reason)
                continue
            if problem := difference(self._identity, member.identity):
                raise StartRefused(
                    f"the workers {usable[0].name} and {member.name} differ: of the second, {problem}"
                )
            self._set(member, State.UP)
        self._watchers = [
            asyncio.create_task(self._watch(member), name=f"watch {member.name}")
            for member in self.members
        ]
        return self._identity

    @property
    def up(self) -> list[Member]:
        return [member for member in self.members if member.state is State.UP]

    @property
    def reachable(self) -> list[Member]:
        return [member for member in self.members if member.state is not State.DOWN]

    @property
    def failure(self) -> str | None:
        """Why no request can be served, if none can."""
        return None if self.up else f"no vLLM worker takes requests: {self._reasons()}"

    def choose(
        self,
        salt: str,
        prompt: Tokens,
        prefix: Prefix | None,
        *,
        stored: bool = True,
        avoid: Collection[Member] = (),
    ) -> tuple[Member, int]:
        """Who serves this prompt, and how many of its leading tokens are believed to be there.

        `prefix`: one that the prompt begins with, and that is in the shared tier if it is `stored`.
        Raises EngineUnavailable: nobody is up.
        """
        candidates = [member for member in self.up if member not in avoid] or self.up
        if not candidates:
            raise EngineUnavailable(self.failure or "no vLLM worker takes requests")
        held = self.holdings.held_tokens(salt, prompt)
        if prefix is not None:  # another Mooring server may have brought it there
            for member in candidates:
                held[member.name] = max(held.get(member.name, 0), member.pinned.get(prefix.id, 0))
        standings = [
            Standing(member.name, member.waiting_tokens, member.running, held.get(member.name, 0))
            for member in candidates
        ]
        stored_tokens = len(prefix) if prefix is not None and stored else 0
        key = salt.encode() + pack(prompt[:CHUNK_TOKENS]) if prefix is None else prefix.id.encode()
        best = choose(standings, Wanted(len(prompt), stored_tokens, key))
        member = next(member for member in candidates if member.name == best.name)
        return member, best.held_tokens

    def suspect(self, member: Member, error: WorkerLost) -> None:
        """A request found it gone: nobody else is sent there until it has said that it is well."""
        if member.state is not State.DOWN:
            self._set(member, State.DOWN, str(error))
        member.wake.set()

    def drain(self, name: str, *, drained: bool) -> Member:
        """Give a worker no more requests, or some again. Raises WorkerNotFound."""
        for member in self.members:
            if member.name == name.rstrip("/"):
                member.drained = drained
                if member.state is not State.DOWN:
                    self._set(member, State.DRAINING if drained else State.UP)
                return member
        raise WorkerNotFound(name)

    async def tell(self, members: Sequence[Member], message: dict[str, object]) -> int:
        """Say something to the connectors of these; how many have done it."""
        return sum(report is not None for report in await self.ask(members, message))

    async def ask(
        self, members: Sequence[Member], message: dict[str, object]
    ) -> list[dict[str, Any] | None]:
        """What the connectors of these report; None of each that has not done what it was told."""
        body = message_body(self.identity.model, message)
        replies = await asyncio.gather(
            *(member.worker.report(body) for member in members), return_exceptions=True
        )
        reports: list[dict[str, Any] | None] = []
        for member, reply in zip(members, replies, strict=True):
            problem = reply if isinstance(reply, BaseException) else reply.get("error")
            if problem is not None:
                _log.warning("worker not told worker=%s error=%s", member.name, problem)
            reports.append(None if isinstance(reply, BaseException) or problem is not None else reply)
        return reports

    async def close(self, error: EngineFailed) -> None:
        for member in self.members:
            member.fail_all(error)
        tasks = [*self._watchers, *self._returns]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # who reads hears of it before the connections go
        await self.close_connections()

    async def close_connections(self) -> None:
        await asyncio.gather(*(member.worker.close() for member in self.members))

    async def _watch(self, member: Member) -> None:
        pulse, checks = Pulse(self._interval_s), 0
        while True:
            await pulse.wait(member.wake)
            try:
                alive = pulse.heard(await member.worker.is_well())
                await self._judge(member, alive)
                checks += 1
                if member.state is not State.DOWN and checks % _CHECKS_A_STOCK == 0:
                    await self._take_stock(member)
            except Exception:  # noqa: BLE001 - whatever it was, the worker must be asked again
                _log.exception("check failed worker=%s", member.name)

    async def _judge(self, member: Member, alive: bool) -> None:
        """What follows from whether a worker says that it is well."""
        if member.state is State.DOWN:
            if alive and await self._fits(member):
                await self._take_stock(member)
                if not member.pinned:  # it has restarted, as far as anybody can tell
                    self.holdings.forget(member.name)
                self._set(member, State.DRAINING if member.drained else State.UP)
                self._welcome(member)
        elif not alive:
            lost = WorkerLost(f"{member.name} does not say any more that it is well")
            self._set(member, State.DOWN, str(lost))
            member.fail_all(lost)

    async def _fits(self, member: Member) -> bool:
        """A worker that comes back may be another one."""
        await self._ask_identity(member)
        if member.identity is None:
            return False
        if problem := difference(self.identity, member.identity):
            if member.reason != problem:
                _log.error("worker not used worker=%s reason=%s", member.name, problem)
            member.reason = problem
            return False
        return True

    async def _ask_identity(self, member: Member) -> None:
        try:
            member.identity = await identify(member.worker, self._vocabulary)
        except Unfit as error:
            member.identity, member.reason = None, str(error)

    async def _take_stock(self, member: Member) -> None:
        """What it has pinned, for the metrics and for the next choice."""
        body = message_body(self.identity.model, {"stat": True})
        try:
            report = await member.worker.report(body)
        except Exception as error:  # noqa: BLE001 - only news; its health is asked elsewhere
            _log.warning("no report worker=%s error=%s", member.name, error)
            return
        member.pinned = report.get("pinned") or {}
        self._metrics.pinned_blocks.labels(member.name).set(report.get("pinned_blocks", 0))
        self._metrics.pin_budget_blocks.labels(member.name).set(report.get("pin_budget_blocks", 0))

    def _welcome(self, member: Member) -> None:
        if self._on_return is not None:
            task = asyncio.ensure_future(self._on_return(member))
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)

    def _set(self, member: Member, state: State, reason: str = "") -> None:
        level = logging.WARNING if state is State.DOWN else logging.INFO
        _log.log(level, "worker %s worker=%s reason=%s", state, member.name, reason or "-")
        member.state, member.reason = state, reason
        for each in State:
            self._metrics.worker_state.labels(member.name, each.value).set(each is state)

    def _reasons(self) -> str:
        return "; ".join(
            f"{member.name} is {member.state}" + (f" ({member.reason})" if member.reason else "")
            for member in self.members
        )
