"""The runs of a series in forked processes, which need not import torch again."""

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import BinaryIO

from forked_runs import forked


class _Handle:
    """A file handle that is passed on to a process of the fork server."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        return _detached, (DupFd(self.number),)


def _detached(handle) -> int:
    return handle.detach()


class ForkedChild:
    """What `series_processes.start` returns."""

    def __init__(self, arguments: Sequence[str], gpu: str | None, out: BinaryIO | None, err: int) -> None:
        handles = _Handle(err), None if out is None else _Handle(out.fileno())
        self.process = forked(_run, list(arguments), gpu, os.getcwd(), *handles)
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("wildfern", timeout)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()


def _run(arguments: list[str], gpu: str | None, folder: str, err: int, out: int | None) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY) if out is None else out, 1)
    for handle in (err, out):
        if handle is not None:
            os.close(handle)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    sys.argv = ["wildfern", *arguments]
    from wildfern.launch import command

    command.main()
