"""Progress bars for the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mooring.engine.llamacpp.loading import OnProgress


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
    with make_bars(console) as bars:
        tasks: dict[str, Callable[[float], None]] = {}

        def report(what: str, share: float) -> None:
            if what not in tasks:
                task = bars.add_task(what, total=1.0)
                tasks[what] = lambda share: bars.update(task, completed=share)
            tasks[what](share)

        yield report
