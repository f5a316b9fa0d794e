"""What everything around inference takes: requests a second, and added latency, of a chat with a cache.

    python benchmarks/gateway.py         # about 2 minutes

The server is a real one with an engine that answers at once, so all that is measured is the gateway:
HTTP, a tenant's key, the body, limits, the registry's cache row, its new end (`reset_ttl`) and the
charge, both durable in SQLite on disk before the answer ends. Four tenants with 250 caches each ask in
turn. Closed loop: connections that ask again at once. Open loop: arrivals at a rate, Poisson, latency
from the moment a request was due. The load comes from a process of its own on the same machine.
Afterwards the ledger must hold every answer. The server logs warnings only; a line for each chat, as
`mooring serve` writes it, is not in the figures.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from rich.console import Console

from gateway_load import Outcome
from gateway_report import Series, stage_table, summarise, table, write
from gateway_stages import stages

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TENANTS, CACHES = 4, 250
SYSTEM = "Keep the quay clear at all hours, and report what lies there to the harbour master. "
ADMIN_KEY = "gateway-admin"
SETTINGS = f"""
[server]
port = 0
data_dir = "DIRECTORY"
admin_key = "{ADMIN_KEY}"
[limits]
concurrent_requests = 1000
requests_per_minute = 100000000
tokens_per_minute = 1000000000000
tokens_per_day = 1000000000000
cached_tokens = 1000000
cached_bytes = 1000000000
context_tokens = 131072
[billing]
plan = "dollar-2025"
prepaid = PREPAID
"""


class Server:
    """A server process from construction to `stop`."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "base URL" in line:
                self.port = int(line.rpartition(":")[2].partition("/")[0])
                break
        else:
            raise RuntimeError(f"the server ended: {command}")
        self.url = f"http://127.0.0.1:{self.port}"
        self.id = self._process.pid

    def cpu_s(self) -> float:
        """What it has taken of the processors so far, all threads."""
        fields = Path(f"/proc/{self.id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    series: list[Series] = []
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mooring-gateway-") as directory:
        work = Path(directory)
        for name, prepaid in (("chat with a cache, reset_ttl", False), ("the same, prepaid", True)):
            console.print(f"{name} ...")
            folder = work / ("prepaid" if prepaid else "postpaid")
            measured, found = measure(folder, name, arguments, prepaid=prepaid)
            series += measured
            shares = shares or found
        console.print("the framework alone ...")
        series += measure_floor(work, arguments)
    report = summarise(
        series,
        shares,
        tenants=TENANTS,
        caches=TENANTS * CACHES,
        connections=arguments.connections,
    )
    console.print(table(series))
    console.print(stage_table(report))
    write(report, series, arguments.out)
    console.print(f"written to {arguments.out}/gateway.json and gateway.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6, help="of each closed loop")
    parser.add_argument("--open-seconds", type=float, default=12, help="of each open loop")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=50, help="requests a second of the open loop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(
    folder: Path, name: str, arguments: argparse.Namespace, *, prepaid: bool
) -> tuple[list[Series], dict[str, float]]:
    """Closed loop, open loop, and once more under py-spy; then look into the ledger."""
    folder.mkdir()
    settings = folder / "mooring.toml"
    written = SETTINGS.replace("DIRECTORY", str(folder)).replace("PREPAID", str(prepaid).lower())
    settings.write_text(written)
    server = Server("-m", "mooring.testing.instant_server", str(settings))
    try:
        requests = prepare(server, prepaid=prepaid)
        run = Run(server, folder, requests)
        run.load(arguments.connections, 1)  # warms up
        closed = run.series(name, arguments.connections, arguments.seconds)
        opened = run.series(name, arguments.connections, arguments.open_seconds, arguments.rate)
        with ThreadPoolExecutor() as threads:
            loaded = threads.submit(run.load, arguments.connections, arguments.seconds + 2)
            shares = stages(server.id, arguments.seconds)
            loaded.result()
    finally:
        server.stop()
    assert charged(folder) == run.answers, (charged(folder), run.answers)
    return [closed, opened], shares


def measure_floor(work: Path, arguments: argparse.Namespace) -> list[Series]:
    server = Server(str(HERE / "gateway_floor.py"))
    try:
        run = Run(server, work, [request("none", "cache-" + "0" * 20)])
        run.load(arguments.connections, 1)
        name = "floor: FastAPI and the body's check"
        return [
            run.series(name, arguments.connections, arguments.seconds),
            run.series(name, arguments.connections, arguments.open_seconds, arguments.rate),
        ]
    finally:
        server.stop()


def prepare(server: Server, *, prepaid: bool) -> list[str]:
    """Tenants, keys and caches; returns a request for each cache, the tenants in turn."""
    requests: list[str] = []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        admin = {"Authorization": f"Bearer {ADMIN_KEY}"}

        def post(path: str, body: dict, headers: dict) -> dict:
            reply = http.post(path, json=body, headers=headers)
            assert reply.status_code == 200, reply.text
            return reply.json()

        secrets = []
        for number in range(TENANTS):
            tenant = post("/admin/v1/tenants", {"id": f"tenant-{number}"}, admin)["id"]
            secrets.append(post(f"/admin/v1/tenants/{tenant}/keys", {}, admin)["secret"])
            if prepaid:
                paid = {"amount": "1000000", "reference": "gateway"}
                post(f"/admin/v1/tenants/{tenant}/top-ups", paid, admin)
        for number in range(CACHES):
            for secret in secrets:
                headers = {"Authorization": f"Bearer {secret}"}
                message = {"role": "system", "content": SYSTEM * 12 + str(number)}
                body = {"model": "moonshot-v1", "messages": [message], "ttl": 3600}
                cache = post("/v1/caching", body, headers)
                while cache["status"] == "pending":
                    cache = http.get(f"/v1/caching/{cache['id']}", headers=headers).json()
                assert cache["status"] == "ready", cache
                requests.append(request(secret, cache["id"]))
        answer = http.post(
            "/v1/chat/completions", content=requests[0].partition("\r\n\r\n")[2],
            headers={"Authorization": f"Bearer {secrets[0]}", "Content-Type": "application/json"},
        )  # fmt: skip
        assert answer.json()["usage"]["cached_tokens"] >= len(SYSTEM), answer.text
        assert "Msh-Context-Cache-Token-Exp" in answer.headers
        assert "x-ratelimit-remaining-tokens" in answer.headers
    return requests


def request(secret: str, cache_id: str) -> str:
    """A whole HTTP request: a question about a cache that is to live an hour from now."""
    messages = [
        {"role": "cache", "content": f"cache_id={cache_id};reset_ttl=3600"},
        {"role": "user", "content": "Is the quay clear?"},
    ]
    body = json.dumps({"model": "moonshot-v1", "messages": messages, "max_tokens": 16})
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


class Run:
    """Loads one server, and counts what it answered."""

    def __init__(self, server: Server, folder: Path, requests: list[str]) -> None:
        self._server = server
        self._plan = folder / "plan.json"
        self._requests = requests
        self.answers = 1  # of `prepare`

    def load(self, connections: int, seconds: float, rate: float | None = None) -> Outcome:
        plan = {"port": self._server.port, "requests": self._requests, "connections": connections}
        self._plan.write_text(json.dumps(plan | {"seconds": seconds, "rate": rate}))
        command = [sys.executable, str(HERE / "gateway_load.py"), str(self._plan)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        outcome = Outcome(**json.loads(ended.stdout))
        assert not outcome.refused, f"{outcome.refused} answers were no 200"
        self.answers += outcome.answered
        return outcome

    def series(self, name: str, connections: int, seconds: float, rate: float | None = None) -> Series:
        before = self._server.cpu_s()
        outcome = self.load(connections, seconds, rate)
        latencies = sorted(1000 * each for each in outcome.latencies_s)
        cuts = statistics.quantiles(latencies, n=100)
        return Series(
            name,
            f"{connections} connections" if rate is None else f"{rate:g} a second",
            len(latencies),
            len(latencies) / outcome.seconds,
            cuts[49],
            cuts[98],
            (self._server.cpu_s() - before) / outcome.seconds,
            outcome.cpu_s / outcome.seconds,
            latencies,
        )


def charged(folder: Path) -> int:
    """How many chats are in the ledger, each with its four lines."""
    with sqlite3.connect(folder / "registry.sqlite3") as registry:
        ((chats, lines),) = registry.execute(
            "SELECT count(DISTINCT request_id), count(request_id) FROM charges"
        )
    assert lines == 4 * chats, (lines, chats)
    return chats


if __name__ == "__main__":
    main()
