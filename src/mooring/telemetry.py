"""What an operator sees: counters for /metrics, and log lines of `event key=value`."""

import logging
import sys
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.registry import Collector


class EngineMetrics:
    """What every engine counts, in a registry of its own: two engines in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.evaluated_tokens = Counter(
            "mooring_prompt_tokens_evaluated",
            "Prompt tokens the engine computed, for a request or to keep a prefix",
            ["purpose"],
            registry=self.registry,
        )
        self.cached_tokens = Counter(
            "mooring_prompt_tokens_cached",
            "Prompt tokens that requests took from a kept prefix, by where it was found",
            ["source"],
            registry=self.registry,
        )
        self.generated_tokens = Counter(
            "mooring_completion_tokens", "Tokens drawn", registry=self.registry
        )
        self.recomputed_prefixes = Counter(
            "mooring_prefix_recomputed",
            "Kept prefixes that a request found gone and that were computed again",
            registry=self.registry,
        )

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        """One that ends with its process, when another process shows it."""
        return Gauge(name, what, labels, registry=self.registry, multiprocess_mode="livesum")


class Metrics(EngineMetrics):
    """The embedded engine's."""

    def __init__(self) -> None:
        super().__init__()
        self.rejected_kv = Counter(
            "mooring_kv_rejected",
            "Stored KV bytes that failed a check and were not used",
            ["reason"],
            registry=self.registry,
        )
        self.compactions = Counter(
            "mooring_kv_compactions",
            "Times that everything in the KV buffer was moved to its lowest cells",
            registry=self.registry,
        )
        self.queued_requests = self._gauge("mooring_requests_queued", "Requests waiting for room")
        self.running_requests = self._gauge("mooring_requests_running", "Requests in the engine")
        self.cells_used = self._gauge("mooring_kv_cells_used", "KV cells reserved, of the buffer's")


class ClusterMetrics(EngineMetrics):
    """Those of an engine of several workers."""

    def __init__(self) -> None:
        super().__init__()
        self.retries = Counter(
            "mooring_requests_retried",
            "Requests sent to another worker because theirs had gone before it answered",
            registry=self.registry,
        )
        self.queued_requests = self._gauge("mooring_requests_queued", "Requests without a token yet")
        self.running_requests = self._gauge("mooring_requests_running", "Answers being drawn")
        self.worker_state = self._gauge(
            "mooring_worker_state", "1 for the state that a worker is in", "worker", "state"
        )
        self.pinned_blocks = self._gauge(
            "mooring_worker_pinned_blocks",
            "Blocks that kept prefixes hold on a worker's device",
            "worker",
        )
        self.pin_budget_blocks = self._gauge(
            "mooring_worker_pin_budget_blocks", "The most of such blocks", "worker"
        )


class ServerMetrics:
    """All that /metrics shows: the server's own, and those of its engine, wherever that runs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.engine_restarts = Counter(
            "mooring_engine_restarts",
            "Engine processes that were started in place of one that had ended",
            registry=self.registry,
        )

    def show(self, collector: Collector) -> None:
        """Show the engine's too; an engine in this process has them in its `Metrics.registry`."""
        self.registry.register(collector)

    def watch(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Show a figure as it is when somebody looks."""
        Gauge(name, what, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """The text exposition format of Prometheus."""
        return generate_latest(self.registry)


def configure_logging(level: str = "INFO") -> None:
    """One line an event on stderr: time, level, part, then `event key=value ...`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    root = logging.getLogger("mooring")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
