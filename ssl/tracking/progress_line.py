"""A `Progress` as a live line in a terminal or a notebook, or as plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from wildfern.printable import printable

from .notebook import NotebookDisplay, in_notebook
from .panel_stream import PanelStream
from .plain_lines import PlainLines
from .progress import Progress


@contextmanager
def progress_line(progress: Progress, console: Console) -> Iterator[None]:
    """Show the progress inside the block: a live line in a terminal or a notebook, else a line every 4 s or more.

    The live line vanishes at the end.
    """
    notebook = in_notebook(console)
    if not notebook and (not console.is_terminal or console.is_dumb_terminal):
        with PlainLines(console, lambda: (progress.line(), progress.age)):
            yield
        return
    stderr = PanelStream(lambda text: show(Text.from_ansi(text)))
    line = _Line(progress, stderr, spinning=not notebook)
    live: Live | NotebookDisplay
    if notebook:
        live = NotebookDisplay(line, transient=True)
        show = live.print
    else:
        live = Live(line, console=console, transient=True, refresh_per_second=4, redirect_stderr=False)
        show = console.print
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
    def __init__(self, progress: Progress, stderr: PanelStream, spinning: bool = True) -> None:
        self._progress, self._stderr = progress, stderr
        self._spinner = Spinner("dots") if spinning else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = _fitting(self._progress.line(), options.max_width - 3)
        if self._spinner is not None:
            self._spinner.update(text=line)
        yield self._spinner or line
        if rest := self._stderr.unfinished:
            yield _fitting(rest, options.max_width - 1)


def _fitting(line: str, width: int) -> Text:
    text = Text(printable(line), no_wrap=True)
    text.truncate(max(width, 1), overflow="ellipsis")
    return text
