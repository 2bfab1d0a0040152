"""Line charts: a figure with its numbers for the script that draws it, and a table of them for readers of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.report.parts import color, dot, escape, folded, json_script, percent, shown, table
from wildfern.ssl.evaluation.report.series import Series

POINTS = 600  # of a line
MOST_POINTS = 60_000  # of all lines of a chart's section
SMOOTHED = 30  # points; fewer are drawn as they are


@dataclass(frozen=True)
class Line:
    """A series with its name; `index` chooses its color."""

    name: str
    index: int
    series: Series


@dataclass(frozen=True)
class Chart:
    """Lines over `x`. `percent`: values are shares. `smooth`: long lines are drawn faint under their running mean.

    `warm_up`: the first point of each line is not counted for the range of the axis. `note` stands under the heading.
    """

    heading: str
    lines: Sequence[Line]
    x: str = "step"
    percent: bool = False
    smooth: bool = False
    warm_up: bool = False
    small: bool = False
    note: str = ""


def chart_figure(chart: Chart, points: int = POINTS) -> str:
    """The figure, as HTML; each line has at most `points` points, means of neighboring ones. Nothing without lines."""
    lines = [line for line in chart.lines if line.series.values]
    if not lines:
        return ""
    drawn = [_drawn(chart, line, points) for line in lines]
    values = [value for line in lines for value in _counted(chart, line.series.values)]
    data = {
        "x": chart.x,
        "percent": chart.percent,
        "small": chart.small,
        "low": _rounded(min(values)),
        "high": _rounded(max(values)),
        "lines": drawn,
    }
    heading = escape(chart.heading)
    note = f"<small>{escape(chart.note)}</small>" * bool(chart.note)
    label = f"{heading} over {escape(chart.x)}: {'; '.join(_words(chart, line) for line in lines)}"
    return (
        f"<figure class=chart><figcaption>{heading}<output aria-live=off></output>{note}</figcaption>"
        f'<div class=plot role=img tabindex=0 aria-label="{label}"></div>{json_script(data)}'
        f"{folded('table', _table(chart, lines))}</figure>"
    )


def _counted(chart: Chart, values: Sequence[float]) -> Sequence[float]:
    """The values that the axis shows."""
    return values[1:] if chart.warm_up and len(values) > 2 else values


def _drawn(chart: Chart, line: Line, points: int) -> dict[str, Any]:
    steps, values = _averaged(line.series, points)
    found = {"name": shown(line.name, 200), "color": color(line.index), "x": _numbers(steps), "y": _numbers(values)}
    if chart.smooth and len(values) > SMOOTHED:
        first = 1 if chart.warm_up else 0
        mean = _numbers(_running_mean(values[first:], len(values) // 20))
        found["mean"] = [None] * first + mean
    return found


def _words(chart: Chart, line: Line) -> str:
    """What a line does, for those who hear it."""
    first, last = line.series.values[0], line.series.values[-1]
    return f"{escape(line.name, 200)} from {_value(chart, first)} to {_value(chart, last)}"


def _table(chart: Chart, lines: Sequence[Line]) -> str:
    """First, lowest, highest and last value of each line, with the step."""
    rows = []
    for line in lines:
        steps, values = line.series.steps, line.series.values
        places = (0, int(np.argmin(values)), int(np.argmax(values)), len(values) - 1)
        cells = "".join(
            f"<td class=num>{_value(chart, values[place])}<small>{escape(chart.x)} {steps[place]:,.0f}</small></td>"
            for place in places
        )
        rows.append(f"<tr><th scope=row>{dot(line.index)}{escape(line.name, 200)}</th>{cells}</tr>")
    return table(
        ("", "first", "lowest", "highest", "last"), rows, numbers=4, caption=f"{escape(chart.heading)}, in numbers"
    )


def _value(chart: Chart, value: float) -> str:
    return percent(value) if chart.percent else f"{value:.4g}"


def _numbers(values: NDArray[np.float64]) -> list[float]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float:
    """Short in JSON; steps up to a million stay exact."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")


def _averaged(series: Series, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `points` means of neighboring entries."""
    steps, values = np.asarray(series.steps, np.float64), np.asarray(series.values, np.float64)
    bins = -(-len(values) // points)
    starts = np.arange(0, len(values), bins)
    counts = np.diff(np.r_[starts, len(values)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over the entries up to `reach` away, symmetrically, so that the ends are not biased."""
    total = np.r_[0.0, np.cumsum(values)]
    place = np.arange(len(values))
    reaches = np.minimum(reach, np.minimum(place, len(values) - 1 - place))
    low, high = place - reaches, place + reaches + 1
    return (total[high] - total[low]) / (high - low)
