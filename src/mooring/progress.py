"""Progress bars for the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from mooring.engine.interface import OnProgress


def make_bars(console: Console) -> Progress:
    """Bars that vanish when their work is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextmanager
def loading_bar(console: Console) -> Iterator[OnProgress]:
    """Yields a callback that draws one bar for each thing that is being done."""
    bars = make_bars(console)
    tasks: dict[str, TaskID] = {}

    def report(what: str, share: float) -> None:
        bars.start()  # not before: a download draws its own bar
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=1.0)
        bars.update(tasks[what], completed=share)

    try:
        yield report
    finally:
        bars.stop()
