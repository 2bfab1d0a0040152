"""Signals of schedulers to several processes: all ranks stop with a checkpoint, and the run resumes exactly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from documented_launchers import started
from forked_runs import ForkedRun, same_bytes, uninterrupted_run
from small_runs import SHALLOW, TINY

import wildfern.launch.cluster
from wildfern.ssl.training.checksums import check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]
CHANGES = [*TINY, SHALLOW, "training.steps=40", "training.precision=fp32", "training.checkpoint_every=1000"]
SBATCH = Path(wildfern.launch.cluster.__file__).with_name("slurm.sbatch")


def lines_of(run):
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for_lines(run, count, started):
    """Wait until a running ForkedRun or process has logged this number of steps."""
    for _ in range(12_000):
        if lines_of(run) >= count:
            return
        assert started.alive if isinstance(started, ForkedRun) else started.poll() is None
        time.sleep(0.01)
    raise AssertionError(f"{lines_of(run)} steps in two minutes")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return uninterrupted_run(tmp_path_factory.mktemp("whole") / "run", CHANGES)


def test_a_signal_to_any_process_stops_all_with_a_checkpoint(whole, tmp_path):
    run, resume = tmp_path / "run", False
    for rank, number in ((1, signal.SIGUSR1), (0, signal.SIGTERM)):
        started = ForkedRun(run, CHANGES, resume, processes=2)
        wait_for_lines(run, lines_of(run) + 5, started)
        before = lines_of(run)
        os.kill(started.processes[rank].pid, number)
        assert started.wait() == 128 + number, started.output()
        assert started.processes[1].exitcode == 128 + number
        assert f"stopped by {signal.Signals(number).name} after step " in started.output()
        assert before <= lines_of(run) < 40
        assert (run / "checkpoints" / f"step_{lines_of(run):08d}" / "checkpoint.json").is_file()
        resume = True
    end = ForkedRun(run, CHANGES, True, processes=2)
    assert end.wait() == 0, end.output()
    same_bytes(run, whole)


def test_ctrl_c_under_a_launcher_is_one_line_of_rank_0(tmp_path):
    words = ["torchrun", "--nproc-per-node", "2", "-m", "wildfern.launch.pretrain", "--recipe", "quickstart", *CHANGES]
    words += ["training.checkpoint_every=3", "training.steps=4000", "engine.zero_stage=0", "--run-folder", "run"]
    run = tmp_path / "run"
    with started(words, tmp_path) as launched:
        until = time.monotonic() + 120
        while lines_of(run) < 5:
            assert all(process.is_alive() for process in launched.processes), launched.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.01)
        for process in launched.processes:
            os.kill(process.pid, signal.SIGINT)
    assert [process.exitcode for process in launched.processes] == [130, 130], launched.log.read_text()
    steps = lines_of(run)
    expected = f"stopped by SIGINT after step {steps}; continue with the same command, --run run and --resume"
    printed = launched.log.read_text()
    assert [line for line in printed.splitlines() if "stopped" in line] == [expected]
    assert "Traceback" not in printed
    check(run / "checkpoints" / f"step_{steps:08d}")


SRUN = """#!/bin/bash
# Two tasks on one node, with the environment of srun; forwards signals; exits with the highest code.
echo "$@" >>"$0.calls"
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_STEP_NODELIST=localhost SLURM_NODEID=0
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    pids[task]=$!
done
trap 'kill -USR1 "${pids[@]}"' USR1
highest=0
for pid in "${pids[@]}"; do
    while :; do
        wait "$pid"; code=$?
        kill -0 "$pid" 2>/dev/null || break
    done
    ((code > highest)) && highest=$code
done
exit "$highest"
"""


def test_a_slurm_job_requeues_itself_until_the_run_is_done(whole, tmp_path):
    """The included batch script, with substitutes for Slurm's commands."""
    commands, run = tmp_path / "bin", tmp_path / "run"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", '#!/bin/bash\necho "$@" >>"$0.calls"\n')):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "MASTER", "WORLD"))}
    environment |= {"PATH": f"{commands}:{environment['PATH']}", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    environment |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_PER_TASK": "1"}

    def submit():
        return subprocess.Popen(
            ["bash", str(SBATCH), "quickstart", str(run), *CHANGES],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    queued = commands / "scontrol.calls"
    job = submit()
    try:
        wait_for_lines(run, 5, job)
        job.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@120: only to the batch script
        printed, _ = job.communicate(timeout=120)
        assert job.returncode == 0, printed
        assert "stopped by SIGUSR1 after step " in printed
        assert queued.read_text() == f"requeue {environment['SLURM_JOB_ID']}\n"
        assert 5 <= lines_of(run) < 40
        job = submit()
        printed, _ = job.communicate(timeout=300)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == 0, printed
    assert "resumed from step " in printed
    assert len(queued.read_text().splitlines()) == 1  # a finished run is not requeued
    same_bytes(run, whole)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2), (75, 75)])
def test_a_finished_slurm_job_is_not_requeued(code, expected, tmp_path):
    for name, text in (
        ("srun", f"#!/bin/bash\nexit {code}\n"),
        ("scontrol", f"#!/bin/bash\ntouch {tmp_path}/queued\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    job = subprocess.run(["bash", str(SBATCH), "quickstart", "run"], env=environment, cwd=tmp_path, timeout=60)
    assert job.returncode == expected
    assert not (tmp_path / "queued").exists()
