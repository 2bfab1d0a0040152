"""How fast a run goes: images a second since the last look, and the time that is left."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throughput:
    """Images a second between one `update` and the next, without the time spent inside `untimed()`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()

    def update(self, images: int) -> float:
        """`images` were done since the last call (or the start); NaN when no time has passed."""
        now = self._clock()
        elapsed, self._since = now - self._since, now
        return images / elapsed if elapsed > 0 else float("nan")

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Evaluation, checkpoints and the like, which are no part of the training speed."""
        begin = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - begin


class TimeLeft:
    """Seconds to the last step, from the pace of the most recent looks, evaluations and checkpoints included."""

    def __init__(self, total_steps: int, start_step: int, clock: Callable[[], float], looks: int = 50) -> None:
        self._total = total_steps
        self._clock = clock
        self._start = (clock(), start_step)
        self._looks: deque[tuple[float, int]] = deque(maxlen=looks)

    def update(self, done: int) -> float | None:
        """`done` steps are behind us; None where nothing can be said yet."""
        self._looks.append((self._clock(), done))
        # The time before the first look holds compilation and warm-up: it counts only as long as there is nothing else.
        begin, first = self._looks[0] if len(self._looks) > 1 else self._start
        if done <= first:
            return None
        return (self._looks[-1][0] - begin) / (done - first) * (self._total - done)

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start[0]
