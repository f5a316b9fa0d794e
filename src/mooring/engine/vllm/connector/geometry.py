"""What stored bytes depend on beside tokens, and how many blocks one stored object has."""

import time
from dataclasses import dataclass

from mooring.kvstore.shared.manifest import Manifest


@dataclass(frozen=True)
class Geometry:
    """Of one engine."""

    fingerprint: str
    block_tokens: int
    block_bytes: int
    """Of all layers."""
    object_blocks: int
    """The most blocks that one stored object has."""

    def manifest(self, context: str, tokens: int) -> Manifest:
        """Of a context that is about to be written."""
        return Manifest(
            context=context,
            fingerprint=self.fingerprint,
            tokens=tokens,
            block_tokens=self.block_tokens,
            block_bytes=self.block_bytes,
            object_blocks=self.object_blocks,
            complete=False,
            written_at=time.time(),
        )

    def fits(self, manifest: Manifest, context: str, tokens: int) -> bool:
        """Whether this is that context, as this engine would have written it."""
        expected = (context, self.fingerprint, tokens, self.block_tokens, self.block_bytes)
        found = (
            manifest.context,
            manifest.fingerprint,
            manifest.tokens,
            manifest.block_tokens,
            manifest.block_bytes,
        )
        return found == expected
