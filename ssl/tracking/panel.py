"""The live panel at the foot of the terminal: bar, numbers, loss curve, last evaluation."""

from collections.abc import Iterable, Iterator, Mapping

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from wildfern.printable import printable

from .formatting import duration
from .loss_curve import LossCurve
from .panel_stream import PanelStream
from .progress import Progress
from .throughput import TimeLeft

WIDEST = 100  # on a wider screen a longer bar says no more
CURVE = 24


class Panel:
    """Three or four lines that fit the terminal as it is at each drawing."""

    def __init__(self, total_steps: int, start_step: int, curve: LossCurve, time: TimeLeft) -> None:
        self.evaluation: tuple[int, str] | None = None
        self.progress: Progress | None = None  # of what is done besides steps
        self.stderr: PanelStream | None = None
        self.done = start_step
        self._total = total_steps
        self._curve = curve
        self._time = time
        self._left_at: tuple[float, float] | None = None  # time left, and the time elapsed when that was said
        self._finished: str | None = None
        self._parts: Mapping[str, str] = {}
        self._rest: Mapping[str, str] = {}
        self._drawn: list[int] = []  # the cells of each line as it stands on the screen

    def show(self, done: int, parts: Mapping[str, str], rest: Mapping[str, str]) -> None:
        """`parts`: the numbers every run has, by name, as text; `rest`: all others."""
        self.done, self._parts, self._rest = done, parts, rest

    def left(self, seconds: float | None) -> None:
        """Show the time left, which then counts down."""
        self._left_at = None if seconds is None else (seconds, self._time.elapsed)

    @property
    def time_left(self) -> float | None:
        """Seconds left, by the last estimate; None if unknown."""
        if self._left_at is None:
            return None
        left, then = self._left_at
        return max(left - (self._time.elapsed - then), 0)

    def finish(self) -> None:
        """Stop the clocks: the next drawing is the last."""
        word = "took" if self.done >= self._total else "stopped after"
        self._finished = f"{word} {duration(self._time.elapsed)}"

    def spilled(self, width: int) -> int:
        """How many more rows the drawn lines take since the terminal was made `width` cells wide."""
        return sum((cells - 1) // max(width, 1) for cells in self._drawn if cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width - 1, WIDEST)
        lines = [line for line in self._lines(width, options.ascii_only) if line.plain]
        for line in lines:
            line.truncate(max(width, 1))
        self._drawn = [cell_len(line.plain) for line in lines]
        yield from lines

    def _lines(self, width: int, ascii_only: bool) -> Iterator[Text]:
        share = self.done / self._total if self._total else 1.0
        tail = f"  step {self.done}/{self._total}  {share:.0%}  {self._clocks(width)}"
        yield _bar(share, width - len(tail), ascii_only).append(tail, "bold")
        yield self._numbers(width, ascii_only)
        yield _fitting((f"{key} {value}" for key, value in self._rest.items()), width, "dim")
        if self.evaluation:
            step, scores = self.evaluation
            yield Text.assemble((f"evaluation at {step}  ", "dim"), (scores, "green"), no_wrap=True)
        if not self._finished:
            doing = self.progress.line() if self.progress is not None else ""
            yield Text(printable(doing), "bold", no_wrap=True)
            yield Text(printable(self.stderr.unfinished if self.stderr is not None else ""), no_wrap=True)

    def _clocks(self, width: int) -> str:
        if self._finished:
            return self._finished
        elapsed = self._time.elapsed
        if (left := self.time_left) is None:
            return f"elapsed {duration(elapsed)}"
        text = f"left {duration(left)}"
        return f"elapsed {duration(elapsed)}  {text}" if width >= 80 else text

    def _numbers(self, width: int, ascii_only: bool) -> Text:
        styles = {"loss": "bold cyan", "data_wait": "dim", "memory_gib": "dim"}
        line = Text(no_wrap=True)
        for name, text in self._parts.items():
            if line.plain and line.cell_len + 2 + len(text) > width:
                break
            line.append("  " if line.plain else "").append(text, styles.get(name, ""))
        room = min(CURVE, width - line.cell_len - 2)
        if room >= 4 and not ascii_only and (curve := self._curve.sparkline(room)):
            line.append("  ").append(curve, "cyan")
        return line


class ResizableLive(Live):
    """rich's Live, which also clears up after a terminal that was made narrower.

    Terminals wrap what is on the screen when they shrink. Live goes up by as many rows as it drew and so leaves the top
    of the old panel behind; here the rows that came from wrapping are wiped first.
    """

    def __init__(self, panel: Panel, console: Console) -> None:
        # Standard error goes through a `PanelStream`, which keeps lines whole.
        super().__init__(panel, console=console, refresh_per_second=4, redirect_stderr=False)
        self._panel = panel

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        spilled = self._panel.spilled(self.console.width)
        wipe = Control(*[(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * spilled)
        return [wipe, *super().process_renderables(renderables)]


def _bar(share: float, width: int, ascii_only: bool) -> Text:
    done_mark, left_mark = ("#", "-") if ascii_only else ("━", "━")
    width = max(width, 0)
    done = min(int(share * width), width)
    return Text.assemble((done_mark * done, "green"), (left_mark * (width - done), "bright_black"), no_wrap=True)


def _fitting(parts: Iterable[str], width: int, style: str) -> Text:
    """As many parts as fit the line, none of them cut."""
    line = ""
    for part in parts:
        if len(line) + 2 + len(part) > width:
            break
        line = f"{line}  {part}" if line else part
    return Text(line, style, no_wrap=True)
