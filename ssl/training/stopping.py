"""SIGINT, SIGTERM, SIGHUP and SIGUSR1 stop training after the current step, with a checkpoint; a second one exits at once."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

ECHO_SECONDS = 2.0  # launchers and schedulers forward signals that the processes already got

# A terminal that is closed sends SIGHUP, a batch system SIGUSR1 before the time limit; Windows has neither.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_HANGUP = getattr(signal, "SIGHUP", None)


SLOW_SECONDS = 3.0  # after which a signal is answered, if training has not stopped


def say_waiting(number: int) -> None:
    """Say that a signal has arrived, on rank 0."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError, ValueError):
            name = signal.Signals(number).name
            print(f"{name}: stops after this step or evaluation; once more: at once", file=sys.stderr, flush=True)


def end_at_once(number: int) -> None:
    """Exit without Python's cleanup: the main thread may be blocked."""
    name = signal.Signals(number).name
    with suppress(OSError, ValueError):  # standard error may be closed
        print(
            f"stopped at once by a second signal ({name}); finished checkpoints are complete",
            file=sys.stderr,
            flush=True,
        )
    os._exit(128 + number)


class StopRequest:
    """A context in which SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `signal_number` instead of ending the process.

    Another SIGINT raises KeyboardInterrupt. Another signal that comes more than `ECHO_SECONDS` after the first signal
    calls `end` from a separate thread, so that it also works while the main thread waits for another process.
    SIGHUP stays ignored if it was: by `nohup`. `SLOW_SECONDS` after the first signal, a message says what is waited for.
    Processes that are forked inside, such as workers that read data, end on SIGTERM only: the step needs them to finish.
    """

    def __init__(self, end: Callable[[int], None] = end_at_once, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal_number: int | None = None
        self._end, self._clock = end, clock
        self._since = 0.0
        self._handled = self._arrived = 0  # SIGINTs, counted in the main and in the listening thread
        self._before: dict[int, object] = {}
        self._answer: threading.Timer | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._arrivals, self._wake = socket.socketpair()
            self._wake.setblocking(False)
            self._wake_before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
            for number in SIGNALS:
                if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
            self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
            self._thread.start()
            _entered.add(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before:
            _entered.discard(self)
            if self._answer is not None:
                self._answer.cancel()
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wake_before)
            self._before = {}
            self._wake.close()
            self._thread.join()
            self._arrivals.close()

    def agreed(self, any: Callable[[bool], bool]) -> int | None:
        """The signal that stopped training, on whichever rank it arrived; None without one. Called on every rank."""
        return next((number for number in SIGNALS if any(self.signal_number == number)), None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Python's signal handler: runs in the main thread once it returns to Python."""
        if number == signal.SIGINT:
            self._handled += 1
            after_another = self.signal_number not in (None, signal.SIGINT) and self._later()
            if after_another or max(self._handled, self._arrived) > 1:
                raise KeyboardInterrupt
        self._note(number)

    def _listen(self) -> None:
        """Each byte is the number of a signal, written by the interpreter's C handler when it arrives."""
        while arrived := self._arrivals.recv(1):
            number = arrived[0]
            if number == signal.SIGINT:
                self._arrived += 1  # `_handle` runs once for several that arrive while the main thread is blocked
            elif number in SIGNALS and self.signal_number is not None and self._later():
                self._end(number)
            if number in SIGNALS:
                self._note(number)
            # Not in `_handle`, which may interrupt the start of a thread.
            if number in SIGNALS and self._answer is None:
                self._answer = threading.Timer(SLOW_SECONDS, say_waiting, (number,))
                self._answer.daemon = True
                self._answer.start()

    def _later(self) -> bool:
        return self._clock() - self._since > ECHO_SECONDS

    def _note(self, number: int) -> None:
        if self.signal_number is None:
            self._since, self.signal_number = self._clock(), number


_entered: set[StopRequest] = set()


def _in_forked_child() -> None:
    """The signals of a forked process are not those of its parent, to whose socket it would write them."""
    if _entered:
        _entered.clear()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


class Consultation:
    """The steps after which ranks synchronize the decisions to stop and to save by the clock.

    `due()` is called on every rank after every step and returns the same on all. Synchronizing costs a little communication:
    it happens every `most` steps, or after every step if `most` steps take longer than `seconds`. A stop thus waits for about
    twice `seconds` or one step, whichever is longer. `any` returns whether a flag is set on any rank.
    """

    def __init__(
        self,
        any: Callable[[bool], bool],
        most: int = 8,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._any, self._most, self._seconds, self._clock = any, most, seconds, clock
        self._steps = self._left = 1
        self._asked = clock()

    def due(self) -> bool:
        """Whether to synchronize after this step."""
        self._left -= 1
        if self._left:
            return False
        slow = self._any(self._clock() - self._asked > self._seconds)
        self._steps = 1 if slow else min(2 * self._steps, self._most)
        self._left, self._asked = self._steps, self._clock()
        return True
