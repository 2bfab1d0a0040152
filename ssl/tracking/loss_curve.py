"""The loss of a whole run in one line of block characters."""

import math
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"


class LossCurve:
    """Means over equal intervals of a run of any length, in bounded memory; non-finite values are left out."""

    def __init__(self, stretches: int = 128) -> None:
        self._limit = stretches
        self._stretch = 1  # values in one mean
        self._means: list[float] = []
        self._open, self._count = 0.0, 0  # sum and number of the values of the next mean

    def append(self, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self._open, self._count = self._open + loss, self._count + 1
        if self._count == self._stretch:
            self._means.append(self._open / self._count)
            self._open, self._count = 0.0, 0
        if len(self._means) == self._limit:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._stretch *= 2

    def sparkline(self, width: int) -> str:
        """At most `width` characters, lowest loss `▁`, highest `█`; empty with fewer than two values."""
        means = self._means + ([self._open / self._count] if self._count else [])
        columns = min(width, len(means))
        if columns < 2:
            return ""
        edges = [column * len(means) // columns for column in range(columns + 1)]
        heights = [math.fsum(means[a:b]) / (b - a) for a, b in pairwise(edges)]
        low, span = min(heights), max(heights) - min(heights)
        return "".join(BLOCKS[round((h - low) / span * (len(BLOCKS) - 1)) if span > 0 else 0] for h in heights)
