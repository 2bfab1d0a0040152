"""Text for narrow columns: names of files, protocols and networks break after a blank, `_`, `/` and so on, not inside words."""

import re
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from wildfern.printable import printable

PIECE = re.compile(r"[^\s_/.,=:·-]*(?:[_/.,=:·-]+|\s+|$)")


class Breakable:
    """A cell of a table, or a line. A piece that is wider than all of the space is broken anywhere."""

    def __init__(self, text: str, style: str = "") -> None:
        self.text, self.style = printable(text), style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(widest_piece([self.text]), cell_len(self.text)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for piece in PIECE.findall(self.text):
            if lines[-1] and cell_len(lines[-1]) + cell_len(piece.rstrip()) > options.max_width:
                lines.append("")
            lines[-1] += piece
        yield Text("\n".join(line.rstrip() for line in lines), style=self.style, overflow="fold")


class FitToWidth:
    """What `build` makes of the width of the console, in cells."""

    def __init__(self, build: Callable[[int], RenderableType]) -> None:
        self.build = build

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.build(options.max_width)


def widest_piece(texts: Iterable[str]) -> int:
    """Cells that the widest piece takes; 0 without any text."""
    return max((cell_len(piece.rstrip()) for text in texts for piece in PIECE.findall(text)), default=0)
