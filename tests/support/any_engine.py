"""An engine of any kind: embedded in the test's process, in a child, or over running vLLM workers."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import both_engines
from both_engines import CHILD, IN_PROCESS, Running

from mooring.config import Config
from mooring.engine.vllm.starting import start_cluster
from mooring.telemetry import ClusterMetrics
from mooring.testing import TINY, Served, write_random_model

VLLM = "over vLLM"
HANG_S = 300
"""vLLM compiles some of its kernels when they are first needed, which takes up to a minute."""
EMBEDDED = [IN_PROCESS, CHILD]


@dataclass(frozen=True)
class Run:
    """Starts engines of one kind; as an example of a model, over a tiny one."""

    kind: str
    model: Path
    served: Served | None = None
    tier: Path | None = None

    @asynccontextmanager
    async def __call__(
        self, data_dir: Path, chat_template: str | None = None, **config
    ) -> AsyncIterator[Running]:
        if self.served is not None:
            folder = self._with_template(data_dir, chat_template)
            served = Served(folder, self.served.workers)
            async with running_cluster(served, **config) as here:
                yield here
            return
        model = self.model
        if chat_template is not None:
            model = write_random_model(data_dir / "m.gguf", TINY, chat_template=chat_template)
        async with both_engines.running(self.kind, model, data_dir, **config) as here:
            yield here

    def stored(self, data_dir: Path) -> set[Path]:
        """What is durable, in files."""
        if self.tier is None:
            return set((data_dir / "kv").rglob("*.kv"))
        return {path for path in self.tier.rglob("*") if path.is_file()}

    def _with_template(self, data_dir: Path, chat_template: str | None) -> Path:
        """The workers know no template: it is this side's business."""
        assert self.served is not None
        if chat_template is None:
            return self.served.folder
        folder = data_dir / "model"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.served.folder / name, folder)
        (folder / "chat_template.jinja").write_text(chat_template)
        return folder


@asynccontextmanager
async def running_cluster(served: Served, vllm: dict | None = None, **config) -> AsyncIterator[Running]:
    """An engine over workers; it forgets nothing at its end: the workers go on."""
    settings = Config(
        model={"source": str(served.folder)},
        engine={"kind": "vllm"} | config,
        vllm={"workers": served.workers, "health_interval_s": 0.2} | (vllm or {}),
    )
    metrics = ClusterMetrics()
    engine = await start_cluster(settings, metrics)
    try:
        async with asyncio.timeout(HANG_S):
            yield Running(engine, metrics.registry)
    finally:
        await engine.close()
