"""A series of any length in bounded memory: means over equal intervals, the extremes, and exact figures of all values."""

import statistics
from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_OTHERS = 5  # points besides the means of whole intervals: the mean of the last interval, the ends, the extremes


@dataclass(frozen=True)
class Figures:
    """What `Series.median` and `Series.total` are for all values of a series; the former of some thousand at equal intervals."""

    median: float
    total: float


@dataclass
class Series:
    """The finite values of one key over the steps, in order.

    With `figures` there were too many of them: first, last, lowest and highest are as they were, the others are means over equal
    numbers of neighboring ones, at their mean step.
    """

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    figures: Figures | None = None

    def median(self) -> float:
        return statistics.median(self.values) if self.figures is None else self.figures.median

    def total(self) -> float:
        """The sum over all steps: the value of a logged step stands for those since the last one."""
        if self.figures is not None:
            return self.figures.total
        spans = np.diff(self.steps, prepend=-1.0)
        return sum((np.array(self.values) * spans).tolist())


class Downsampling:
    """Makes a `Series` of fewer than `most` points (`most` ≥ 10) of the values of one key.

    Append them to `steps` and `values`, and call `settle` now and then, which empties both but for the last point. As long as
    all fit, a later value for the same step replaces the earlier one, and points are sorted by step. Of more values, one
    replaces another only if it follows directly; of others for the same step, which no run writes, both count.
    """

    def __init__(self, most: int) -> None:
        self._most = (most - _OTHERS) // 2 * 2
        self.steps, self.values = array("d"), array("d")
        self._intervals = np.empty((3, 0))  # mean step, mean value and last value of each
        self._rest = np.empty((2, 0))  # steps and values of the next interval
        self._size = 1  # values in an interval
        self._in_order = True
        # Points that stay as they are, (step, value) each; the extremes are of those after the first.
        self._first = self._last = self._lowest = self._highest = (0.0, 0.0)
        self._total = 0.0

    def series(self) -> Series:
        """The series; call it once, after the last value."""
        self.settle(0)
        if self._rest.size:
            self._note(self._rest)
            self._append(np.vstack([self._rest.mean(1, keepdims=True), self._rest[1:, -1:]]))
        self._sort()
        steps, values, sampled = self._intervals.tolist()
        if self._size == 1:
            return Series(steps, values)
        points = dict(zip(steps, values, strict=True))
        points |= (self._first, self._lowest, self._highest, self._last)
        steps = sorted(points)
        return Series(steps, [points[step] for step in steps], Figures(statistics.median(sampled), self._total))

    def settle(self, waiting: int = 1) -> None:
        """Put the points into intervals, except the last one if `waiting` is 1: the next may be of the same step."""
        steps = np.array(self.steps)
        replaced = np.append(steps[1:] == steps[:-1], False)[: len(steps)]
        new = np.array([steps, self.values])[:, ~replaced]
        end = new.shape[1] - waiting
        self.steps, self.values = array("d", new[0, end:]), array("d", new[1, end:])
        self._rest = np.hstack([self._rest, new[:, :end]])
        while True:
            count = min(self._rest.shape[1] // self._size, self._most - self._intervals.shape[1])
            new, self._rest = np.split(self._rest, [count * self._size], axis=1)
            if self._size > 1 and count:
                self._note(new)
            parts = new.reshape(2, count, self._size)
            self._append(np.vstack([parts.mean(2), parts[1:, :, -1]]))
            if self._intervals.shape[1] < self._most:
                return
            self._sort()
            if self._intervals.shape[1] == self._most:
                self._double()

    def _append(self, intervals: NDArray[np.float64]) -> None:
        steps = np.r_[self._intervals[0, -1:], intervals[0]]
        self._in_order = self._in_order and bool((np.diff(steps) > 0).all())
        self._intervals = np.hstack([self._intervals, intervals])

    def _sort(self) -> None:
        """Sort the intervals by step; of equal steps the later one stays."""
        if not self._in_order:
            _, places = np.unique(self._intervals[0, ::-1], return_index=True)
            self._intervals, self._in_order = self._intervals[:, ::-1][:, places], True

    def _double(self) -> None:
        """Make one interval of each two neighboring ones, of which there is an even number."""
        if self._size == 1:
            points = self._intervals[:2]
            self._first = self._last = _point(points, 0)
            self._lowest = self._highest = _point(points, 1)
            self._total = (self._first[0] + 1) * self._first[1]
            self._note(points[:, 1:])
        first, second = self._intervals[:, ::2], self._intervals[:, 1::2]
        self._intervals = np.vstack([(first[:2] + second[:2]) / 2, second[2:]])
        self._size *= 2

    def _note(self, new: NDArray[np.float64]) -> None:
        """Take points after the first one, float64[2, N], into what is known of all."""
        steps, values = new
        self._total += float((values * np.diff(np.maximum.accumulate(np.r_[self._last[0], steps]))).sum())
        if steps.max() >= self._last[0]:
            self._last = _point(new, steps.argmax())
        if values.min() < self._lowest[1]:
            self._lowest = _point(new, values.argmin())
        if values.max() > self._highest[1]:
            self._highest = _point(new, values.argmax())


def _point(points: NDArray[np.float64], place: np.intp | int) -> tuple[float, float]:
    return float(points[0, place]), float(points[1, place])
