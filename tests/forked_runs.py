"""Training in separate processes, forked from one that has imported everything, so that they start quickly."""

import multiprocessing
import os
import pickle
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

from wildfern.ssl.training.checksums import check, write_manifest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["forked_imports"])
SURROUNDINGS = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
# An audit event of Python, a pattern in the path it is about, and the how-manieth of its kind.
Moment = tuple[str, str, int]


class ForkedRun:
    """`wildfern pretrain quickstart …` in `processes` processes (DeepSpeed from two on), `output()` what they print.

    `die_at`: rank 0 kills itself just before this file operation, for example in the middle of saving.
    `first_on_path`: a folder to put first on the import path, by rank.
    `prepare`: a function to call before the run, by rank; one of a module, to be found by the other process.
    """

    def __init__(
        self,
        run: Path,
        changes: list[str],
        resume: bool = False,
        processes: int = 1,
        die_at: Moment | None = None,
        first_on_path: dict[int, Path] | None = None,
        prepare: dict[int, Callable[[], object]] | None = None,
    ):
        self.log = run.with_name(f"{run.name}.log")
        self.log.write_text("")
        self.processes = []
        for rank in range(processes):
            first = (first_on_path or {}).get(rank)
            before = (prepare or {}).get(rank)
            arguments = (
                run,
                changes,
                resume,
                self.log,
                _ranks(rank, processes),
                None if rank else die_at,
                first,
                before,
            )
            self.processes.append(forked(_train, *arguments))

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        self.wait()

    def wait(self, seconds: float = 120) -> int:
        """The exit code of the first process, minus the signal's number if that ended it."""
        for process in self.processes:
            process.join(seconds)
            assert process.exitcode is not None, f"still running after {seconds} s:\n{self.output()}"
        return self.processes[0].exitcode

    def output(self) -> str:
        return self.log.read_text()


def forked(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """A started process that calls the function. It has everything imported that training needs, and sees no GPU."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    with patch.dict(os.environ, {**SURROUNDINGS, "PYTHONPATH": path}):
        forkserver.ensure_running()  # finds forked_imports.py by PYTHONPATH
    process = FORKS.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def hold_lock(run: Path, ready: Event) -> None:
    """Hold the lock of a run folder, as another process, until killed."""
    from wildfern.launch.cluster.run_lock import lock

    with lock(run):
        ready.set()
        time.sleep(600)


class RunsCode:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def hostile_pickle(run: Path, marker: Path) -> None:
    """Replace every file of the run's newest checkpoint by a pickle that would create `marker`, with valid checksums."""
    newest = max((run / "checkpoints").glob("step_*"))
    facts = check(newest)
    names = ["torch_engine.pt", "teachers.pt", *(path.name for path in newest.glob("training*.safetensors"))]
    for name in names:
        (newest / name).write_bytes(pickle.dumps(RunsCode(marker)))
    (newest / "checkpoint.json").unlink()
    write_manifest(newest, facts)


_port = 0


def _ranks(rank: int, processes: int) -> dict[str, str]:
    global _port
    if processes == 1:
        return {}
    if rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            _port = free.getsockname()[1]
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port}
    return {name: str(value) for name, value in here.items()}


def _train(
    run: Path,
    changes: list[str],
    resume: bool,
    log: Path,
    ranks: dict[str, str],
    die_at: Moment | None,
    first_on_path: Path | None,
    prepare: Callable[[], object] | None,
) -> None:
    os.setsid()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(SURROUNDINGS | ranks)
    if first_on_path is not None:
        sys.path.insert(0, str(first_on_path))
    if die_at is not None:
        _die_at(*die_at)
    if prepare is not None:
        prepare()
    from wildfern.launch.exit_codes import explained
    from wildfern.launch.training_run import pretrain

    engine = ["engine.name=deepspeed"] if ranks else []
    try:
        pretrain("quickstart", [*changes, *engine], run=run, resume=resume)
    except Exception as error:
        code, message = explained(error)
        if code is None:
            raise
        print(message, flush=True)
        sys.exit(code)


def _die_at(event: str, path: str, number: int) -> None:
    left = number

    def hook(what: str, arguments: tuple) -> None:
        nonlocal left
        if what == event and re.search(path, str(arguments[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def uninterrupted_run(run: Path, changes: list[str], processes: int = 2) -> Path:
    """The folder of a run that nothing disturbs, to compare others with."""
    started = ForkedRun(run, changes, processes=processes)
    assert started.wait() == 0, started.output()
    return run


def same_bytes(run: Path, whole: Path) -> None:
    """Assert that two runs have the same metrics and the same backbone, to the byte."""
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
