"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 outside of training: one line, the exit code of the signal, nothing broken."""

import gc
import json
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext

import pytest
from forked_commands import ForkedCommand
from small_runs import TINY

from wildfern.generators.threads import Threads
from wildfern.launch import interrupts, pretrain
from wildfern.launch.command import run_command
from wildfern.launch.interrupts import SAME_SECONDS, Interrupted, Interrupts, advising
from wildfern.ssl.training import StopRequest

TRAIN = ["pretrain", "quickstart", *TINY, "training.steps=2", "training.precision=fp32", "--run", "run"]


def soon(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def ended():
    return []


def test_a_signal_raises_once_and_another_ends_the_process(ended, capsys):
    with Interrupts(ended.append):
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # `timeout` sends it twice
        time.sleep(1.2 * SAME_SECONDS)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
        soon(lambda: ended)
    assert ended == [130]
    assert capsys.readouterr().err == "stopped at once by a second signal (SIGINT)\n"


@pytest.mark.parametrize(
    ("number", "rank", "ranks", "said"),
    [
        (signal.SIGINT, "0", "2", "stopped by SIGINT\n"),
        (signal.SIGINT, "1", "2", ""),
        (signal.SIGTERM, "1", "2", "stopped by SIGTERM\n"),  # which may have come to this rank alone
        (signal.SIGINT, "1", "1", "stopped by SIGINT\n"),
    ],
)
def test_ctrl_c_is_said_by_rank_0_only(number, rank, ranks, said, ended, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    with Interrupts(ended.append), pytest.raises(SystemExit) as end:
        run_command(lambda: signal.raise_signal(number))
    assert (end.value.code, capsys.readouterr().err) == (128 + number, said)


def test_a_process_that_does_not_unwind_ends(ended, capsys, monkeypatch):
    monkeypatch.setattr("wildfern.launch.interrupts.UNWIND_SECONDS", 0.05)
    with Interrupts(ended.append):
        with pytest.raises(Interrupted), advising(lambda: "; continue"):
            signal.raise_signal(signal.SIGTERM)
        soon(lambda: ended)
    assert ended[0] == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; continue\n"


def test_a_checkpoint_that_is_being_written_is_waited_for(ended, monkeypatch):
    monkeypatch.setattr("wildfern.launch.interrupts.UNWIND_SECONDS", 0.05)
    written = threading.Event()
    writing = threading.Thread(target=written.wait, name="checkpoint", daemon=True)
    writing.start()
    with Interrupts(ended.append):
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        assert ended == []
        written.set()
        soon(lambda: ended)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX")
@pytest.mark.parametrize("lost", [0, 2])
def test_an_interrupt_in_a_finalizer_is_raised_again_outside_of_it(lost, ended, monkeypatch):
    """Also if it comes just before the main thread begins to sleep, which then does not notice it."""
    send, sent = signal.pthread_kill, []
    monkeypatch.setattr(signal, "pthread_kill", lambda *to: sent.append(to) if len(sent) < lost else send(*to))

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work():
        thing = Finalized()
        del thing
        gc.collect()
        time.sleep(10)

    with Interrupts(ended.append), pytest.raises(Interrupted):
        work()
    assert (ended, len(sent)) == ([], lost)


def test_handlers_are_restored_and_other_errors_pass():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_an_interrupt_that_a_library_turns_into_its_own_error_is_one(number, capsys):
    def work():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ImportError("half a module") from None

    with pytest.raises(SystemExit) as end:
        run_command(work)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped by {signal.Signals(number).name}\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_the_command_unless_nohup_ignores_it(ignored, capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with nullcontext() if ignored else pytest.raises(SystemExit, match=str(128 + signal.SIGHUP)):
            run_command(lambda: signal.raise_signal(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert capsys.readouterr().err == ("" if ignored else "stopped by SIGHUP\n")


def test_an_interrupt_does_not_wait_for_threads_that_render():
    started, slow, rendered = threading.Event(), threading.Event(), []

    def work(part):
        if threading.current_thread() is threading.main_thread():
            started.wait(10)
            raise KeyboardInterrupt
        started.set()
        slow.wait(10)
        rendered.append(part)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Threads(2, "test").share(8, work)
    assert time.monotonic() - began < 5
    slow.set()
    soon(lambda: rendered)
    time.sleep(0.05)
    assert len(rendered) == 1


@pytest.mark.parametrize(
    ("number", "moment", "words"),
    [
        (signal.SIGINT, ("open", r"quickstart\.yaml$", 1), "stopped by SIGINT\n"),
        (
            signal.SIGTERM,
            ("open", r"run/\.?.*views\.png$", 1),
            "stopped by SIGTERM; continue with the same command, --run run and --resume\n",
        ),
        (
            signal.SIGINT,
            ("open", r"run/\.?.*report\.html$", 1),
            "stopped by SIGINT after training, which is complete; repeat the evaluation with the same command, --run run and "
            "--resume\n",
        ),
    ],
)
def test_a_signal_before_or_after_training_is_one_line_and_the_run_resumes(number, moment, words, tmp_path):
    stopped = ForkedCommand(tmp_path, TRAIN, moment, number)
    assert stopped.wait() == (128 + number, words)
    if "--resume" in words:
        resumed = ForkedCommand(tmp_path, [*TRAIN, "--resume"])
        assert resumed.wait() == (0, "")
        assert (tmp_path / "run" / "report.html").is_file()
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_pretrain_as_a_function_raises_keyboard_interrupt_and_releases_its_lock(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    changes = [*TINY, "training.steps=1"]
    with monkeypatch.context() as patch:
        patch.setattr("wildfern.launch.training_run.draw_views", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain("quickstart", changes, run=tmp_path / "run")
    assert not (tmp_path / "run" / "views.png").exists()
    pretrain("quickstart", changes, run=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "views.png").is_file()


@pytest.mark.skipif(os.name != "posix", reason="fork")
def test_a_forked_child_does_not_signal_its_parent(ended):
    with Interrupts(ended.append) as interrupts:
        if (child := os.fork()) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert interrupts.number is None
    assert ended == []


@pytest.mark.skipif(os.name != "posix", reason="fork")
def test_a_forked_child_has_pythons_own_hooks_and_ends_no_other_rank(monkeypatch):
    told = []
    monkeypatch.setattr("wildfern.launch.interrupts.at_end", [told.append])
    hooks = sys.excepthook, sys.unraisablehook
    with Interrupts(), StopRequest():
        if (child := os.fork()) == 0:
            handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
            right = handlers == [signal.SIG_DFL, signal.SIG_IGN] and (sys.excepthook, sys.unraisablehook) == hooks
            os._exit(0 if right and not interrupts.at_end else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (sys.excepthook, sys.unraisablehook) == hooks


@pytest.mark.parametrize(("place", "error"), [("socket.socketpair", OSError), ("threading.Thread.start", RuntimeError)])
def test_without_a_socket_or_thread_pythons_handlers_stay(place, error, monkeypatch):
    def none(*arguments):
        raise error(24, "Too many open files")

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(place, none)
        with Interrupts():
            assert signal.getsignal(signal.SIGINT) is before
    assert interrupts.current is None
