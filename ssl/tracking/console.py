"""Progress of a run: a live panel in a terminal or a notebook, plain lines elsewhere."""

import atexit
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType

from rich.console import Console
from rich.text import Text

from wildfern.printable import printable

from .formatting import duration, number, status_parts
from .loss_curve import LossCurve
from .notebook import NotebookDisplay, in_notebook
from .panel import Panel, ResizableLive
from .panel_stream import PanelStream
from .plain_lines import PlainLines
from .progress import Progress
from .throughput import TimeLeft

LEFT_SECONDS = 2.0  # after which the time left is estimated anew, also between logged steps


class TrainingDisplay:
    """Shows logged steps of a run; a context manager that always restores the cursor.

    In a terminal: a bar with loss curve, learning rate, speed, time of a step, share of it spent waiting for data, memory,
    time left and the last evaluation, with messages and other output scrolling above it. In a notebook: the same as one output
    of the cell, updated in place. Elsewhere (a file, a pipe, TERM=dumb): one line at the first update, at every `log_every`-th
    step and at the last step, and the number of steps done when there was no line for some seconds (`PlainLines`).

    Steps are the global steps of the data rule, counted from 0; shown is the number of steps done. Output that cannot be
    written (a closed pipe, a full disk, a terminal that is gone) ends the display, not the training.
    `enabled=False` (every rank but the first) shows nothing.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        log_every: int = 1,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        enabled: bool = True,
    ) -> None:
        if not 0 <= start_step <= total_steps:
            raise ValueError(f"start_step must lie between 0 and total_steps = {total_steps}, not {start_step}")
        if log_every < 1:
            raise ValueError(f"log_every must be at least 1, not {log_every}")
        self.console = console or Console(highlight=False)
        self.enabled = enabled
        self._lost = False
        self._total = total_steps
        self._log_every = log_every
        self._clock = clock
        self._time = TimeLeft(total_steps, start_step, clock)
        self._curve = LossCurve()
        self._last_shown: int | None = None
        self._done, self._start, self._left_at = start_step, start_step, clock()
        self._progress: Progress | None = None  # of what is done besides steps
        self._panel = Panel(total_steps, start_step, self._curve, self._time)
        self._live: ResizableLive | NotebookDisplay | None = None
        self._print_above: Callable[[Text], None] = self.console.print
        if enabled and in_notebook(self.console):
            self._live = NotebookDisplay(self._panel)
            self._print_above = self._live.print
        elif enabled and self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = ResizableLive(self._panel, self.console)
        self._lines = PlainLines(self.console, self._about, clock)
        self._stderr = PanelStream(self._above)
        self._panel.stderr = self._stderr

    def __enter__(self) -> "TrainingDisplay":
        if self._live:
            self._stderr.begin()
            self._safely(lambda: self._live.start(refresh=True))
            atexit.register(self.close)  # restore the cursor even if the program ends inside the block
        elif self.enabled:
            self._lines.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Print the final state of the panel and restore the terminal."""
        if self._live:
            self._panel.finish()
            self._stderr.end()
            with suppress(OSError, ValueError):
                self._live.stop()
            atexit.unregister(self.close)
        self._lines.close()

    def stepped(self, step: int) -> None:
        """Note that global step `step` is done; costs next to nothing and shows nothing by itself."""
        self._done = self._panel.done = step + 1
        if self._clock() - self._left_at >= LEFT_SECONDS:
            self._estimate()

    @contextmanager
    def progress(self, text: str = "") -> Iterator[Progress]:
        """Show how far something besides steps is, such as an evaluation, inside the block."""
        before, self._progress = self._progress, Progress()
        self._progress.part(text)
        self._panel.progress = self._progress
        try:
            yield self._progress
        finally:
            self._progress = self._panel.progress = before

    def update(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float] | None = None) -> None:
        """Show global step `step`.

        Standard `metrics`: `loss`, `learning_rate`; the panel lists any others below. Standard `timings`:
        `images_per_second`, `step_seconds`, `data_wait` (a share, 0 to 1), `memory_gib`. Missing values are not shown.
        """
        if not self.enabled:
            return
        self._done = done = step + 1
        left = self._estimate()
        self._curve.append(float(metrics.get("loss", math.nan)))
        parts = status_parts(metrics, timings or {})
        if self._live:
            rest = {key: value for key, value in metrics.items() if key not in ("loss", "learning_rate")}
            self._panel.show(done, parts, {key: number(value) for key, value in rest.items()})
        elif done != self._last_shown and (
            self._last_shown is None or done % self._log_every == 0 or done == self._total
        ):
            self._last_shown = done
            left_part = f"left {duration(left)}" if left is not None else ""
            self._print("  ".join([f"step {done}/{self._total}", *filter(None, [*parts.values(), left_part])]))

    def evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Show the scores of the model as global step `step` left it."""
        if not self.enabled:
            return
        text = printable("  ".join(f"{key} {number(value)}" for key, value in scores.items()))
        if self._live:
            self._panel.evaluation = (step + 1, text)
        self.message(f"step {step + 1}/{self._total}  evaluation  {text}")

    def message(self, text: str) -> None:
        """Print an event, such as a checkpoint written or a run resumed."""
        if not self.enabled:
            return
        if self._live:
            line = Text.assemble((time.strftime("%H:%M:%S "), "dim"), printable(text))
            self._safely(lambda: self._print_above(line))
        else:
            self._print(text)

    def _estimate(self) -> float | None:
        self._left_at = self._clock()
        left = self._time.update(self._done)
        self._panel.left(left)
        return left

    def _about(self) -> tuple[str, float]:
        """What is being done and for how many seconds, for a log without a line for some time."""
        if (progress := self._progress) is not None and (line := progress.line()):
            return line, progress.age
        elapsed = self._time.elapsed
        if self._done == self._start:
            return f"step {self._done}/{self._total}  {duration(elapsed)} so far, with the first batch", elapsed
        if self._done == self._total:
            return f"step {self._done}/{self._total}  finishing", elapsed
        left = self._panel.time_left
        return f"step {self._done}/{self._total}" + (f"  left {duration(left)}" if left is not None else ""), elapsed

    def _above(self, text: str) -> None:
        """Print text of others above the panel."""
        self._safely(lambda: self._print_above(Text.from_ansi(text)))

    def _print(self, line: str) -> None:
        self._lines.print(line)

    def _safely(self, show: Callable[[], None]) -> None:
        if not self._lost:
            try:
                show()
            except (OSError, ValueError):  # ValueError: a closed file
                self._lost = True
