"""SIGINT, SIGTERM, SIGHUP and SIGUSR1 outside of training: the command unwinds, says so in one line, exits with 128 + the number.

Imports little, so that a command can install it before anything else. In training, `StopRequest` takes its place.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType, TracebackType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_HANGUP = getattr(signal, "SIGHUP", None)
SAME_SECONDS = 0.2  # `timeout` sends a signal to the process and to its group
ECHO_SECONDS = 2.0  # launchers and schedulers forward signals that the processes already got
UNWIND_SECONDS = 5.0  # then the process ends, whatever it waits for
POLL_SECONDS = 0.1
CHECKPOINT_THREAD = "checkpoint"  # is waited for
MISSED = 0

at_end: list[Callable[[int], None]] = []  # called with the exit code before a process ends without unwinding
_advice: Callable[[], str] = str


class Interrupted(KeyboardInterrupt):
    """A signal, in the main thread of a command. A KeyboardInterrupt, so that whatever handles Ctrl-C handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")


@contextmanager
def advising(advice: Callable[[], str]) -> Iterator[None]:
    """Add a text such as "continue with --resume" to the message of an interrupt inside the block; empty for none."""
    global _advice
    before, _advice = _advice, advice
    try:
        yield
    except KeyboardInterrupt:
        raise  # the advice stays for the message
    except BaseException:
        _advice = before
        raise
    else:
        _advice = before


def advised(number: int = signal.SIGINT) -> str:
    """What to say about a signal, with the advice for the place where it came."""
    name = signal.Signals(number).name
    with suppress(OSError):
        if advice := _advice():
            return f"stopped by {name}{advice}"
    return f"stopped by {name}"


def forget_advice() -> None:
    """Outside of a command: the advice of an earlier interrupt is not for the next one."""
    global _advice
    _advice = str


