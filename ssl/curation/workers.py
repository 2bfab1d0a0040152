"""Functions of many tasks in several processes, or in threads of this one; results come in order."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.data.worker_threads import worker_threads

_AHEAD = 4  # tasks that wait, for each process
_THREADS = 2


class Run(Protocol):
    """The results of `function(*arguments)` for each of the tasks, in order; a few of them are computed ahead."""

    def __call__(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]: ...


@contextmanager
def workers(processes: int) -> Iterator[Run]:
    """Yields what runs tasks in `processes` processes, or for 1 in two threads of this process (decoders release the GIL).

    Processes are started anew ("spawn"), so that a script that asks for several needs the usual `if __name__ == "__main__":`.
    Raises CurationError if one of them ends.
    """
    several = processes > 1
    pool: Any = (
        ProcessPoolExecutor(processes, get_context("spawn"), _begin) if several else worker_threads("curate", _THREADS)
    )
    with warnings.catch_warnings(), threadpool_limits(1, "blas"), pool as executor:
        _ignore_warnings()
        try:
            yield lambda function, tasks: _in_order(executor, function, iter(tasks), _AHEAD * max(_THREADS, processes))
        except BrokenProcessPool as error:
            raise CurationError(
                "a process that reads images ended: it was killed, or a decoder crashed. What was measured so far is kept: run "
                "the same again, with --processes 1 if memory is short"
            ) from error
        except BaseException:
            if several:
                executor.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """In each process: Ctrl-C reaches all processes of a terminal, and the main one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()
    # Products of a few thousand numbers: threads of BLAS only wait for each other, and take the cores of the other processes.
    import numpy  # noqa: F401

    threadpool_limits(1, "blas")
    _ignore_warnings()


def _end_with_main_process() -> None:
    """A main process that is killed ends none, and they would wait for its next task forever."""
    if (main := parent_process()) is not None:
        wait([main.sentinel])
        os._exit(1)


def _ignore_warnings() -> None:
    """Pillow warns of each damaged block of metadata, without the name of the file."""
    warnings.filterwarnings("ignore", module="PIL")


def _in_order(
    executor: Executor, function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]], ahead: int
) -> Iterator[Any]:
    waiting = [executor.submit(function, *task) for task in islice(tasks, ahead)]
    while waiting:
        result = waiting.pop(0).result()
        waiting.extend(executor.submit(function, *task) for task in islice(tasks, 1))
        yield result
