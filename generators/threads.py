"""A thread pool in which the calling thread works too."""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Threads:
    """`count` threads including the calling one; the others start on first use, and again in a forked process."""

    def __init__(self, count: int, name: str) -> None:
        self.count, self.name = count, name
        self._start_anew()

    def share(self, parts: int, work: Callable[[int], None]) -> None:
        """Call work(part) for each of range(parts), in any order; after an error the others stop after their current part.

        They are waited for, except after KeyboardInterrupt and the like.
        """
        left = deque(range(parts))

        def take() -> None:
            while True:
                try:
                    part = left.popleft()
                except IndexError:
                    return
                try:
                    work(part)
                except BaseException:
                    left.clear()
                    raise

        others = [self._executor().submit(take) for _ in range(min(parts, self.count) - 1)]

        def wait() -> None:
            for other in others:
                # A thread that has not started yet has nothing left to do.
                if not other.cancel():
                    other.result()

        try:
            take()
        except Exception:
            wait()
            raise
        wait()

    def _start_anew(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        self._lock = threading.Lock()

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            # Threads do not survive a fork: a child process starts its own.
            if self._pool is None or self._process != os.getpid():
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix=f"wildfern-{self.name}")
                self._process = os.getpid()
            return self._pool

    def __getstate__(self) -> dict:
        return {"count": self.count, "name": self.name}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start_anew()
