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
        self._open: list[float] = []

    def append(self, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self._open.append(loss)
        if len(self._open) == self._stretch:
            self._means.append(math.fsum(self._open) / len(self._open))
            self._open = []
        if len(self._means) == self._limit:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._stretch *= 2

    def sparkline(self, width: int) -> str:
        """At most `width` characters, lowest loss `▁`, highest `█`; empty with fewer than two values."""
        means = self._means + ([math.fsum(self._open) / len(self._open)] if self._open else [])
        columns = min(width, len(means))
        if columns < 2:
            return ""
        edges = [column * len(means) // columns for column in range(columns + 1)]
        heights = [math.fsum(means[a:b]) / (b - a) for a, b in pairwise(edges)]
        low, span = min(heights), max(heights) - min(heights)
        return "".join(BLOCKS[round((h - low) / span * (len(BLOCKS) - 1)) if span > 0 else 0] for h in heights)
