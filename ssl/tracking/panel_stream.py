"""Standard error while a panel is at the foot of the terminal: whole lines go above the panel, an unfinished one into it."""

import io
import sys
import threading
from collections.abc import Callable
from typing import TextIO


class PanelStream(io.TextIOBase):
    """Takes the place of `sys.stderr` between `begin()` and `end()`.

    Text is printed, with `show`, when its line is complete. `unfinished` is the rest, such as "compiling …" to which the time
    it took is added later.
    """

    within_line = False  # an unfinished line: other messages start on a new one

    def __init__(self, show: Callable[[str], None]) -> None:
        self.unfinished = ""
        self._show, self._lock = show, threading.RLock()
        self._before: TextIO | None = None

    def begin(self) -> None:
        """Take the place of standard error; a line that is unfinished there ends."""
        self._before = sys.stderr
        if getattr(sys.stderr, "within_line", False):
            sys.stderr.write("\n")
        sys.stderr = self  # type: ignore[assignment]

    def end(self) -> None:
        """Print what is left, and give standard error back. A second call does nothing."""
        if self._before is None:
            return
        if sys.stderr is self:
            sys.stderr = self._before
        self._before = None
        with self._lock:
            left, self.unfinished = self.unfinished, ""
        if left:
            self._show(left)

    def write(self, text: str) -> int:
        if self._before is None:  # ended: somebody has kept it
            sys.stderr.write(text)
            return len(text)
        with self._lock:
            *lines, self.unfinished = (self.unfinished + text).split("\n")
        if lines:
            self._show("\n".join(lines))
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._before is not None and self._before.isatty()

    def fileno(self) -> int:
        return (self._before or sys.stderr).fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return (self._before or sys.stderr).encoding
