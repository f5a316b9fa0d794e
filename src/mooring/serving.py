"""The HTTP server's life: a socket, signals, an orderly end."""

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop

from mooring.app import LoadEngine, Services, load_configured, make_http, run_services
from mooring.config import Config
from mooring.core.errors import StartRefused
from mooring.engine.interface import OnProgress

_GRACE_S = 5
_WAITING_CONNECTIONS = 2048


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn would end the process before the engine is closed."""
        yield


def run(server: Coroutine[Any, Any, None]) -> None:
    """`serve`, from start to end, on uvloop's event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server)


async def serve(
    config: Config,
    on_ready: Callable[[Services, int], Awaitable[None]],
    on_progress: OnProgress = lambda _what, _share: None,
    load: LoadEngine = load_configured,
) -> None:
    """Serve until a signal says stop; `on_ready` hears the port once clients are let in.

    Raises:
        StartRefused: the port is taken, the model cannot be loaded, the directory is in use.
    """
    # Bound before the model is loaded: a taken port should not cost a minute of loading.
    listener = listen(config.server.host, config.server.port)
    async with run_services(config, on_progress, load) as services:
        settings = uvicorn.Config(
            make_http(config, services),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(settings)
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(stop_signal, _stop, server)
        listener.listen(_WAITING_CONNECTIONS)  # from here on clients wait in line, not refused
        await on_ready(services, listener.getsockname()[1])
        gc.freeze()  # what is there now stays: looking through it for garbage would stop the loop
        await server.serve(sockets=[listener])


def _stop(server: uvicorn.Server) -> None:
    """Let running replies end, at most a few seconds; asked twice, do not wait for them."""
    server.force_exit = server.should_exit
    server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, not listening yet. Raises StartRefused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left at 0, asyncio does not recognise TCP and leaves Nagle's algorithm on,
    # which holds every second packet of a reply back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartRefused(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
