"""What an operator can set, one part a class; each part of the program gets only its own.

Read from a TOML file whose sections are the parts, then overridden from the command line. An unknown
key or a bad value stops the start and names the key.
"""

import re
import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from mooring.core.errors import StartRefused

ALIASES = ("moonshot-v1", "moonshot-v1-8k", "moonshot-v1-32k", "moonshot-v1-128k")
"""The names that clients of Moonshot's service send."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(_Part):
    """Where to listen, where to keep state, whom to let in."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    """0 takes any free port."""
    data_dir: Path = Path(platformdirs.user_data_dir("mooring", appauthor=False))
    api_key: str | None = Field(None, pattern=r"^[\x21-\x7e]{8,}$")
    """The bearer key of the default tenant. Without it, and without keys in the registry, everybody is
    let in, and only on loopback."""
    admin_key: str | None = Field(None, pattern=r"^[\x21-\x7e]{8,}$")
    """The bearer key for /admin. None: there is no /admin."""
    max_body_bytes: int = Field(16 << 20, ge=1024)


class RegistryConfig(_Part):
    """Which database says what should exist. With PostgreSQL several servers may share it."""

    url: SecretStr | None = None
    """`postgresql://user:password@host/database`; None: SQLite in the data directory."""
    connections: int = Field(10, ge=2, le=100)
    """To PostgreSQL, at most, of each server."""
    claim_s: float = Field(15.0, ge=0.5)
    """After so long without a sign of life, others take over what a server was doing."""
    journal_bytes: int = Field(64 << 20, ge=0)
    """Charges that wait on this server's disk while PostgreSQL is away, at most."""

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        """Says nothing of what is in it: that may be a password."""
        scheme = "postgresql" if url is None else url.get_secret_value().partition("://")[0]
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise ValueError("must be like postgresql://user:password@host/database")
        return url


class ModelConfig(_Part):
    """Which model, and under which names."""

    source: str | None = None
    """A GGUF's path, `hf:owner/repo` or `hf:owner/repo:file.gguf`; None is the bundled demo model.
    With vLLM: the folder of the workers' model, or `hf:owner/repo`."""
    aliases: tuple[str, ...] = ALIASES


class EngineConfig(_Part):
    """Which engine, and the embedded llama.cpp. None is decided at start, by model and machine."""

    kind: Literal["llamacpp", "vllm"] = "llamacpp"
    """llama.cpp in this machine, or workers of vLLM; of the other settings, vLLM's workers have their
    own, but for `automatic_reuse` and `max_queued`."""
    context_tokens: int | None = Field(None, ge=64)
    """The most tokens of one request; None: as trained, as far as the cells reach."""
    cells: int | None = Field(None, ge=128)
    """Tokens in the KV buffer, all requests together; None: two contexts, in a quarter of the RAM."""
    sequences: int = Field(64, ge=2, le=255)
    """Answers that can run at once, and prefixes being computed."""
    automatic_reuse: bool = True
    """Every prompt and answer is kept as long as there is room, for what begins the same and is of the
    same tenant. Off: only caches that were created are reused."""
    batch_tokens: int = Field(512, ge=32, le=4096)
    """The most tokens of one step: how long a long prompt delays a running answer."""
    kv_type: Literal["f32", "f16", "bf16", "q8_0"] = "f16"
    flash_attention: bool = False
    """On the CPU, off: with it on, results move with the shape of the batch."""
    threads: int | None = Field(None, ge=1)
    gpu_layers: int = Field(999, ge=0)
    """Layers to offload when llama.cpp was built with a GPU backend; a CPU build ignores it."""
    max_queued: int = Field(256, ge=1)
    """Requests that may wait for room before others are sent away."""


def _worker_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^/]+/?", url):
        raise ValueError("must be like http://worker:8000")
    return url


class VllmConfig(_Part):
    """The workers of a cluster."""

    workers: tuple[Annotated[str, AfterValidator(_worker_url)], ...] = ()
    """Their URLs, each without a path."""
    api_key: str | None = Field(None, min_length=1)
    """What the workers were given as `--api-key`."""
    pin_lease_s: int = Field(600, ge=1)
    """How long a prefix that nobody uses stays on a worker's device; it stays in the shared tier."""
    health_interval_s: float = Field(2.0, gt=0)
    """How often a worker is asked how it is; one that is down, less and less often."""


class KvStoreConfig(_Part):
    """Where KV bytes are kept beside the buffer."""

    ram_bytes: int = Field(1 << 30, ge=0)
    """The RAM tier's budget; what falls out of it goes to disk, as far as that has room."""
    disk_bytes: int | None = Field(None, ge=0)
    """The disk tier's budget. None: what the file system has, less the reserve. Caches that a client
    created are never evicted; when they do not fit, creating one is refused."""
    disk_reserve_bytes: int = Field(64 << 20, ge=0)
    """Left free on the disk, so that the registry can be written (and caches deleted) to the end."""
    policy: Literal["reuse", "lru"] = "reuse"
    """What makes way first: what was used least and longest ago, or plainly longest ago."""


