"""The files of a model that is split over several."""

import re
from pathlib import Path

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def all_parts(path: Path) -> list[Path]:
    """The files of a model on disk: the parts of a split one, else the one."""
    names = [other.name for other in path.parent.glob("*.gguf")]
    return [path.with_name(name) for name in parts_among(path.name, sorted({*names, path.name}))]


def part_number(name: str) -> int | None:
    """Which part of a split model a file is, from 1; None when it is whole."""
    split = _SPLIT.search(name)
    return int(split[1]) if split else None


def parts_among(first: str, models: list[str]) -> list[str]:
    """All parts of the model that begins with `first`, among these files."""
    if (split := _SPLIT.search(first)) is None:
        return [first]
    stem, parts = first[: split.start()], split[2]
    return [
        name
        for name in models
        if (other := _SPLIT.search(name)) and name[: other.start()] == stem and other[2] == parts
    ]