class Interrupts:
    """Handles signals from `install()` on, in the main thread; a context for a command inside another program.

    The first signal raises Interrupted in the main thread. Another one ends the process at once, and so do `UNWIND_SECONDS`
    without an end: from a thread, because the main thread may be in an operation that does not return to Python.
    A checkpoint that is being written is waited for. `end(exit_code)` ends the process.
    """

    def __init__(self, end: Callable[[int], None] = os._exit) -> None:
        self.number: int | None = None
        self._end, self._raised, self._said, self._finishing = end, False, False, False
        self._for_good = True
        self._before: dict[int, object] = {}

    def install(self) -> "Interrupts":
        """Start handling signals. Does nothing outside of the main thread, and where the system gives no socket or thread."""
        global current, _advice
        if threading.current_thread() is not threading.main_thread():
            return self
        self._thread = threading.Thread(target=self._listen, name="interrupts", daemon=True)
        try:
            self._arrivals, self._wake = socket.socketpair()
            self._thread.start()
        except (OSError, RuntimeError):  # a limit is reached: Python's own handlers stay, and the work will say more
            return self
        current, _advice = self, str
        self._wake.setblocking(False)
        self._wake_before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored by nohup: it stays so
                self._before[number] = signal.signal(number, self._handle)
        self._hooks_before = sys.excepthook, sys.unraisablehook
        sys.excepthook, sys.unraisablehook = self._uncaught, self._unraisable
        return self

    def __enter__(self) -> "Interrupts":
        self._for_good = False
        return self.install()

    def __exit__(self, *exception: object) -> None:
        global current
        if self._before:
            current = None
            self._restore()
            self._wake.close()
            self._thread.join()
            self._arrivals.close()

    def finish(self) -> None:
        """From here on the process only ends: a signal no longer raises, it ends the process at once."""
        self._finishing = True

    def leave(self, code: int) -> None:
        """End the process after an interrupt if `install()` was for good, without waiting for its threads."""
        if self._for_good:
            atexit._run_exitfuncs()
            self._end(code)

    def say(self, text: str) -> None:
        """Print the one line about an interrupt to standard error, once; of Ctrl-C, which reaches all ranks, on rank 0 only."""
        if not self._said and sys.stderr is not None:
            self._said = True
            if self.number == signal.SIGINT and is_other_rank():
                return
            text = "\n" * getattr(sys.stderr, "within_line", False) + text
            with suppress(OSError, ValueError):
                print(text, file=sys.stderr, flush=True)

    def message(self) -> str:
        """The line, with the advice for the place where the signal came."""
        return advised(self.number or signal.SIGINT)

    def _restore(self) -> None:
        signal.set_wakeup_fd(self._wake_before)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
        sys.excepthook, sys.unraisablehook = self._hooks_before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Python's signal handler: runs in the main thread once it returns to Python."""
        if self.number is None:
            self.number = number
        if self._finishing:
            self._end_now(self.message())
        elif not self._raised:
            self._raised = True
            raise Interrupted(self.number)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """An interrupt before or after the work of the command."""
        if issubclass(kind, KeyboardInterrupt):
            self._end_now(self.message())
        self._hooks_before[0](kind, error, trace)

    def _unraisable(self, found: "sys.UnraisableHookArgs") -> None:
        """An interrupt in a place that cannot raise, such as a finalizer, is raised again outside of it."""
        if found.exc_type is not None and issubclass(found.exc_type, KeyboardInterrupt):
            with suppress(OSError):
                self._wake.send(bytes([MISSED]))
        elif not (self._finishing and self._said):  # the reason has been said, this follows from it
            self._hooks_before[1](found)

    def _listen(self) -> None:
        """Each byte is the number of a signal, written by the interpreter's C handler when it arrives."""
        since = 0.0
        missed, sent = False, 0
        while True:
            try:
                arrived = self._arrivals.recv(1)
            except TimeoutError:
                if missed and not self._raised:  # it came just before the main thread began to sleep
                    sent += self._send_again()
                checkpoint = any(thread.name == CHECKPOINT_THREAD for thread in threading.enumerate())
                if time.monotonic() - since > UNWIND_SECONDS and not checkpoint:
                    self._end_now(self.message())
                continue
            if not arrived:
                return
            number, now = arrived[0], time.monotonic()
            if number == MISSED and self.number is not None:
                time.sleep(0.01)
                self._raised, missed = False, True
                sent += self._send_again()
            elif number in SIGNALS and not since:
                since = now
                self._arrivals.settimeout(POLL_SECONDS)
            elif number in SIGNALS and sent:
                sent -= 1
            elif number in SIGNALS and now - since > (SAME_SECONDS if number == signal.SIGINT else ECHO_SECONDS):
                self._end_now(f"stopped at once by a second signal ({signal.Signals(number).name})")

    def _send_again(self) -> int:
        """Send the signal to the main thread, which wakes it if it sleeps; 0 where something else handles signals by now."""
        number = self.number or signal.SIGINT
        if signal.getsignal(number) != self._handle:
            return 0
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, number)
        else:
            signal.raise_signal(number)
        return 1

    def _end_now(self, text: str) -> None:
        """Exit without Python's cleanup."""
        for tell in list(at_end):
            tell(128 + (self.number or signal.SIGINT))
        if sys.stderr is not None and sys.stderr.isatty():
            text = f"\x1b[?25h{text}"  # a progress display may have hidden the cursor
        self.say(text)
        self._end(128 + (self.number or signal.SIGINT))


current: Interrupts | None = None


def is_other_rank() -> bool:
    """Whether a launcher has started this process as one of several, and not as rank 0."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1") and os.environ.get("RANK", "0") not in ("", "0")


def exit_code() -> int:
    """128 + the number of the signal that has arrived; that of SIGINT for a KeyboardInterrupt without one."""
    return 128 + ((current and current.number) or signal.SIGINT)


def handled() -> "Interrupts | nullcontext[Interrupts]":
    """The interrupts that are installed, else new ones for a `with` block."""
    return Interrupts() if current is None else nullcontext(current)


def _in_forked_child() -> None:
    """A forked process writes nothing to the socket of its parent, and does not end the other ranks."""
    global current
    at_end.clear()
    if current is not None and current._before:
        handles = current._handle
        current._before = {n: before for n, before in current._before.items() if signal.getsignal(n) == handles}
        current._restore()  # and not what a StopRequest has set
        current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
