"""The load of `gateway.py`, in a process of its own: `python gateway_load.py PLAN.json` prints JSON.

Raw HTTP/1.1 over kept connections, requests made beforehand, so that a core's small part is enough for
thousands a second. It knows nothing of Mooring.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop


@dataclass(frozen=True)
class Plan:
    """What to send, and how."""

    port: int
    requests: list[str]
    """Whole requests, head and body; taken in turn."""
    connections: int
    seconds: float
    rate: float | None
    """Arrivals a second, Poisson, whatever the server does; None: each connection asks again at once."""
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came back."""

    seconds: float
    latencies_s: list[float]
    """Of each answer, from when its request was to be sent to its last byte."""
    answered: int
    """All answers, those after the time was over too."""
    refused: int
    """Answers that were no 200."""
    cpu_s: float
    """That this process took itself."""


class Connection(asyncio.Protocol):
    """One kept connection with at most one request under way."""

    def __init__(self, on_answer: Callable[["Connection", bool], None]) -> None:
        self._on_answer = on_answer
        self._received = bytearray()
        self._whole = 0
        """The length of the answer that is coming, once its head is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport.close()

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._whole:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(received[:end]).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._whole = end + 4 + int(length)
        if len(received) >= self._whole:
            good = received.startswith(b"HTTP/1.1 200")
            received.clear()
            self._whole = 0
            self._on_answer(self, good)


class Load:
    """Sends by a plan and takes the time."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = [request.encode() for request in plan.requests]
        self._next = 0
        self._idle: deque[Connection] = deque()
        """Used in turn: a server closes a connection that idles for long."""
        self._due: deque[float] = deque()
        """When requests were to be sent that no connection is free for."""
        self._asked: dict[Connection, float] = {}
        self._latencies: list[float] = []
        self._refused = 0
        self._open = plan.rate is not None
        self._over = False

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        for _ in range(self._plan.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered), "127.0.0.1", self._plan.port
            )
            self._idle.append(connection)
        begun, cpu = time.perf_counter(), time.process_time()
        if self._plan.rate is None:
            while self._idle:
                self._ask(self._idle.popleft(), time.perf_counter())
            await asyncio.sleep(self._plan.seconds)
        else:
            await self._arrive(begun, self._plan.rate)
        self._over = True
        elapsed = time.perf_counter() - begun
        counted = len(self._latencies)
        while self._asked:  # noqa: ASYNC110 - at the very end, off the clock
            await asyncio.sleep(0.01)
        for connection in self._idle:
            connection.close()
        if self._open:  # every arrival counts; in a closed loop, what was answered in time does
            counted = len(self._latencies)
        latencies = self._latencies[:counted]
        cpu_s = time.process_time() - cpu
        return Outcome(elapsed, latencies, len(self._latencies), self._refused, cpu_s)

    async def _arrive(self, begun: float, rate: float) -> None:
        chance, due = random.Random(self._plan.seed), begun
        while (due := due + chance.expovariate(rate)) < begun + self._plan.seconds:
            await _until(due)
            if self._idle:
                self._ask(self._idle.popleft(), due)
            else:
                self._due.append(due)

    def _ask(self, connection: Connection, due: float) -> None:
        self._asked[connection] = due
        connection.send(self._requests[self._next % len(self._requests)])
        self._next += 1

    def _answered(self, connection: Connection, good: bool) -> None:
        now = time.perf_counter()
        self._latencies.append(now - self._asked.pop(connection))
        self._refused += not good
        if self._due:
            self._ask(connection, self._due.popleft())
        elif self._open or self._over:
            self._idle.append(connection)
        else:
            self._ask(connection, now)


async def _until(moment: float) -> None:
    """Sleep, and watch the clock at the end: an event loop's timers are a millisecond late."""
    await asyncio.sleep(moment - time.perf_counter() - 0.002)
    while time.perf_counter() < moment:  # noqa: ASYNC110 - it is the clock that is waited for
        await asyncio.sleep(0)


if __name__ == "__main__":
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(asdict(uvloop.run(Load(plan).run()))))
