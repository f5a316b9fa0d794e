"""Whole contexts in a shared tier: found, written, read, repaired and deleted by their ids.

Two tiers: one for manifests, one for objects. The order of writes makes every crash harmless: an
object is never there without a manifest that names it, and a manifest is complete only while all of
its objects are. Each context has objects of its own, also where contexts begin alike: so any engine
may delete one without asking the others what they still need.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.shared import manifest as manifests
from mooring.kvstore.shared.manifest import Manifest, ObjectRange
from mooring.kvstore.shared.tier import SharedTier


class ContextStore:
    """The contexts of one model fingerprint. Every method may raise OSError."""

    def __init__(self, manifest_tier: SharedTier, object_tier: SharedTier, fingerprint: str) -> None:
        self._manifests = manifest_tier
        self._objects = object_tier
        self.fingerprint = fingerprint

    @property
    def loses_copies(self) -> bool:
        return self._objects.loses_copies

    def find(self, context: str) -> Manifest | None:
        """The manifest of a context that is there completely.

        Raises:
            Rejected: it is there, and must not be used.
        """
        found = self._read(context)
        return found if found is not None and found.complete else None

    def begin(self, manifest: Manifest) -> None:
        """Say what is about to be written."""
        assert manifest.fingerprint == self.fingerprint
        self._manifests.put(manifest.context, manifests.encode(replace(manifest, complete=False)))

    def put_object(self, part: ObjectRange, payload: NDArray[np.uint8]) -> None:
        self._objects.put(part.key, payload)

    def commit(self, manifest: Manifest) -> None:
        """Say that every object is written."""
        self._manifests.put(manifest.context, manifests.encode(replace(manifest, complete=True)))

    def get_object(self, manifest: Manifest, part: ObjectRange) -> NDArray[np.uint8]:
        """The KV bytes of the part's blocks, verified.

        Raises:
            Rejected: they are gone, or must not be used.
        """
        payload = self._objects.get(part.key)
        if payload is None:
            raise Rejected(Rejection.MISSING)
        if payload.nbytes != (part.end - part.start) * manifest.block_bytes:
            raise Rejected(Rejection.TRUNCATED)
        return payload

    def delete(self, context: str) -> None:
        """Forget a context and its bytes; one that is not there is no error."""
        try:
            found = self._read(context)
        except Rejected:
            found = None  # its objects cannot be told any more
        if found is not None:
            self.begin(found)  # nobody starts to load it from here on
            for part in found.objects():
                self._objects.delete(part.key)
        self._manifests.delete(context)

    def contexts(self) -> set[str]:
        """Of complete and incomplete ones."""
        return self._manifests.keys()

    def repair(self) -> list[str]:
        """Restore the promised number of copies of everything; those contexts that still have fewer."""
        return [found.context for found in self._all() if found.complete and not self._repair(found)]

    def remove_orphans(self, older_than_s: float, now: float) -> None:
        """Delete what a crash or a failed write left incomplete, if nobody can be at it any more."""
        for tier in (self._manifests, self._objects):
            tier.remove_unfinished(older_than_s)
        for found in self._all():
            if not found.complete and found.written_at < now - older_than_s:
                self.delete(found.context)

    def _repair(self, manifest: Manifest) -> bool:
        parts = [self._objects.repair(part.key) for part in manifest.objects()]
        whole = self._manifests.repair(manifest.context) and all(parts)
        if self.find(manifest.context) is None:  # deleted meanwhile: what was restored must go again
            for part in manifest.objects():
                self._objects.delete(part.key)
        return whole

    def _all(self) -> Iterator[Manifest]:
        for context in self.contexts():
            try:
                found = self._read(context)
            except Rejected:
                continue
            if found is not None:
                yield found

    def _read(self, context: str) -> Manifest | None:
        payload = self._manifests.get(context)
        if payload is None:
            return None
        found = manifests.decode(payload)
        if (found.context, found.fingerprint) != (context, self.fingerprint):
            raise Rejected(Rejection.FOREIGN)
        return found
