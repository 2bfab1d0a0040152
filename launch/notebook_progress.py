"""Progress of a function that is called in a notebook; silent elsewhere, unless the caller wants it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from wildfern.printable import printable
from wildfern.ssl.tracking import Progress, progress_line, progress_of
from wildfern.ssl.tracking.formatting import duration
from wildfern.ssl.tracking.notebook import in_notebook

Say = Callable[[str], None]


@contextmanager
def shown_in_notebook(
    announce: Callable[[str], None] | Progress | None, say: Say | None, done: str
) -> Iterator[tuple[Progress, Say]]:
    """The progress and the function for messages that were given; without them a line and messages in a notebook's cell.

    The line becomes `done`, such as "evaluated", and how long it took.
    """
    console, began = Console(), time.monotonic()
    if announce is not None or not in_notebook(console):
        yield progress_of(announce or _silent), say or _silent
        return
    progress = Progress()
    with progress_line(progress, console):
        yield progress, say or _shown
        _shown(f"{done} in {duration(time.monotonic() - began)}")


def _silent(text: str) -> None:
    pass


def _shown(text: str) -> None:
    print(printable(text), file=sys.stderr)  # `progress_line` shows it above its line
