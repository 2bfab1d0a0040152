"""A killed or stopped process ends the run within a time limit, is named, and the run resumes exactly."""

import os
import signal
import socket
import sys
import time
from functools import partial

import pytest
from forked_runs import ForkedRun, same_bytes
from heartbeats import fail_after
from small_runs import SHALLOW, TINY

from wildfern.launch.cluster.heartbeat import LOST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]
SILENCE = 12.0  # half of the timeout of collectives
CHANGES = [*TINY, SHALLOW, "training.steps=70", "training.precision=fp32", "training.checkpoint_every=5"]
CHANGES += [f"engine={{name: deepspeed, timeout_minutes: {SILENCE / 30}}}"]
HOST = socket.gethostname()


def lines_of(run):
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def in_the_middle(run, resume):
    """Two processes that train and have written a new checkpoint."""
    saved = set((run / "checkpoints").glob("step_*"))
    started = ForkedRun(run, CHANGES, resume, processes=2)
    for _ in range(12_000):
        if set((run / "checkpoints").glob("step_*")) - saved and "step " in started.output():
            return started
        assert started.alive, started.output()
        time.sleep(0.01)
    raise AssertionError(started.output())


def seconds_until_it_ends(process):
    began = time.monotonic()
    process.join(120)
    return time.monotonic() - began


def test_a_killed_or_stopped_rank_is_named_and_the_run_resumes(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    left_alone = ForkedRun(whole, CHANGES, processes=2)

    for resume, (victim, witness) in enumerate([(1, 0), (0, 1)]):  # rank 0 is the server of the heartbeat
        started = in_the_middle(run, bool(resume))
        os.kill(started.processes[victim].pid, signal.SIGKILL)
        assert seconds_until_it_ends(started.processes[witness]) < SILENCE
        assert started.processes[witness].exitcode == LOST, started.output()
        expected = f"rank {victim} on host {HOST} is gone: its connection closed (killed, or crashed). The run stops; "
        assert expected in started.output()
        assert "Traceback" not in started.output()

    started = in_the_middle(run, True)
    stopped, other = started.processes[1], started.processes[0]
    os.kill(stopped.pid, signal.SIGSTOP)
    assert seconds_until_it_ends(other) < 2 * SILENCE + 10
    assert other.exitcode == LOST, started.output()
    assert f"rank 1 on host {HOST}: no heartbeat for 12 s (stopped, or cut off from the network)" in started.output()
    assert stopped.is_alive()
    os.kill(stopped.pid, signal.SIGCONT)  # when continued, it learns that the others have exited
    assert seconds_until_it_ends(stopped) < SILENCE
    assert stopped.exitcode == LOST

    for rank in (0, 1):  # the thread of the heartbeat fails, not the process
        failing = ForkedRun(run, CHANGES, True, processes=2, prepare={rank: partial(fail_after, 3)})
        assert failing.wait() == LOST, failing.output()
        assert failing.processes[1].exitcode == LOST
        expected = (
            f"the heartbeat of rank {rank} on host {HOST} ended: ValueError: broken on purpose; a checkpoint was saved"
        )
        assert failing.output().count(expected) == 2
        assert "lost" not in failing.output()
        assert "is gone" not in failing.output()
        assert "Traceback" not in failing.output()

    assert left_alone.wait() == 0, left_alone.output()
    assert lines_of(run) < 70
    end = ForkedRun(run, CHANGES, True, processes=2)
    assert end.wait() == 0, end.output()
    assert "damaged" not in end.output()
    same_bytes(run, whole)


def test_missing_processes_are_reported(tmp_path):
    started = ForkedRun(tmp_path / "run", [*CHANGES, "engine.timeout_minutes=0.05"], processes=2)
    started.processes[1].kill()
    assert started.wait() == 2, started.output()
    printed = started.output()
    assert f"rank 0 on host {HOST} could not connect to all 2 processes at 127.0.0.1 port " in printed
    assert "within 0.05 minutes: start the command on every host" in printed
    assert "Traceback" not in printed
