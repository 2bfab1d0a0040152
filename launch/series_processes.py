"""The runs of a series as processes: one after the other, or side by side on several GPUs; stopped together by a signal.

Each run is a process of its own, so that it trains to the same bytes as alone: threads, kernels and process groups of torch
are state of a process. Its memory is free when it ends, and a crash or a lack of memory ends it alone. It costs some seconds of
imports a run.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from wildfern.files import open_appending
from wildfern.ssl.training import StopRequest

POLL_SECONDS = 0.1
MOST_LINES, MOST_LINE = 20, 500  # kept of standard error
UNWIND_SECONDS = 10.0  # for a process after a second signal


class Child(Protocol):
    """A started process."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


def start(arguments: Sequence[str], gpu: str | None, out: BinaryIO | None, err: int) -> Child:
    """Start `wildfern` with these arguments, in a session of its own: signals of the terminal do not reach it by themselves."""
    command = [sys.executable, "-P", "-m", "wildfern.launch.command", *arguments]
    surroundings = {**os.environ, "PYTHONUNBUFFERED": "1", **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
    return subprocess.Popen(
        command, env=surroundings, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )


class _Running:
    """A process, its place, and the last lines of its standard error, which are passed on."""

    def __init__(self, number: int, arguments: Sequence[str], gpu: str | None, log: Path | None) -> None:
        self.number, self.gpu = number, gpu
        self._files = ExitStack()
        out = None if log is None else self._files.enter_context(open_appending(log))
        reader, writer = os.pipe()
        try:
            self.child = start(arguments, gpu, out, writer)
        finally:
            os.close(writer)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._thread = threading.Thread(target=self._pass_on, args=(reader, out), name="standard error", daemon=True)
        self._thread.start()

    def _pass_on(self, reader: int, out: BinaryIO | None) -> None:
        """Copy standard error to the log, or to that of this process, as it comes; keep its last lines."""
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            line = b""
            while part := pipe.read(4096):
                with suppress(OSError, ValueError):
                    if out is not None:
                        out.write(part)
                    elif sys.stderr is not None:
                        sys.stderr.write(part.decode("utf-8", "replace"))
                        sys.stderr.flush()
                *whole, line = (line + part).split(b"\n")
                self._lines += [one.decode("utf-8", "replace")[:MOST_LINE] for one in whole if one.strip()]
                line = line[-MOST_LINE:]
            if line.strip():
                self._lines.append(line.decode("utf-8", "replace"))

    def ended(self) -> tuple[int, str] | None:
        """Exit code and message; None while it runs."""
        code = self.child.poll()
        if code is None:
            return None
        self._thread.join(1)  # a process that it has started may keep the pipe open
        self._files.close()
        said = self._lines[-1].strip() if self._lines else ""
        if code < 0:
            name = signal.Signals(-code).name if -code in {*map(int, signal.Signals)} else f"signal {-code}"
            said = f"ended by {name}" + (", perhaps because memory was full" * (name == "SIGKILL"))
        return code, said or f"ended with exit code {code}, without a message"

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, number)


def run_all(
    commands: Sequence[tuple[int, Callable[[], Sequence[str]], Path | None]],
    gpus: Sequence[str],
    began: Callable[[int, str | None], None],
    ended: Callable[[int, int, str], None],
) -> int | None:
    """Run commands, as many at once as there are GPUs (one without any), in order; returns the number of a signal, if one came.

    A command is a number, a function that returns its arguments when its turn comes, and the file for its output, if that is
    not to be shown. `began(number, gpu)` and `ended(number, exit_code, message)` are called for each. A signal is
    passed on to the runs once, and no further ones start; a second one ends them at once.
    """
    waiting, running = deque(commands), list[_Running]()
    free: deque[str | None] = deque(gpus or [None])
    passed_on = False
    with StopRequest() as stop, _ended_at_last(running):
        while running or (waiting and stop.signal_number is None):
            while waiting and free and stop.signal_number is None:
                number, arguments, log = waiting.popleft()
                gpu = free.popleft()
                try:
                    words = arguments()
                except Exception as error:
                    free.append(gpu)
                    ended(number, 2, str(error))
                    continue
                began(number, gpu)
                running.append(_Running(number, words, gpu, log))
            if stop.signal_number is not None and not passed_on:
                passed_on = True
                for one in running:
                    one.send(stop.signal_number)
            for one in list(running):
                if (end := one.ended()) is not None:
                    running.remove(one)
                    free.append(one.gpu)
                    ended(one.number, *end)
            if running:
                time.sleep(POLL_SECONDS)
    return stop.signal_number


@contextmanager
def _ended_at_last(running: list[_Running]) -> Iterator[None]:
    """End what still runs after an error, such as a second Ctrl-C."""
    try:
        yield
    finally:
        for one in running:
            one.send(signal.SIGINT)
        until = time.monotonic() + UNWIND_SECONDS
        for one in running:
            with suppress(subprocess.TimeoutExpired):
                one.child.wait(max(0.1, until - time.monotonic()))
            if one.child.poll() is None:
                one.child.kill()
                one.child.wait()
