"""A `Progress` as a live line in a terminal, or as plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from wildfern.printable import printable

from .panel_stream import PanelStream
from .plain_lines import PlainLines
from .progress import Progress


@contextmanager
def progress_line(progress: Progress, console: Console) -> Iterator[None]:
    """Show the progress inside the block: a live line in a terminal, which vanishes at the end, else a line every 5 s or more."""
    if not console.is_terminal or console.is_dumb_terminal:
        with PlainLines(console, lambda: (progress.line(), progress.age)):
            yield
        return
    stderr = PanelStream(lambda text: console.print(Text.from_ansi(text)))
    live = Live(_Line(progress, stderr), console=console, transient=True, refresh_per_second=4, redirect_stderr=False)
    stderr.begin()
    try:
        with suppress(OSError, ValueError):  # a terminal that is gone
            live.start(refresh=True)
        yield
    finally:
        stderr.end()
        with suppress(OSError, ValueError):
            live.stop()


class _Line:
    def __init__(self, progress: Progress, stderr: PanelStream) -> None:
        self._progress, self._stderr, self._spinner = progress, stderr, Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self._spinner.update(text=_fitting(self._progress.line(), options.max_width - 3))
        yield self._spinner
        if rest := self._stderr.unfinished:
            yield _fitting(rest, options.max_width - 1)


def _fitting(line: str, width: int) -> Text:
    text = Text(printable(line), no_wrap=True)
    text.truncate(max(width, 1), overflow="ellipsis")
    return text
