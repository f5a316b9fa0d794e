"""Two servers on one registry over the same vLLM workers, and what is asked of both."""

from contextlib import ExitStack
from pathlib import Path

from clusters import CONFIG, Server, cached, held, pinned, running, until, vllm_metric
from ledgers import lines
from settings import NAMED_ONLY

from mooring.core.charge import ChargeKind

SWEEP_S = 0.5
CONFIG_OF_BOTH = f"""{CONFIG}
[registry]
url = "URL"
claim_s = 20
[caching]
sweep_interval_s = {SWEEP_S}
[billing]
plan = "dollar-2025"
{NAMED_ONLY}"""


class Pair:
    """Two servers of one deployment, and the worker's URLs."""

    def __init__(self, cluster, url: str, folder: Path, stack: ExitStack) -> None:
        self.cluster, self.url, self.folder, self.stack = cluster, url, folder, stack
        self.workers = cluster.served.workers
        self.one, self.two = self.start("one"), self.start("two")

    def start(self, name: str) -> Server:
        """The first time, or again after it was killed."""
        config = CONFIG_OF_BOTH.replace("URL", self.url)
        return self.stack.enter_context(running(self.cluster, self.folder / name, config))

    def wait_for_workers(self) -> None:
        """Until both serve, and both servers know it."""
        self.cluster.bring_up()
        for server in self.servers:
            until(lambda server=server: {each["state"] for each in server.workers().values()} == {"up"})

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.one, self.two

    def metric(self, name: str, **labels: str) -> float:
        return sum(server.metric(name, **labels) for server in self.servers)

    @property
    def computed(self) -> float:
        """Tokens of prefixes."""
        return self.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")

    @property
    def recomputed(self) -> float:
        return self.metric("mooring_prefix_recomputed_total")

    def of_workers(self, name: str) -> float:
        """One of vLLM's own metrics."""
        return sum(vllm_metric(worker, name) for worker in self.workers)

    def pinned(self) -> list[set[str]]:
        """By worker."""
        return [pinned(worker) for worker in self.workers]

    def end_all(self) -> None:
        """No cache is left, and nothing pinned: how much a test may pin does not depend on others."""
        while caches := self.one.http.get("/v1/caching").json()["data"]:
            for cache in caches:
                assert self.one.http.delete(f"/v1/caching/{cache['id']}").status_code in (200, 404)
        until(lambda: not any(self.pinned()))

    def charged(self, *caches: dict, kind: ChargeKind = ChargeKind.CREATION) -> list[str]:
        """The ids of these caches that lines of a kind are for."""
        wanted = {cache["id"] for cache in caches}
        return sorted(
            line.cache_id for line in lines(self.url) if line.kind == kind and line.cache_id in wanted
        )

    def assert_used_everywhere(self, *caches: dict) -> None:
        """Through each server, on each worker: a hit, and nothing computed but what is behind it."""
        for server in self.servers:
            for worker in self.workers:
                server.only(worker)
                for cache in caches:
                    before = server.evaluated()
                    reply = server.ask(cache)
                    assert cached(reply) == held(cache)
                    rest = reply.json()["usage"]["prompt_tokens"] - held(cache)
                    assert server.evaluated() - before == rest
            server.only(None)
