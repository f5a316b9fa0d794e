"""What every test may ask for: a tiny real model, made once."""

from pathlib import Path

import pytest

from mooring.testing import TINY, write_random_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-shaped GGUF of half a million random weights."""
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", TINY)