class CachingConfig(_Part):
    """The life of caches."""

    default_ttl_s: int = Field(3600, ge=1)
    max_ttl_s: int | None = Field(None, ge=1)
    """None sets no bound; above the bound is a 400."""
    sweep_interval_s: float = Field(10.0, gt=0)
    """How often the bytes of expired caches are given back."""


class ChatConfig(_Part):
    """Defaults of chats."""

    default_max_tokens: int = Field(1024, ge=1)
    """When a request does not say; less where the context ends before."""


class FilesConfig(_Part):
    """Uploaded documents, of each tenant; the defaults are Moonshot's limits."""

    folder: Path | None = None
    """Where the texts are; None: `files` in the data directory. Servers on one registry share it."""
    max_files: int = Field(1000, ge=0)
    max_file_bytes: int = Field(100_000_000, ge=1)
    max_total_bytes: int = Field(10_000_000_000, ge=1)
    max_text_bytes: int = Field(100_000_000, ge=1024)
    """The most text that one document may have."""
    extractions: int = Field(2, ge=1)
    """Documents read at once, each in a process of its own."""
    extraction_seconds: int = Field(60, ge=1)
    """CPU time for one document; twice as much by the clock."""
    extraction_memory_bytes: int = Field(2 << 30, ge=512 << 20)
    """Address space for one document."""


class LimitsConfig(_Part):
    """Of each tenant without its own; None sets no bound. `core.limits` says what each means."""

    concurrent_requests: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    tokens_per_day: int | None = Field(None, ge=1)
    cached_tokens: int | None = Field(None, ge=1)
    cached_bytes: int | None = Field(None, ge=1)
    context_tokens: int | None = Field(None, ge=1)


Price = Annotated[Decimal, Field(ge=0, le=1_000_000)]
"""Bounded so that no charge leaves 64 bits of nano-units."""


class TokenPricesConfig(_Part):
    """Prices per million tokens, of one context-length class."""

    input: Price
    cached_input: Price = Decimal(0)
    output: Price


class TariffConfig(_Part):
    """A plan's prices from a day on (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    since: date = Field(alias="from")
    creation: Price = Decimal(0)
    """Per million tokens held, once."""
    storage_minute: Price = Decimal(0)
    """Per million tokens held and begun minute."""
    call: Price = Decimal(0)
    """For each request that used a cache."""
    classes: dict[str, TokenPricesConfig] = Field(min_length=1)
    """By context length: `8k`, `32k`, ... or `any`."""


class PlanConfig(_Part):
    """A price plan."""

    currency: str = Field(min_length=1, max_length=8)
    decimals: int = Field(2, ge=0, le=9)
    """How amounts are shown; they are exact inside."""
    tariffs: tuple[TariffConfig, ...] = Field(min_length=1)


class BillingConfig(_Part):
    """What tenants are charged by."""

    plan: str = "free"
    """The name of a price plan; `free` meters all the same."""
    prepaid: bool = False
    """No inference once a tenant's balance is used up."""
    overdraft: Annotated[Decimal, Field(ge=0, le=10**9)] = Decimal(0)
    """How far below 0 a prepaid balance may be, in the plan's currency."""
    plans: dict[str, PlanConfig] = {}


class Config(_Part):
    """Everything."""

    server: ServerConfig = ServerConfig()
    registry: RegistryConfig = RegistryConfig()
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    vllm: VllmConfig = VllmConfig()
    kvstore: KvStoreConfig = KvStoreConfig()
    caching: CachingConfig = CachingConfig()
    chat: ChatConfig = ChatConfig()
    files: FilesConfig = FilesConfig()
    limits: LimitsConfig = LimitsConfig()
    billing: BillingConfig = BillingConfig()


def load_config(path: Path | None = None, overrides: dict[str, dict[str, Any]] | None = None) -> Config:
    """The file's settings, then the overrides (`{part: {key: value}}`; None values do not count).

    Raises:
        StartRefused: the file cannot be read, or a key or value in it is wrong.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise StartRefused(f"cannot read the configuration {path}: {error}") from error
    for part, values in (overrides or {}).items():
        given = {key: value for key, value in values.items() if value is not None}
        in_file = settings.get(part, {})
        if isinstance(in_file, dict):  # else it is wrong, and pydantic says so
            settings[part] = {**in_file, **given}
    try:
        config = Config(**settings)
    except ValidationError as error:
        faults = [
            f"{_key(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise StartRefused("the configuration is wrong: " + "; ".join(faults)) from error
    return config


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in location)
