"""Where a model file comes from: a path, or a repository on Hugging Face."""

import re
from pathlib import Path

import huggingface_hub
from httpx2 import HTTPError
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.parts import part_number, parts_among

_PREFERRED = ("q4_k_m", "q4_k_s", "q8_0", "f16")
"""Common quantisations, the best bargain first."""


def find_model(source: str) -> Path:
    """The local path of `source`; `hf:owner/repo[:file.gguf]` is downloaded, with a progress bar.

    Raises:
        ModelUnreadable: there is no such file or repository, or it cannot be reached.
    """
    if not source.startswith("hf:"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ModelUnreadable(f"no model file at {path} (a GGUF, or hf:owner/repo[:file.gguf])")
        return path
    repository, _, wanted = source.removeprefix("hf:").partition(":")
    try:
        names = choose_files(_list_files(repository), wanted or None, repository)
        paths = [Path(huggingface_hub.hf_hub_download(repository, name)) for name in names]
    except HFValidationError as error:
        raise ModelUnreadable(f"{source!r} is not hf:owner/repo[:file.gguf]: {error}") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ModelUnreadable(f"cannot download {source}: {error}") from error
    return paths[0]


def _list_files(repository: str) -> list[str]:
    """The repository's files; without a network, those that were downloaded before."""
    try:
        return huggingface_hub.list_repo_files(repository)
    except (HTTPError, OSError):
        try:
            folder = huggingface_hub.snapshot_download(repository, local_files_only=True)
        except LocalEntryNotFoundError:
            folder = ""
        if not folder:
            raise
        return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.gguf")]


def choose_files(files: list[str], wanted: str | None, repository: str) -> list[str]:
    """The files to download, the one to open first: all parts, when the model is split.

    Raises:
        ModelUnreadable: the repository has no such file, or several and none is preferred.
    """
    models = sorted(name for name in files if name.endswith(".gguf") and "mmproj" not in name)
    if wanted is not None:
        if wanted not in models:
            raise ModelUnreadable(_unclear(f"{repository} has no {wanted}", models))
        return parts_among(wanted, models)
    firsts = [name for name in models if part_number(name) in (None, 1)]
    if len(firsts) == 1:
        return parts_among(firsts[0], models)
    for quantisation in _PREFERRED:
        for name in firsts:
            if re.search(rf"(?<![a-z0-9]){quantisation}", name.lower()):
                return parts_among(name, models)
    raise ModelUnreadable(_unclear(f"{repository}: say which file", models))


def _unclear(problem: str, models: list[str]) -> str:
    return f"{problem}; its GGUF files: {', '.join(models) or 'none'}"
