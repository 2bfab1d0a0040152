"""One process at a time in a run folder; a dead one does not block it."""

import os
import socket
import time

import pytest
from forked_runs import FORKS, ForkedRun, forked, hold_lock
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.errors import RunError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no such locks on Windows")


def test_the_error_names_the_process_that_holds_the_lock(tmp_path):
    with lock(tmp_path):
        for _ in range(2):
            with (
                pytest.raises(RunError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"),
                lock(tmp_path),
            ):
                pass
    with lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == ""


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_the_lock_ends_with_a_killed_process(tmp_path):
    ready = FORKS.Event()
    process = forked(hold_lock, tmp_path, ready)
    assert ready.wait(60)
    with pytest.raises(RunError, match=f"process {process.pid} on"), lock(tmp_path):
        pass
    process.kill()
    process.join(60)
    with lock(tmp_path):
        pass


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    import fcntl

    def refuse(handle, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"), lock(tmp_path):
        pass


@pytest.mark.slow
def test_a_running_run_is_not_disturbed(tmp_path):
    run = tmp_path / "run"
    changes = [*TINY, "training.steps=100000", "training.checkpoint_every=2"]
    first = ForkedRun(run, changes)
    for _ in range(60_000):
        if not first.alive or list((run / "checkpoints").glob("step_*")):
            break
        time.sleep(0.001)
    for resume in (True, False):
        with pytest.raises(RunError, match=rf"in use by process {first.processes[0].pid} on|already holds a run"):
            pretrain("quickstart", changes, run=run, resume=resume)
    assert first.alive, first.output()
    first.kill()
    step = max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*"))
    pretrain("quickstart", [*TINY, f"training.steps={step + 2}", "training.checkpoint_every=2"], run=run, resume=True)
