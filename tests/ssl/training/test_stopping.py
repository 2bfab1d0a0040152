"""Stopping by signals, and how soon all ranks stop."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from wildfern.ssl.training import stopping
from wildfern.ssl.training.stopping import Consultation, StopRequest

posix = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX systems")


class Steps:
    """Synchronous ranks on a simulated clock; `asked` records the steps after which they synchronize."""

    def __init__(self, processes=2):
        self.now, self.asked, self.done = 0.0, [], 0
        self.flags = []
        self.consultations = [Consultation(self._any, clock=lambda: self.now) for _ in range(processes)]

    def _any(self, flag):
        self.flags.append(flag)
        return self.slow

    def run(self, seconds, count):
        """`count` steps of `seconds` each; only the second rank measures them."""
        for _ in range(count):
            self.now += seconds
            self.done += 1
            self.slow = self.now - self.consultations[-1]._asked > 1.0
            due = {consultation.due() for consultation in self.consultations}
            assert len(due) == 1
            if due.pop():
                self.asked.append(self.done)


def test_fast_steps_synchronize_every_eighth_step():
    steps = Steps()
    steps.run(0.01, 40)
    assert steps.asked == [1, 3, 7, 15, 23, 31, 39]


def test_slow_steps_synchronize_every_step():
    steps = Steps()
    steps.run(30.0, 5)
    assert steps.asked == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.2, 0.3, 0.6, 0.9, 1.5, 20.0])
def test_a_stop_waits_for_two_seconds_or_one_step(seconds):
    steps = Steps()
    steps.run(seconds, 200)
    gaps = [b - a for a, b in zip(steps.asked, steps.asked[1:], strict=False)]
    assert max(gaps) * seconds <= max(2.0, seconds)


def test_steps_that_become_slow_synchronize_every_step():
    steps = Steps()
    steps.run(0.01, 15)
    steps.run(10.0, 12)
    assert steps.asked == [1, 3, 7, 15, 23, 24, 25, 26, 27]


def in_a_process(body):
    """Exit code and output of a script inside `stop`, in which `send(signal)` sends a signal to itself.

    It loads only the file stopping.py, so that it starts quickly.
    """
    script = "import ctypes, importlib.util, os, signal, sys, threading, time\n"
    script += f"spec = importlib.util.spec_from_file_location('stopping', {stopping.__file__!r})\n"
    script += "stopping = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(stopping)\n"
    script += "stopping.ECHO_SECONDS = 0.2\n"
    script += "def send(number):\n    os.kill(os.getpid(), number)\n    time.sleep(0.05)\n"
    script += "with stopping.StopRequest() as stop:\n" + textwrap.indent(textwrap.dedent(body), "    ")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    return run.returncode, run.stdout + run.stderr


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_the_first_signal_is_recorded_and_handlers_are_restored(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopRequest(end=lambda number: pytest.fail("ended")) as stop:
        assert stop.signal_number is None
        os.kill(os.getpid(), number)
        assert stop.signal_number == number
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


@posix
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_stops_unless_nohup_ignores_it(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with StopRequest(end=lambda number: pytest.fail("ended")) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal_number == (None if ignored else signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
@pytest.mark.parametrize(
    "numbers", [(None, signal.SIGTERM), (signal.SIGUSR1, None), (None, None, signal.SIGINT), (None,)]
)
def test_all_ranks_report_the_same_signal(numbers):
    """Each rank makes the same calls in the same order, and gets the disjunction of all flags."""
    requests = [StopRequest() for _ in numbers]
    for request, number in zip(requests, numbers, strict=True):
        request.signal_number = number
    questions = [[other.signal_number == number for other in requests] for number in stopping.SIGNALS]
    for request in requests:
        answers = iter(questions)

        def any_of_all(flag, answers=answers):
            every = next(answers)
            assert flag in every
            return any(every)

        assert request.agreed(any_of_all) == next((n for n in numbers if n is not None), None)


@posix
def test_a_second_signal_exits_at_once_while_the_main_thread_is_blocked():
    """The main thread is in a call that no signal interrupts: Python would run a handler only after it."""
    code, printed = in_a_process(
        """
        send(signal.SIGUSR1)
        time.sleep(0.3)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        ctypes.CDLL(None).sleep(20)
        print("waited to the end")
        """
    )
    assert code == 128 + signal.SIGTERM, printed
    assert printed.strip() == "stopped at once by a second signal (SIGTERM); finished checkpoints are complete"


@posix
def test_a_signal_is_answered_if_training_does_not_stop_soon():
    code, printed = in_a_process("stopping.SLOW_SECONDS = 0.1\nsend(signal.SIGINT)\ntime.sleep(0.5)")
    assert (code, printed) == (0, "SIGINT: stops after this step or evaluation; once more: at once\n")
    code, printed = in_a_process("stopping.SLOW_SECONDS = 0.5\nsend(signal.SIGINT)\nstop.__exit__()\ntime.sleep(1)")
    assert (code, printed) == (0, "")


@posix
def test_a_signal_forwarded_by_a_launcher_is_not_a_second_one():
    code, printed = in_a_process(
        """
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.signal_number == signal.SIGINT
        print("continued")
        """
    )
    assert (code, printed.strip()) == (0, "continued")


@posix
@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_another_ctrl_c_interrupts(first):
    code, printed = in_a_process(
        f"""
        send(signal.{first})
        time.sleep(0.3)
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (code, printed.strip()) == (0, "interrupted")


@posix
def test_one_ctrl_c_is_not_counted_twice_after_the_main_thread_was_blocked():
    """SIGINT and a launcher's SIGTERM arrive meanwhile: Python calls the handlers of both afterwards, in any order."""
    code, printed = in_a_process(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        for after, number in ((0.1, signal.SIGINT), (0.2, signal.SIGTERM)):
            threading.Timer(after, os.kill, (os.getpid(), number)).start()
        ctypes.CDLL(None).sleep(1)
        time.sleep(0.05)
        assert stop.signal_number == signal.SIGINT
        print("continued")
        """
    )
    assert (code, printed.strip()) == (0, "continued")


@posix
def test_a_forked_worker_can_be_ended_and_does_not_stop_its_parent():
    def worker(reader):
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches all processes; the step needs this one to finish
        os.read(reader, 1)

    with StopRequest(end=lambda number: pytest.fail("ended")) as stop:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            worker(reader)
            os._exit(1)
        time.sleep(0.05)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGTERM)  # as multiprocessing.Pool.terminate does
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.05)
        assert stop.signal_number is None
    os.close(reader)
    os.close(writer)
