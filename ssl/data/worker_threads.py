"""Threads that read many files; an error or Ctrl-C ends them at once, whatever is left to read."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from wildfern.ssl.tracking.cpu_cores import usable_cores

T, R = TypeVar("T"), TypeVar("R")

_thread = threading.local()


class Dropped(Exception):
    """The result of this work is needed no more."""


def check_wanted() -> None:
    """Raise Dropped in a thread whose work is needed no more; functions that take long call it now and then."""
    ended = getattr(_thread, "ended", None)
    if ended is not None and ended.is_set():
        raise Dropped


@contextmanager
def worker_threads(name: str, threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, by default two for each usable core and at most 8.

    If an exception leaves the block, pending work is dropped, and running work ends at its next `check_wanted`.
    """
    ended = threading.Event()
    pool = ThreadPoolExecutor(threads or min(8, 2 * usable_cores()), name, lambda: setattr(_thread, "ended", ended))
    try:
        yield pool
    except BaseException:
        ended.set()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def in_threads(function: Callable[[T], R], items: Iterable[T], name: str) -> list[R]:
    """`function` of each item, in order."""
    with worker_threads(name) as pool:
        return list(pool.map(function, items))
