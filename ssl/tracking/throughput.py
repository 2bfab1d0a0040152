"""Training speed: images per second since the last update, and the remaining time."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throughput:
    """Images per second between consecutive calls of `update`, without the time spent inside `untimed()`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()

    def update(self, images: int) -> float:
        """Images per second for `images` processed since the last call (or the start); NaN if no time has passed."""
        now = self._clock()
        elapsed, self._since = now - self._since, now
        return images / elapsed if elapsed > 0 else float("nan")

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Exclude the time of a block, such as an evaluation or a checkpoint, from the training speed."""
        begin = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - begin


class TimeLeft:
    """Remaining seconds, estimated from recent updates, evaluations and checkpoints included."""

    def __init__(self, total_steps: int, start_step: int, clock: Callable[[], float], looks: int = 50) -> None:
        self._total = total_steps
        self._clock = clock
        self._start = (clock(), start_step)
        self._looks: deque[tuple[float, int]] = deque(maxlen=looks)

    def update(self, done: int) -> float | None:
        """Remaining seconds after `done` steps; None if unknown yet."""
        self._looks.append((self._clock(), done))
        # The time before the first update includes compilation and warm-up: use it only until there is other data.
        begin, first = self._looks[0] if len(self._looks) > 1 else self._start
        if done <= first:
            return None
        return (self._looks[-1][0] - begin) / (done - first) * (self._total - done)

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start[0]
