"""The connector's settings, from vLLM's `kv_connector_extra_config`, and the store that they name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mooring.kvstore.shared.contexts import ContextStore
from mooring.kvstore.shared.files import FilesTier
from mooring.kvstore.shared.mooncake import MooncakeTier
from mooring.kvstore.shared.mooncake_client import MooncakeClient, MooncakeConfig
from mooring.kvstore.shared.tier import SharedTier


class BadSettings(Exception):
    """The message names the key."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    """One deployment has one tier: what none of its caches wants is deleted."""

    tier: Literal["files", "mooncake"]
    root: str = ""
    """files: a folder that all workers share."""
    mooncake: MooncakeConfig | None = None
    namespace: str = "mooring"
    """mooncake: what the names of all objects begin with."""
    strict: bool = True
    """A use that cannot be served from what is kept fails; False computes the prefix again."""
    pin_blocks: int | None = None
    """The most blocks that pins may have; None: all but what one request of greatest length needs."""
    object_bytes: int = 32 << 20
    """About as large is a stored object."""
    orphan_age_s: float = 3600.0
    """What has been incomplete for so long is removed; longer than any save takes."""
    maintenance_s: float = 300.0
    """Pause between two looks for lost copies, where a tier loses them."""
    weights: str | None = None
    """Stands for the model's weights in the fingerprint, instead of a hash of the files."""
    untested_version: bool = False
    """Start on a version of vLLM that the connector was not tested on."""


_SETTINGS = TypeAdapter(Settings)


def read_settings(extra: Mapping[str, Any]) -> Settings:
    """Raises BadSettings."""
    try:
        settings = _SETTINGS.validate_python(dict(extra))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadSettings(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if settings.tier == "files" and not settings.root:
        raise BadSettings("root: the files tier needs a folder")
    if (settings.tier == "mooncake") != (settings.mooncake is not None):
        raise BadSettings(
            "mooncake: the store's addresses go with the tier of that name, and only with it"
        )
    return settings


def open_store(settings: Settings, fingerprint: str) -> ContextStore:
    """Raises OSError when the tier cannot be reached, ImportError without Mooncake's package."""
    manifests, objects = _open_tiers(settings, fingerprint)
    return ContextStore(manifests, objects, fingerprint)


def _open_tiers(settings: Settings, fingerprint: str) -> tuple[SharedTier, SharedTier]:
    if settings.mooncake is None:
        folder = Path(settings.root) / fingerprint
        return FilesTier(folder / "contexts", fingerprint), FilesTier(folder / "objects", fingerprint)
    client = MooncakeClient(settings.mooncake)
    prefix = f"{settings.namespace}/{fingerprint}"
    return (
        MooncakeTier(client, f"{prefix}/contexts", fingerprint),
        MooncakeTier(client, f"{prefix}/objects", fingerprint),
    )
