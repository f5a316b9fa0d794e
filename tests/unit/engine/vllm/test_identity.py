"""What two workers must have in common."""

from dataclasses import replace

from mooring.engine.vllm.identity import difference
from mooring.engine.vllm.worker import Identity

ONE = Identity("m", 2048, "f" * 32, 16)


def test_equal_workers_do_not_differ() -> None:
    assert difference(ONE, replace(ONE)) is None


def test_a_difference_is_named() -> None:
    assert difference(ONE, replace(ONE, model="n")) == "its model is n, not m"
    assert difference(ONE, replace(ONE, context_tokens=1024)) == "its context tokens is 1024, not 2048"
    assert difference(ONE, replace(ONE, block_tokens=32)) == "its block tokens is 32, not 16"
    assert "fingerprint" in (difference(ONE, replace(ONE, fingerprint="0")) or "")
