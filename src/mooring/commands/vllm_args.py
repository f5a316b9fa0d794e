"""`mooring vllm-args`: the command line that starts a worker."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mooring.engine.vllm.arguments import WorkerPlan, budget, worker_arguments
from mooring.engine.vllm.kv_size import kv_bytes_per_token
from mooring.engine.vllm.model_files import find_config

_GIB = 1 << 30
_DEFAULT_BLOCK_TOKENS = 16
_console = Console(stderr=True)


def command(
    model: Annotated[str, typer.Option(help="The model's folder, or owner/repo on Hugging Face.")],
    tier: Annotated[Path, typer.Option(help="The folder that all workers share.")],
    context_tokens: Annotated[int, typer.Option(help="The most tokens of one request.", min=64)],
    kv_gib: Annotated[
        float | None, typer.Option(help="Memory for KV on the device, in GiB.", min=0.01)
    ] = None,
    block_tokens: Annotated[int | None, typer.Option(help="Tokens of a block.", min=1)] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The name to serve the model under.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As a list of words, for a service manager.")
    ] = False,
) -> None:
    """Print how to start a vLLM worker for this server; on stderr, what fits into its memory.

    All workers of a cluster are started alike, but for the address. A worker's Python must be able to
    import `mooring`.
    """
    kv_bytes = None if kv_gib is None else int(kv_gib * _GIB)
    found = find_config(model)
    plan = WorkerPlan(
        model, tier, context_tokens, kv_bytes, block_tokens, host, port, name, found.revision
    )
    arguments = worker_arguments(plan)
    typer.echo(json.dumps(arguments) if as_json else shlex.join(arguments))
    try:
        token_bytes = kv_bytes_per_token(found.config)
    except KeyError as error:
        _console.print(f"bytes of KV a token: unknown, config.json has no {error}", highlight=False)
        return
    _console.print(f"bytes of KV a token: {token_bytes:,}", highlight=False)
    if kv_bytes is not None:
        fits = budget(kv_bytes, token_bytes, context_tokens, block_tokens or _DEFAULT_BLOCK_TOKENS)
        _console.print(
            f"tokens on the device: {fits.tokens:,}, of which {fits.pinned_tokens:,} can be pinned",
            highlight=False,
        )
