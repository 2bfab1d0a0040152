"""The start of a process: when it began, and what it does before its first result."""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rich.console import Console

from wildfern.launch.terminal import console
from wildfern.printable import encodable
from wildfern.ssl.tracking import Progress, progress_line
from wildfern.ssl.tracking.current_progress import shown_by
from wildfern.ssl.tracking.notebook import in_notebook

LOADING = "starting: loading torch and its libraries"


def process_start() -> float:
    """The start of this process on `time.perf_counter`, including interpreter start-up, on Linux; elsewhere, now."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return time.perf_counter()
    ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, starttime: the name before it may hold spaces
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.perf_counter() - age


class Startup:
    """Shows what a command does until its own display begins; a context manager.

    `progress` is a live line in a terminal or a notebook. Elsewhere it is a line on standard error when a part takes more than
    4 s, and one at once if torch is still to be imported, which takes long. Ranks other than 0 of a launcher show nothing.
    """

    def __init__(self) -> None:
        self.progress = Progress()
        self._stack: ExitStack | None = None

    def part(self, text: str) -> None:
        """Begin a part."""
        self.progress.part(text)

    def close(self) -> None:
        """End the display. A second call does nothing."""
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def __enter__(self) -> "Startup":
        """Begin to show; inside another `with` block of the same object, do nothing."""
        if self._stack is None and os.environ.get("RANK", "0") == "0" and sys.stderr is not None:
            self._stack = ExitStack()
            shown_on = screen()
            if "torch" not in sys.modules:
                if shown_on.is_terminal or in_notebook(shown_on):
                    self.progress.part(LOADING)
                else:
                    print(encodable(f"{LOADING} …", shown_on.encoding), file=sys.stderr, flush=True)
            self._stack.enter_context(progress_line(self.progress, shown_on))
            self._stack.enter_context(shown_by(self.progress))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def screen() -> Console:
    """Where to show progress that is no result: the terminal, also if standard output goes elsewhere, else standard error."""
    return console if console.is_terminal else Console(file=sys.stderr)
