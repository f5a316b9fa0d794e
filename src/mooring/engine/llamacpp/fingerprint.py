"""Which KV bytes are interchangeable: the same weights, layout, kernel and library build."""

import hashlib

from mooring.engine.llamacpp.binding import LIBRARY_VERSION, ContextShape


def fingerprint(weights_hash: str, shape: ContextShape) -> str:
    """What an exported state depends on beside its tokens, as 32 hex digits.

    The number of cells, sequences and threads is left out: states move freely between those.
    """
    parts = [
        f"weights={weights_hash}",
        f"kv={shape.kv_type}",
        f"flash_attention={shape.flash_attention}",
        f"llama-cpp-python={LIBRARY_VERSION}",
    ]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
