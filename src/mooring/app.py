"""The only wiring: builds every part and hands each to the ones that need it."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from filelock import FileLock, Timeout

import mooring
from mooring.api import account, admin, caching, errors, files, openai, operations, tags, workers
from mooring.api.auth import Auth
from mooring.api.body import BodyLimit
from mooring.api.document import describe
from mooring.config import BillingConfig, Config, ServerConfig
from mooring.core.address import is_loopback
from mooring.core.errors import DataDirBusy, StartRefused
from mooring.core.limits import Limits
from mooring.engine.interface import Engine, OnProgress
from mooring.engine.llamacpp.source import find_model
from mooring.engine.process.engine import start_engine
from mooring.engine.vllm.starting import start_cluster
from mooring.engine.workers import WorkerPool
from mooring.extraction.extractor import Extractor
from mooring.registry.caches import Caches
from mooring.registry.claims import Claims
from mooring.registry.database import Database, open_database
from mooring.registry.files import Files
from mooring.registry.group_commit import GroupCommit
from mooring.registry.journal import Journal
from mooring.registry.ledger import Ledger
from mooring.registry.quotas import Quotas
from mooring.registry.tags import Tags
from mooring.registry.tenants import Tenants
from mooring.service.charging import Charging
from mooring.service.chat import Chat
from mooring.service.contexts import Contexts
from mooring.service.files import FileStore
from mooring.service.keeping import Keeper
from mooring.service.limiting import Limiter
from mooring.service.models import Models
from mooring.service.pricing import NANO, load_plans
from mooring.service.replica import Duty, Replica
from mooring.service.shared_tally import SharedTally
from mooring.service.statements import Statements
from mooring.service.sweeping import Sweeper
from mooring.service.tagging import Tagging
from mooring.service.tally import LocalTally, Tally
from mooring.service.tenants import Tenancy
from mooring.service.turns import Turns
from mooring.telemetry import ClusterMetrics, ServerMetrics

_FORM_BYTES = 1 << 16  # what a form takes beside the file in it


@dataclass(frozen=True)
class Services:
    """A running core, ready to be served over HTTP or used in-process."""

    tenancy: Tenancy
    charging: Charging
    statements: Statements
    engine: Engine
    contexts: Contexts
    sweeper: Sweeper
    tagging: Tagging
    files: FileStore
    chat: Chat
    models: Models
    metrics: ServerMetrics


def bundled(asset: str) -> Path:
    """A file that ships with the package."""
    return Path(str(resources.files("mooring") / "assets" / asset))


LoadEngine = Callable[[Config, ServerMetrics, OnProgress], Awaitable[Engine]]


async def load_embedded(config: Config, metrics: ServerMetrics, on_progress: OnProgress) -> Engine:
    """llama.cpp in a process of its own, over the configured model. Raises StartRefused."""
    source = config.model.source
    path = bundled("demo.gguf") if source is None else await asyncio.to_thread(find_model, source)
    return await start_engine(
        path, path.stem, config.engine, config.kvstore, config.server.data_dir, metrics, on_progress
    )


async def load_cluster(config: Config, metrics: ServerMetrics, on_progress: OnProgress) -> Engine:
    """vLLM's workers, over the configured URLs. Raises StartRefused."""
    cluster = ClusterMetrics()
    engine = await start_cluster(config, cluster, on_progress)
    metrics.show(cluster.registry)
    return engine


async def load_configured(config: Config, metrics: ServerMetrics, on_progress: OnProgress) -> Engine:
    """The engine that the configuration names. Raises StartRefused."""
    match config.engine.kind:
        case "llamacpp":
            return await load_embedded(config, metrics, on_progress)
        case "vllm":
            return await load_cluster(config, metrics, on_progress)


@asynccontextmanager
async def run_services(
    config: Config,
    on_progress: OnProgress = lambda _what, _share: None,
    load: LoadEngine = load_configured,
) -> AsyncIterator[Services]:
    """Everything below HTTP, from start to orderly end.

    Raises:
        StartRefused: the model cannot be loaded, or another server uses the data directory.
    """
    data_dir = config.server.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts are nobody else's business
    except OSError as error:
        raise StartRefused(f"server.data_dir: cannot use {data_dir}: {error.strerror}") from error
    async with AsyncExitStack() as stack:
        stack.enter_context(_sole_use_of(data_dir))
        database = await asyncio.to_thread(open_database, config.registry, data_dir)
        stack.callback(database.close)
        tenancy = Tenancy(Tenants(database), config.server.api_key)
        await _refuse_open_door(config.server, tenancy)
        metrics = ServerMetrics()
        engine = await load(config, metrics, on_progress)
        stack.push_async_callback(engine.close)
        services = _wire(stack, config, database, tenancy, engine, metrics)
        await asyncio.to_thread(services.charging.put_in_force)
        await services.sweeper.resume()
        await services.files.resume()
        sweeping = asyncio.create_task(services.sweeper.run(), name="sweeper")
        stack.callback(sweeping.cancel)
        yield services


