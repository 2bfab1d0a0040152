"""`deepspeed … --module MODULE …` and `torchrun … -m MODULE …`: read by the launcher's own parser, run in forked processes."""

import os
import runpy
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from forked_runs import SURROUNDINGS, forked
from small_commands import COUNTS


@dataclass(frozen=True)
class Launched:
    """The processes of a command, and the file of what they print."""

    processes: list[BaseProcess]
    log: Path


def launch(words: list[str], folder: Path) -> tuple[list[int | None], str]:
    """Run the command in `folder`, in as many processes as it starts: their exit codes and output."""
    with started(words, folder) as launched:
        pass
    return [process.exitcode for process in launched.processes], launched.log.read_text()


@contextmanager
def started(words: list[str], folder: Path) -> Iterator[Launched]:
    """The command's processes; after the block they are waited for."""
    count = next((int(words[n + 1]) for n, word in enumerate(words) if word in COUNTS), 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{port}.log"
    log.write_text("")
    processes = []
    for rank in range(count):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        given = {name: str(value) for name, value in ranks.items()}
        processes.append(forked(_rank, words, count, given, folder, log))
    try:
        yield Launched(processes, log)
        for process in processes:
            process.join(120)
    finally:
        for process in processes:
            process.kill()


def _rank(words: list[str], count: int, ranks: dict[str, str], folder: Path, log: Path) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.update(SURROUNDINGS | ranks)
    module, arguments = _parsed(words, count)
    sys.argv = [module, *arguments]
    if arguments:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _parsed(words: list[str], count: int) -> tuple[str, list[str]]:
    """Module and arguments, as the launcher understands them."""
    if words[0] == "deepspeed":
        from deepspeed.launcher.runner import parse_args

        given = parse_args(words[1:])
        assert given.module, "without --module the launcher runs a file"
        assert max(given.num_gpus, 1) == count
        return given.user_script, given.user_args
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(words[1:])
    assert given.module
    assert int(given.nproc_per_node) == count
    assert not given.run_path
    return given.training_script, given.training_script_args
