"""Reliability diagram: accuracy over confidence (Guo et al., ICML 2017, figure 1), as inline SVG with a table of its numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.metrics.classification_scores import wilson_interval
from wildfern.ssl.evaluation.report.parts import color, folded, percent, table

BINS = 15  # of equal width, as for the expected calibration error
SIDE, LEFT, BELOW, COUNTS = 300, 34, 34, 46  # pixels: the square, the space for its axes, and that of the histogram


@dataclass(frozen=True)
class Bin:
    """Images with a confidence in (low, low + 1 / BINS]: their number, mean confidence, and how many are right."""

    low: float
    n: int
    confidence: float
    right: int


def confidence_bins(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[Bin]:
    """The bins that have images. Confidences outside of [0, 1] are counted at the nearest end."""
    found = confidence.astype(np.float64).clip(0, 1)
    # Stored in half precision: a confidence at the edge of two bins belongs to the lower one.
    place = np.clip(np.ceil(found * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums, hits = np.bincount(place, found, BINS), np.bincount(place, right, BINS).astype(int)
    return [Bin(i / BINS, int(counts[i]), sums[i] / counts[i], int(hits[i])) for i in range(BINS) if counts[i]]


def reliability_diagram(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> str:
    """The diagram, its expected calibration error in words, and its numbers; nothing without images."""
    bins = confidence_bins(confidence, right)
    if not bins:
        return ""
    n = sum(one.n for one in bins)
    error = sum(abs(one.right - one.n * one.confidence) for one in bins) / n
    accuracy, mean = sum(one.right for one in bins) / n, sum(one.n * one.confidence for one in bins) / n
    kind = f"{'overconfident' if mean > accuracy else 'underconfident'} by {percent(abs(mean - accuracy))}"
    kind = kind if round(abs(mean - accuracy), 3) else "the same"
    said = (
        f"Mean confidence {percent(mean)}, accuracy {percent(accuracy)}: {kind}. Expected calibration error "
        f"{percent(error)} ({BINS} bins). Points above the diagonal are right more often than they claim."
    )
    rows = []
    for one in bins:
        low, high = wilson_interval(one.right, one.n)
        rows.append(
            f"<tr><td>{one.low:.2f} to {one.low + 1 / BINS:.2f}</td><td class=num>{one.n:,}</td>"
            f"<td class=num>{percent(one.confidence)}</td><td class=num>{percent(one.right / one.n)}"
            f"<small>{100 * low:.1f} to {100 * high:.1f}</small></td></tr>"
        )
    numbers = table(("confidence", "images", "mean", "accuracy"), rows, numbers=3, caption="Accuracy by confidence")
    return f"<figure class=reliability>{_svg(bins, said)}<figcaption>{said}</figcaption>{folded('table', numbers)}</figure>"


def _svg(bins: list[Bin], said: str) -> str:
    """Points with Wilson intervals over the diagonal, and below it how many images each bin has."""
    parts = [f'<rect x="{LEFT}" y="4" width="{SIDE}" height="{SIDE}" class=frame />']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + tick * SIDE, 4 + (1 - tick) * SIDE
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y}" y2="{y}" class=grid />')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4}" text-anchor=end>{100 * tick:.0f}</text>')
        parts.append(f'<text x="{x}" y="{SIDE + COUNTS + 18}" text-anchor=middle>{100 * tick:.0f}</text>')
    parts.append(f'<line x1="{LEFT}" y1="{4 + SIDE}" x2="{LEFT + SIDE}" y2="4" class=diagonal />')
    most = max(one.n for one in bins)
    for one in bins:
        low, high = wilson_interval(one.right, one.n)
        x, accuracy = LEFT + one.confidence * SIDE, one.right / one.n
        top, bottom, y = (4 + (1 - share) * SIDE for share in (high, low, accuracy))
        height = (COUNTS - 10) * one.n / most
        words = f"<title>{one.n:,} images: confidence {percent(one.confidence)}, accuracy {percent(accuracy)}</title>"
        parts.append(
            f'<g>{words}<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class=interval />'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color(0)}" />'
            f'<rect x="{LEFT + one.low * SIDE + 1:.1f}" width="{SIDE / BINS - 2:.1f}" y="{SIDE + COUNTS - height:.1f}" '
            f'height="{height:.1f}" class=count /></g>'
        )
    width, height = LEFT + SIDE + 12, SIDE + COUNTS + BELOW + 4
    parts.append(f'<text x="{LEFT + SIDE / 2}" y="{height - 4}" text-anchor=middle>confidence in %</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role=img aria-label="Accuracy over confidence. {said}">'
        f"{''.join(parts)}</svg>"
    )
