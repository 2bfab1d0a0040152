"""The time from the command to the first step."""

import subprocess
import sys
import time

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.ssl.data import Mixture
from wildfern.ssl.methods import SimCLR
from wildfern.ssl.tracking import read_records


@pytest.mark.skipif(sys.platform != "linux", reason="the start time of a process is known on Linux only")
def test_start_time_of_a_process():
    program = "import time; time.sleep(0.5); from wildfern.launch.startup import process_start; print(process_start())"
    before = time.perf_counter()  # one clock for all processes of a Linux machine
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert before - 0.05 <= float(run.stdout) <= time.perf_counter() - 0.5


def test_startup_seconds_are_logged_first(wildfern, tmp_path):
    before = time.perf_counter()
    run = wildfern("pretrain", "quickstart", *TINY, "training.steps=2", "--run", "run", process=True)
    took = time.perf_counter() - before
    assert run.returncode == 0, run.stderr
    first = read_records(tmp_path / "run" / "timings.jsonl")[0]
    assert first.keys() == {"step", "startup_seconds"}
    assert 0.1 < first["startup_seconds"] < took
    assert f"first step after {first['startup_seconds']:.1f} s" in run.stdout
    assert "GiB" in run.stdout
    assert "/step" in run.stdout
    assert "trained 2 steps in 0:" in run.stdout
    metrics = read_records(tmp_path / "run" / "metrics.jsonl")
    assert not {"startup_seconds", "step_seconds"} & {key for record in metrics for key in record}


@pytest.mark.parametrize(("slowed", "waits"), [("data", True), ("model", False)])
def test_data_wait_is_logged(slowed, waits, tmp_path, monkeypatch):
    """With a slow source training waits for data, with a slow model it does not."""
    read, forward = Mixture.read, SimCLR.forward

    def late(work):
        def slow(*arguments):
            time.sleep(1.0)
            return work(*arguments)

        return slow

    if slowed == "data":
        monkeypatch.setattr(Mixture, "read", late(read))
    else:
        monkeypatch.setattr(SimCLR, "forward", late(forward))
    run = pretrain("quickstart", [*TINY, "training.steps=5", "training.loader_threads=1"], run=tmp_path / "run")
    shares = [row["data_wait"] for row in read_records(run / "timings.jsonl") if "data_wait" in row]
    assert len(shares) == 5
    assert (shares[-1] > 0.5) == waits
