"""Two hosts, simulated by network namespaces whose link is cut during training; and torchrun on one host."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_runs import ForkedRun, same_bytes, uninterrupted_run
from small_runs import SHALLOW, TINY

from wildfern.launch.cluster.heartbeat import LOST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]
SILENCE = 12.0
CHANGES = [*TINY, SHALLOW, "training.steps=40", "training.precision=fp32", "training.checkpoint_every=5"]
CHANGES += [f"engine={{name: deepspeed, timeout_minutes: {SILENCE / 30}}}"]
ADDRESSES = ("10.213.71.1", "10.213.71.2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return uninterrupted_run(tmp_path_factory.mktemp("whole") / "run", CHANGES)


def environment():
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "MASTER", "WORLD"))}
    path = f"{Path(sys.executable).parent}:{bare['PATH']}"
    return bare | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def begin(command, log, cwd):
    """Start in a new session, since killing only the launcher would leave its workers running."""
    with log.open("w") as file:
        return subprocess.Popen(
            command, cwd=cwd, env=environment(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def end_all(processes):
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


class Cable:
    """Two network namespaces, `hosts`, joined by a virtual link, with different host names."""

    def __init__(self):
        self.hosts = [f"wildfern{os.getpid()}{side}" for side in "ab"]
        self.ends = [f"wf{os.getpid() % 10**7}{side}" for side in "ab"]
        for host in self.hosts:
            ip("netns", "add", host)
        ip("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1])
        for host, end, address in zip(self.hosts, self.ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", host)
            ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                ip("-n", host, "link", "set", device, "up")
        subprocess.run(self.on(0, ["true"]), check=True, capture_output=True, timeout=30)

    def on(self, number, command):
        """The command line that runs `command` on host `number`."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.hosts[number]} && exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.hosts[number], *named, *command]

    def cut(self):
        ip("-n", self.hosts[1], "link", "set", self.ends[1], "down")

    def remove(self):
        for host in self.hosts:  # the link is removed with them
            subprocess.run(["ip", "netns", "delete", host], capture_output=True, timeout=30)


@pytest.fixture
def cable():
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the commands ip (iproute2) and unshare")
    made = Cable.__new__(Cable)
    try:
        try:
            made.__init__()
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
        yield made
    finally:
        made.remove()


def launch(cable, run):
    """Run the documented command on both hosts; returns their processes and output."""
    hostfile = run.with_name("hosts")
    hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    logs = [run.with_name(f"{run.name}-{number}.log") for number in range(2)]
    processes = []
    for number, log in enumerate(logs):
        command = [
            "env",
            f"GLOO_SOCKET_IFNAME={cable.ends[number]}",
            "deepspeed",
            "--hostfile",
            str(hostfile),
            "--no_ssh",
        ]
        command += ["--node_rank", str(number), "--master_addr", ADDRESSES[0], "--master_port", "29500"]
        command += ["--module", "wildfern.launch.pretrain", "--recipe", "quickstart", *CHANGES, "--run", str(run)]
        processes.append(begin(cable.on(number, command), log, run.parent))
    return processes, logs


def wait_for_checkpoints(run, processes, logs):
    for _ in range(18_000):
        if list((run / "checkpoints").glob("step_*")):
            return
        assert all(process.poll() is None for process in processes), [log.read_text() for log in logs]
        time.sleep(0.01)
    raise AssertionError([log.read_text() for log in logs])


def test_a_cut_link_ends_both_hosts_with_a_message_and_the_run_resumes(cable, whole, tmp_path):
    run = tmp_path / "run"
    processes, logs = launch(cable, run)
    try:
        wait_for_checkpoints(run, processes, logs)
        cable.cut()
        cut = time.monotonic()
        codes = [process.wait(120) for process in processes]
        took = time.monotonic() - cut
        printed = [log.read_text() for log in logs]
        assert took < 2 * SILENCE + 15, printed  # the launcher polls its processes once a second
        assert codes == [LOST, LOST], printed
        for number, text in enumerate(printed):
            other = 1 - number
            who = rf"rank {other} on host {cable.hosts[other]}(: no heartbeat for 12 s| is gone: its connection broke)"
            assert re.search(who, text), text
            assert "continue with the same command and --resume" in text
        assert len((run / "metrics.jsonl").read_text().splitlines()) < 40
    finally:
        end_all(processes)
    again = ForkedRun(run, CHANGES, resume=True, processes=2)
    assert again.wait() == 0, again.output()
    assert "resumed from step " in again.output()
    same_bytes(run, whole)


def test_torchrun_starts_the_same_training(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command += ["-m", "wildfern.launch.pretrain", "--recipe", "quickstart", *CHANGES]
    command += ["--run-folder", str(tmp_path / "run")]  # torchrun parses --run itself
    process = begin(command, tmp_path / "log", tmp_path)
    try:
        code = process.wait(300)
    finally:
        end_all([process])
    assert code == 0, (tmp_path / "log").read_text()
    same_bytes(tmp_path / "run", whole)
