"""Mooncake Store as a few calls that either succeed or raise. The only import of mooncake.

Its client answers with numbers and empty bytes; what they mean was found out by trying, version 0.3.13:
a leased object cannot be removed without force, a full store refuses (so does one that only waits for
leases to end), asking for more replicas than there are nodes gives fewer in silence, and a read may be
sent to a node that died until the master notices.
"""

import errno
import itertools
import socket
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any, TypeVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

T = TypeVar("T")

_NOT_FOUND, _FULL, _UNREACHABLE, _INVALID = -704, -200, -900, -600
_PAUSE_S = 0.2
_TRIES = 2
"""At least, however long each of them takes."""
_KNOCK_S = 5.0
_LIST_S = 30.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MooncakeConfig:
    """Where the store is, and what is asked of it."""

    master: str
    """host:port of the master's RPC."""
    admin: str
    """host:port of the master's metrics, which also lists keys."""
    host: str = "127.0.0.1"
    """This machine, as the others reach it."""
    protocol: str = "tcp"
    devices: str = ""
    """RDMA devices, by names and commas."""
    replicas: int = 2
    buffer_bytes: int = 256 << 20
    """For transfers; more than the largest object."""
    retry_s: float = 15.0
    """How long to try what a lease, a full store or a dead node prevents; longer than the master's
    `client_ttl`, after which it no longer counts on a dead node."""


class MooncakeClient:
    """A connection that gives no memory to the store; threads may share it."""

    def __init__(self, config: MooncakeConfig) -> None:
        """Raises OSError when the master cannot be reached, ImportError without the package."""
        from mooncake.store import MooncakeDistributedStore, ReplicateConfig

        self._config = config
        _knock(config.master)
        self._store = MooncakeDistributedStore()
        code = self._store.setup(
            {
                "local_hostname": config.host,
                "metadata_server": "P2PHANDSHAKE",
                "global_segment_size": "0",
                "local_buffer_size": str(config.buffer_bytes),
                "protocol": config.protocol,
                "rdma_devices": config.devices,
                "master_server_addr": config.master,
            }
        )
        if code != 0:
            raise _failed(f"connect to the master at {config.master}", code)
        self._replication: Any = ReplicateConfig()
        self._replication.replica_num = config.replicas
        self._replication.with_hard_pin = True

    def exist(self, names: Sequence[str]) -> list[bool]:
        codes = self._store.batch_is_exist(list(names))
        for code in codes:
            if code < 0:
                raise _failed("ask for keys", code)
        return [code == 1 for code in codes]

    def get(self, name: str) -> bytes | None:
        """The object, or None when there is none."""

        def read() -> bytes | None:
            if data := bytes(self._store.get(name)):
                return data
            (exists,) = self.exist([name])
            if exists:  # its node died, or it was just removed
                raise OSError(errno.EIO, f"Mooncake cannot read {name}")
            return None

        return self._patiently(read)

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        """Write an object that is not there yet, pinned, with every replica; else nothing remains."""

        def write() -> None:
            code = self._store.put_parts(name, *parts, config=self._replication)
            if code != 0:
                raise _failed(f"write {name}", code)
            if not self.is_whole(name):
                found = self.replicas(name)
                self.remove(name)
                raise OSError(
                    errno.EIO, f"Mooncake made {found} of {self._config.replicas} replicas of {name}"
                )

        self._patiently(write)

    def remove(self, name: str) -> None:
        """Remove an object, leased or not; one that is not there is no error."""

        def remove() -> None:
            code = self._store.remove(name, True)
            if code not in (0, _NOT_FOUND):
                raise _failed(f"remove {name}", code)

        self._patiently(remove)

    def replicas(self, name: str) -> int:
        """How many complete ones there are."""
        descriptors = self._store.get_replica_desc(name)
        return sum(descriptor.status.name == "COMPLETE" for descriptor in descriptors)

    def is_whole(self, name: str) -> bool:
        return self.replicas(name) >= self._config.replicas

    def names(self, prefix: str) -> list[str]:
        """Every object's name that begins like this."""
        url = f"http://{self._config.admin}/get_all_keys"
        try:
            with urllib.request.urlopen(url, timeout=_LIST_S) as reply:
                names = reply.read().decode().splitlines()
        except HTTPException as error:
            raise OSError(errno.EIO, f"Mooncake's master broke off: {error}") from error
        return [name for name in names if name.startswith(prefix)]

    def close(self) -> None:
        self._store.close()

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again while waiting may help."""
        end = time.monotonic() + self._config.retry_s
        for tries in itertools.count(1):
            try:
                return attempt()
            except OSError as error:
                late = tries >= _TRIES and time.monotonic() + _PAUSE_S > end
                if error.errno == errno.EINVAL or late:
                    raise
            time.sleep(_PAUSE_S)
        raise AssertionError("counting does not end")


def _knock(address: str) -> None:
    """Raises OSError in seconds; the store's own attempt takes minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _failed(what: str, code: int) -> OSError:
    match code:
        case _ if code == _FULL:
            return OSError(errno.ENOSPC, f"Mooncake is full: could not {what}")
        case _ if code == _UNREACHABLE:
            return OSError(errno.EHOSTUNREACH, f"Mooncake's master does not answer: could not {what}")
        case _ if code == _INVALID:
            return OSError(
                errno.EINVAL, f"Mooncake refuses: could not {what}; is it larger than a node?"
            )
        case _:
            return OSError(errno.EIO, f"Mooncake answered {code}: could not {what}")
