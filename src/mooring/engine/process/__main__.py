"""`python -m mooring.engine.process DESCRIPTOR PARENT`: the engine's process."""

import signal
import sys


def _main() -> None:
    # Before anything slow is imported. A terminal's Ctrl-C and a service manager's stop go to all
    # processes of the server; this one ends when the server says so, or has gone.
    for stop_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop_signal, signal.SIG_IGN)
    from mooring.engine.process.worker import work

    work(descriptor=int(sys.argv[1]), parent=int(sys.argv[2]))


if __name__ == "__main__":
    _main()
