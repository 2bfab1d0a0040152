"""Standard output and error of a command: closed, on a full disk, in ASCII, or a pipe that nobody reads any more."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from wildfern.printable import REPLACE

BROKEN_PIPE = 141  # 128 + SIGPIPE, as programs end that do not handle it
NAMES = {"stdout": "standard output", "stderr": "standard error"}


class LostOutput(OSError):
    """Standard output or error cannot be written."""


class _Stream(io.TextIOWrapper):
    """Standard output or error whose errors say so, and which knows whether a line is unfinished."""

    within_line = False

    def write(self, text: str) -> int:
        if text:
            self.within_line = not text.endswith("\n")
        with self._named():
            return super().write(text)

    def flush(self) -> None:
        with self._named():
            super().flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = NAMES.get(str(self.mode), "standard output")
            raise LostOutput(error.errno, error.strerror or str(error), name) from error


_kept: list[_Stream] = []  # a stream that is collected closes its file, which a program may use after the command


def prepare_streams() -> None:
    """Print replacements for what an encoding lacks, and open closed standard streams to nothing.

    Otherwise the next files that are opened take their place, and are written to by whatever prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in NAMES:
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            ours = _Stream(stream.buffer, stream.encoding, REPLACE, **buffering)
            ours.mode = name
            setattr(sys, name, ours)
            _kept.append(ours)


def lost_output() -> tuple[int, str] | None:
    """Exit code and message if standard output or error cannot be written, which then goes to nothing; None if both can."""
    found = None
    for name in NAMES:
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except LostOutput as error:
            found = explained_loss(error)
        except (OSError, ValueError):  # closed in Python
            pass
    return found


def explained_loss(error: LostOutput) -> tuple[int, str]:
    """Exit code and message; the latter is empty for a pipe whose reader has left. What is printed later goes to nothing."""
    for name, words in NAMES.items():
        if words == error.filename:
            _discard(getattr(sys, name))
    if error.errno == errno.EPIPE:
        return BROKEN_PIPE, ""
    return 2, f"cannot write to {error.filename}: {error.strerror}"


@contextmanager
def output_may_be_lost() -> Iterator[None]:
    """Around output that is not a result: if it cannot be printed, one line on standard error says so, and that is all."""
    try:
        yield
        lost = lost_output()
    except LostOutput as error:
        lost = explained_loss(error)
    if lost is not None and lost[1] and sys.stderr is not None:
        with suppress(OSError):
            print(lost[1], file=sys.stderr)


def _discard(stream: io.TextIOWrapper) -> None:
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        stream.flush()
