"""Line charts as inline SVG with the colors of the page, light or dark."""

import io
import re
from collections.abc import Sequence

import numpy as np

from wildfern.ssl.evaluation.series import Series

# Placeholder colors for matplotlib, and the page's colors that replace them.
INK, GRID = "#010203", "#040506"
RUNS = tuple(f"#0708{number:02x}" for number in range(1, 9))
PAGE_COLORS = {INK: "currentColor", GRID: "var(--line)"} | {
    color: f"var(--run-{number})" for number, color in enumerate(RUNS, start=1)
}
POINTS = 600

# Inches at 9 points: the width of a digit, the height of a line of text, and the space around the axes.
CHARACTER, LINE, PAD = 0.08, 0.18, 0.09


def line_chart(
    series: Sequence[Series | None],
    label: str,
    *,
    width: float = 5.2,
    height: float = 2.6,
    smooth: bool = False,
    percent: bool = False,
) -> str:
    """SVG of one key over the steps, a line for each run (None: a run without it), colored `--run-1`, `--run-2` …

    Long series are averaged down to 600 points; `smooth` draws them faint under their running mean.
    """
    import matplotlib  # a quarter of a second
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": GRID,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height))
        axes = figure.add_subplot()
        for number, one in enumerate(series):
            if one is None or not one.values:
                continue
            steps, values = _averaged(one, POINTS)
            color = RUNS[number % len(RUNS)]
            marker = "o" if len(values) == 1 else None
            if smooth and len(values) > 30:
                axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
                values = _running_mean(values, len(values) // 20)
            axes.plot(steps, values, color=color, linewidth=1.7, marker=marker, markersize=4)
        axes.set_xlabel("step", color=INK)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        numbers = axes.yaxis.get_major_formatter()
        longest = max(map(len, numbers.format_ticks(axes.yaxis.get_majorticklocs())))
        above = PAD + (LINE if numbers.get_offset() else 0.0)  # a power of ten
        figure.subplots_adjust(  # a layout engine would draw everything twice
            left=(longest * CHARACTER + PAD) / width,
            right=1 - PAD / width,
            bottom=(2 * LINE + PAD) / height,
            top=1 - above / height,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    for stand_in, color in PAGE_COLORS.items():
        svg = svg.replace(stand_in, color)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        lambda found: f'<svg viewBox="{found[1]}" role="img" aria-label="{label}">',  # a label may have backslashes
        svg,
        count=1,
    )


def _averaged(series: Series, points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` means of neighboring entries."""
    steps, values = np.asarray(series.steps), np.asarray(series.values)
    bins = -(-len(values) // points)
    starts = np.arange(0, len(values), bins)
    counts = np.diff(np.r_[starts, len(values)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Mean over the entries up to `reach` away, symmetrically, so that the ends are not biased."""
    total = np.r_[0.0, np.cumsum(values)]
    place = np.arange(len(values))
    reaches = np.minimum(reach, np.minimum(place, len(values) - 1 - place))
    low, high = place - reaches, place + reaches + 1
    return (total[high] - total[low]) / (high - low)
