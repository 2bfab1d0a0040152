"""Batches prefetched by background threads, returned in order."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Loader(Generic[T]):
    """Iterates over `read(start) … read(stop - 1)`, in order, computed by `threads` threads (0: by `next()` itself).

    At most threads + prefetch steps are running or ready at a time. An exception of `read(step)` is raised by the `next()` of
    that step and ends the loader. Use as a context manager, or call `close()`: pending steps are dropped, running ones are
    waited for. `wait_seconds` is the time of the last `next()`, `total_wait_seconds` that of all of them.
    """

    def __init__(self, read: Callable[[int], T], start: int, stop: int, threads: int, prefetch: int = 2) -> None:
        if threads < 0 or prefetch < 0:
            raise ValueError(f"threads {threads} and prefetch {prefetch} must be 0 or more")
        self._read = read
        self._next_step, self._next_queued, self._stop = start, start, max(start, stop)
        self._ahead = threads + prefetch
        self._pool = ThreadPoolExecutor(threads, "loader") if threads else None
        self._queue: deque[Future[T]] = deque()
        self.wait_seconds = 0.0
        self.total_wait_seconds = 0.0

    def __len__(self) -> int:
        """Remaining steps."""
        return self._stop - self._next_step

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._next_step >= self._stop:
            self.close()
            raise StopIteration
        began = time.perf_counter()
        try:
            if self._pool is None:
                result = self._read(self._next_step)
            else:
                self._fill()
                result = self._queue.popleft().result()
                self._fill(taken=1)
        except BaseException as error:
            error.add_note(f"while reading the data of step {self._next_step}")
            self.close()
            raise
        self._next_step += 1
        self.wait_seconds = time.perf_counter() - began
        self.total_wait_seconds += self.wait_seconds
        return result

    def _fill(self, taken: int = 0) -> None:
        limit = min(self._stop, self._next_step + taken + self._ahead)
        while self._next_queued < limit:
            self._queue.append(self._pool.submit(self._read, self._next_queued))
            self._next_queued += 1

    def close(self) -> None:
        """Drop pending steps and wait for running ones; the iteration ends."""
        self._stop = self._next_step
        self._queue.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Loader[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
