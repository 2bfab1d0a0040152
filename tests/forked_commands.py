"""`wildfern …` in a process of its own, forked from one that has imported everything, with a signal at a chosen moment."""

import os
import re
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from forked_runs import Moment, forked


class ForkedCommand:
    """A running `wildfern …` in `folder`. `signal_at` sends it `number` just before this file operation.

    `stdout`: a file, "closed", or "unread" for a pipe whose reader has left.
    """

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        signal_at: Moment | None = None,
        number: int = 0,
        stdout: str = "",
        ascii_only: bool = False,
    ) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.err.write_text("")
        self.process: BaseProcess = forked(
            _command, folder, arguments, signal_at, number, stdout or str(self.out), str(self.err), ascii_only
        )

    def wait(self, seconds: float = 60) -> tuple[int | None, str]:
        """Exit code and standard error."""
        self.process.join(seconds)
        return self.process.exitcode, self.err.read_text(errors="replace")


def _command(
    folder: Path,
    arguments: list[str],
    signal_at: Moment | None,
    number: int,
    stdout: str,
    stderr: str,
    ascii_only: bool,
) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_APPEND), 2)
    if stdout == "closed":
        os.close(1)
        sys.stdout = None
    elif stdout == "unread":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    else:
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
    if stdout != "closed":
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    if ascii_only:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="ascii", errors="strict")
    sys.argv = ["wildfern", *arguments]
    if signal_at is not None:
        _signal_at(*signal_at, number)
    from wildfern.launch import command
    from wildfern.ssl.tracking import plain_lines

    plain_lines.SHORTEST = plain_lines.LONGEST = 3600.0  # no lines of a slow machine about what it is doing

    command.main()


def _signal_at(event: str, path: str, left: int, number: int) -> None:
    def hook(what: str, arguments: tuple) -> None:
        nonlocal left
        if what == event and re.search(path, str(arguments[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
