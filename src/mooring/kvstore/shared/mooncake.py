"""The shared tier in Mooncake Store: memory of several machines, hard pinned, with a replica count.

An object is never overwritten in place, because somebody may be reading it. A key has two names, one
for each version that may be there at a time; the header tells which one is the newer.
"""

import time

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore import codec
from mooring.kvstore.codec import PAYLOAD_START, Description, Rejected
from mooring.kvstore.shared.mooncake_client import MooncakeClient

_LOOKS = 4


class MooncakeTier:
    """A `SharedTier` under the names that begin with `prefix`."""

    loses_copies = True

    def __init__(self, client: MooncakeClient, prefix: str, fingerprint: str) -> None:
        self._client = client
        self._prefix = prefix.rstrip("/") + "/"
        self._fingerprint = fingerprint

    def get(self, key: str) -> NDArray[np.uint8] | None:
        found = self._newest(key)
        return None if found is None else found[1]

    def put(self, key: str, payload: NDArray[np.uint8]) -> None:
        old = self._present(key)
        if len(old) == 2:  # a writer ended between its two steps
            newest = self._newest_name(key)
            for name in old:
                if name != newest:
                    self._client.remove(name)
            old = [newest] if newest else []
        (new, *_) = [name for name in self._names(key) if name not in old]
        header = codec.encode(self._describe(key, payload))
        self._client.put(new, header, payload.data)
        for name in old:
            self._client.remove(name)

    def delete(self, key: str) -> None:
        for name in self._names(key):
            self._client.remove(name)

    def keys(self) -> set[str]:
        names = self._client.names(self._prefix)
        return {name.removeprefix(self._prefix).rpartition("/")[0] for name in names}

    def repair(self, key: str) -> bool:
        """Write it again when it has lost copies; the store does not make new ones by itself."""
        found = self._newest(key)
        if found is None:
            return False
        name, payload = found
        if self._client.is_whole(name):
            return True
        try:
            self.put(key, payload)
        except OSError:  # too few nodes, or no room: what is there stays
            return False
        return True

    def remove_unfinished(self, older_than_s: float) -> None:
        """The master drops what a dead writer began."""

    def _newest_name(self, key: str) -> str | None:
        try:
            found = self._newest(key)
        except Rejected:
            return None
        return None if found is None else found[0]

    def _newest(self, key: str) -> tuple[str, NDArray[np.uint8]] | None:
        """Name and verified payload.

        A version may be replaced while it is read, and its memory be given to another object: what
        came then is rejected, and the look repeated. The newer version is there before the older goes.
        """
        for look in range(1, _LOOKS + 1):
            names = self._present(key)
            if not names:
                return None
            try:
                found = self._read(key, names)
            except Rejected:
                if look == _LOOKS:
                    raise
                continue
            if found is not None:
                return found
        return None

    def _read(self, key: str, names: list[str]) -> tuple[str, NDArray[np.uint8]] | None:
        """The newest of these. One that cannot be used does not hide the other."""
        versions: list[tuple[str, str, NDArray[np.uint8]]] = []
        rejected: Rejected | None = None
        for name in names:
            data = self._client.get(name)
            if data is None:
                continue
            try:
                description = codec.decode(memoryview(data), fingerprint=self._fingerprint, key=key)
            except Rejected as error:
                rejected = error
                continue
            payload = np.frombuffer(data, np.uint8, offset=PAYLOAD_START)
            versions.append((description.parent, name, payload))
        if versions:
            _, name, payload = max(versions, key=lambda version: version[0])
            return name, payload
        if rejected is not None:
            raise rejected
        return None

    def _present(self, key: str) -> list[str]:
        names = self._names(key)
        exist = self._client.exist(names)
        return [name for name, exists in zip(names, exist, strict=True) if exists]

    def _names(self, key: str) -> list[str]:
        assert key.isalnum(), "a key is hex digits, so it never leaves the prefix"
        return [f"{self._prefix}{key}/{version}" for version in (0, 1)]

    def _describe(self, key: str, payload: NDArray[np.uint8]) -> Description:
        return Description(
            fingerprint=self._fingerprint,
            key=key,
            parent=f"{time.time_ns():020d}",  # versions are told apart by when they were written
            tokens=0,
            payload_bytes=payload.nbytes,
            payload_checksum=codec.checksum(payload.data),
        )