def _wire(
    stack: AsyncExitStack,
    config: Config,
    database: Database,
    tenancy: Tenancy,
    engine: Engine,
    metrics: ServerMetrics,
) -> Services:
    """Each part gets what it needs; what has to be closed goes onto the stack."""
    models = Models(engine.model.name, config.model.aliases, int(time.time()))
    caches, commits = Caches(database), GroupCommit(database)
    stack.push_async_callback(commits.close)
    company = _company(config, database, metrics)
    charging = make_charging(database, commits, config.billing, company.journal)
    limiter = Limiter(Limits(**config.limits.model_dump()), tenancy.limits_of, company.tally)
    keeper = Keeper(engine, caches, commits, charging, company.turns)
    if database.is_shared:
        _live(stack, config, [*company.duties, charging.post_waiting])
    stack.push_async_callback(keeper.close)
    tagging = Tagging(Tags(database), caches)
    contexts = Contexts(keeper, caches, commits, charging, limiter, tagging, models, config.caching)
    folder = config.files.folder or config.server.data_dir / "files"
    return Services(
        tenancy=tenancy,
        charging=charging,
        statements=Statements(Ledger(database), charging),
        engine=engine,
        contexts=contexts,
        sweeper=Sweeper(keeper, caches, charging, config.caching.sweep_interval_s),
        tagging=tagging,
        files=FileStore(Files(database), Extractor(config.files), folder, config.files),
        chat=Chat(engine, contexts, models, charging, limiter),
        models=models,
        metrics=metrics,
    )


@dataclass(frozen=True)
class _Company:
    """What differs between a server alone and one that shares its registry with others."""

    turns: Turns
    tally: Tally
    journal: Journal | None = None
    duties: tuple[Duty, ...] = ()


def _company(config: Config, database: Database, metrics: ServerMetrics) -> _Company:
    if not database.is_shared:
        return _Company(Turns(), LocalTally())
    holder, claim_s = secrets.token_hex(8), config.registry.claim_s
    turns = Turns(Claims(database, holder, claim_s))
    tally = SharedTally(Quotas(database, holder, claim_s))
    journal = Journal(config.server.data_dir, config.registry.journal_bytes)
    metrics.watch(
        "mooring_charges_waiting_bytes", "Charges that wait for the registry's return", journal.size
    )
    return _Company(turns, tally, journal, (turns.renew, tally.renew))


def _live(stack: AsyncExitStack, config: Config, duties: list[Duty]) -> None:
    replica = Replica(duties, config.registry.claim_s)
    stack.push_async_callback(replica.do_duties)  # at the end, others get what was ours
    task = asyncio.create_task(replica.live_forever(), name="replica")
    stack.callback(task.cancel)


def make_http(config: Config, services: Services) -> FastAPI:
    """The HTTP interface over a running core."""
    app = FastAPI(title="Mooring", version=mooring.__version__)
    errors.install(app)
    uploads = {"/v1/files": config.files.max_file_bytes + _FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=config.server.max_body_bytes, uploads=uploads)
    app.add_middleware(Auth, tenancy=services.tenancy, admin_key=config.server.admin_key)
    fingerprint = services.engine.model.fingerprint
    app.include_router(openai.router(services.chat, services.models, config.chat, fingerprint))
    app.include_router(tags.router(services.tagging, services.contexts))  # before /caching/{id}
    app.include_router(caching.router(services.contexts))
    app.include_router(account.router(services.charging, services.statements))
    app.include_router(files.router(services.files))
    app.include_router(admin.router(services.tenancy, services.charging))
    if isinstance(services.engine, WorkerPool):
        app.include_router(workers.router(services.engine))
    app.include_router(operations.router(services.engine, services.metrics))
    describe(app)
    return app


def make_charging(
    database: Database, commits: GroupCommit, config: BillingConfig, journal: Journal | None = None
) -> Charging:
    """Under the configured plan. Raises StartRefused: there is no such plan."""
    plans = load_plans(config.plans)
    if config.plan not in plans:
        raise StartRefused(
            f"billing.plan: there is no price plan {config.plan!r}; there are {', '.join(plans)}"
        )
    overdraft = int(config.overdraft * NANO) if config.prepaid else None
    return Charging(Ledger(database), commits, plans[config.plan], overdraft=overdraft, journal=journal)


async def _refuse_open_door(server: ServerConfig, tenancy: Tenancy) -> None:
    if not is_loopback(server.host) and await tenancy.is_open():
        raise StartRefused(
            f"server.host: {server.host} can be reached from other machines, so a key is needed:"
            " make one with `mooring key create`, set server.api_key (or MOORING_API_KEY), or listen"
            " on 127.0.0.1"
        )


@contextmanager
def _sole_use_of(data_dir: Path) -> Iterator[None]:
    """Two servers on one directory would expire and delete behind each other's back."""
    lock = FileLock(data_dir / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DataDirBusy(
            f"another Mooring works in {data_dir}: stop it, or choose another --data-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
