"""The command line: `mooring demo`, `mooring serve`."""

import asyncio
import os
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import mooring
from mooring import serving as http
from mooring.app import Services
from mooring.commands import bill, estimate, key, tenant, vllm_args
from mooring.config import Config, load_config
from mooring.core.errors import MooringError
from mooring.demo import run_demo
from mooring.progress import loading_bar
from mooring.registry.database import describe as describe_registry
from mooring.telemetry import configure_logging

cli = typer.Typer(
    name="mooring",
    help="A self-hosted LLM server with context caching: compute a long prompt once, use it often.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cli.add_typer(tenant.cli)
cli.add_typer(key.cli)
cli.command(name="estimate")(estimate.command)
cli.command(name="bill")(bill.bill)
cli.command(name="top-up")(bill.top_up)
cli.command(name="vllm-args")(vllm_args.command)
_console = Console(stderr=True)


class LogLevel(StrEnum):
    """How much the log tells."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class EngineKind(StrEnum):
    """What computes."""

    LLAMACPP = "llamacpp"
    VLLM = "vllm"


def main() -> None:
    """Entry point; an error that explains itself is printed without a traceback."""
    try:
        cli()
    except MooringError as error:
        _console.print(f"[bold red]mooring:[/] {error.message}", highlight=False)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@cli.command()
def demo(
    model: Annotated[
        str | None, typer.Option(help="A GGUF, or hf:owner/repo[:file.gguf]; else the bundled one.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, max=10, help="How many questions to ask.")] = 10,
) -> None:
    """Cache a product manual, ask ten questions with and without the cache, compare. Offline.

    Works in a temporary directory and leaves nothing behind.
    """
    configure_logging("ERROR")
    asyncio.run(run_demo(model, questions, Console()))


@cli.command(
    epilog="Try it: [cyan]curl localhost:8080/v1/models[/]. Clients need only the base URL"
    " [cyan]http://127.0.0.1:8080/v1[/]. Every setting: docs/configuration.md."
)
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="A GGUF, or hf:owner/repo[:file.gguf]; else the bundled one. With vLLM, the folder of"
            " the workers' model, or hf:owner/repo."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8080]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where caches are kept. [the user's data directory]")
    ] = None,
    registry_url: Annotated[
        str | None,
        typer.Option(help="A PostgreSQL that servers share; MOORING_REGISTRY_URL hides its password."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with all settings.")] = None,
    engine: Annotated[
        EngineKind | None, typer.Option(help="llama.cpp in this machine, or workers of vLLM. [llamacpp]")
    ] = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="The URL of a vLLM worker; once for each.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False)] = LogLevel.INFO,
) -> None:
    """Serve a model: OpenAI's chat completions and Moonshot's /v1/caching.

    Caches survive a restart. Clients send the key in MOORING_API_KEY, or one made with `mooring key`;
    without any, only this machine can connect. MOORING_ADMIN_KEY opens /admin/v1.
    """
    server: dict[str, object] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "api_key": os.environ.get("MOORING_API_KEY"),
        "admin_key": os.environ.get("MOORING_ADMIN_KEY"),
    }
    overrides: dict[str, dict[str, Any]] = {
        "server": server,
        "registry": {"url": registry_url or os.environ.get("MOORING_REGISTRY_URL")},
        "model": {"source": model},
        "engine": {"kind": engine and engine.value},
        "vllm": {"workers": worker or None},
    }
    settings = load_config(config, overrides)
    configure_logging(log_level.value)
    os.umask(0o077)  # what is written holds people's prompts
    with ExitStack() as bars:
        on_progress = bars.enter_context(loading_bar(_console))

        async def on_ready(services: Services, port: int) -> None:
            bars.close()
            _greet(settings, services, port, is_open=await services.tenancy.is_open())

        http.run(http.serve(settings, on_ready, on_progress))
    _say("Stopped; caches are kept.")


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(mooring.__version__)


def _say(text: str) -> None:
    _console.print(text, highlight=False, soft_wrap=True)


def _greet(config: Config, services: Services, port: int, *, is_open: bool) -> None:
    model = services.engine.model
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    doors = "without a key, to this machine only" if is_open else "to whoever has a key"
    _say(f"[bold]Mooring[/] {mooring.__version__} serves [bold]{model.name}[/] {doors}")
    _say(f"  base URL   http://{host}:{port}/v1")
    _say(f"  names      {', '.join(services.models.names)}")
    _say(f"  context    {model.context_tokens:,} tokens")
    _say(f"  data       {config.server.data_dir}")
    if (registry := describe_registry(config.registry)) is not None:
        _say(f"  registry   {registry}")
    if model.random_weights:
        _say(
            "  [yellow]This model has random weights: its answers mean nothing.[/]"
            " Choose a real one with --model."
        )
