"""The shared tier in a folder of a shared file system: a file a payload, whole or not at all."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.disk import DiskTier


class FilesTier:
    """A `SharedTier`. How many copies there are is the file system's concern."""

    loses_copies = False

    def __init__(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another machine may remove a file while it is read here: through a map, that ends the process.
        self._disk = DiskTier(folder, fingerprint, mapped=False)

    def get(self, key: str) -> NDArray[np.uint8] | None:
        return self._disk.get(key)

    def put(self, key: str, payload: NDArray[np.uint8]) -> None:
        self._disk.put(key, payload, sync=True)
        self._disk.sync_folder()

    def delete(self, key: str) -> None:
        self._disk.delete(key)

    def keys(self) -> set[str]:
        return self._disk.keys()

    def repair(self, key: str) -> bool:
        return self._disk.has(key)

    def remove_unfinished(self, older_than_s: float) -> None:
        self._disk.remove_unfinished(older_than_s)
