"""Lines of a log: each event at once, and one about the progress whenever nothing was printed for some seconds."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from rich.console import Console

from wildfern.printable import encodable, printable

SHORTEST, LONGEST = 4.0, 60.0  # seconds without a line: at first, and after a long time
GROWTH = 12  # the pause is this part of the time that the work takes already
LOOK_SECONDS = 0.5


class PlainLines:
    """A context manager: while it is entered, a thread prints what `about()` says when there was no line for some seconds.

    `about` returns the line (empty for none) and for how many seconds this has been going on: lines come every 4 s in the first
    minute, then less often, at least every 60 s. Output that cannot be written ends all lines, but nothing else.
    """

    def __init__(
        self,
        console: Console,
        about: Callable[[], tuple[str, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self._about, self._clock = console, about, clock
        self._last = clock()
        self._lost = False
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._thread: threading.Thread | None = None

    def print(self, line: str) -> None:
        """Print a line now."""
        with self._lock:
            self._last = self._clock()
            if self._lost:
                return
            try:
                if getattr(sys.stderr, "within_line", False):  # both often go to one file
                    print(file=sys.stderr, flush=True)
                print(encodable(printable(line), self.console.encoding), file=self.console.file, flush=True)
            except (OSError, ValueError):  # ValueError: a closed file
                self._lost = True

    def look(self) -> None:
        """Print a line about the progress if it is due.

        Not into an unfinished line of standard error, which the compilation of a kernel, for example, completes later.
        """
        if getattr(sys.stderr, "within_line", False):
            self._last = self._clock()
            return
        line, age = self._about()
        if line and self._clock() - self._last >= min(max(age / GROWTH, SHORTEST), LONGEST):
            self.print(line)

    def close(self) -> None:
        """End the thread. A second call does nothing."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(LOOK_SECONDS)  # not for ever: it may be printing to a pipe that nobody reads

    def __enter__(self) -> "PlainLines":
        thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        with suppress(RuntimeError):  # a limit of the system on threads: then only events are printed
            thread.start()
            self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.look()
