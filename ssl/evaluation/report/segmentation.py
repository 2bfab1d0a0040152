"""Segmentations in the report: precision over recall of the pixels of all images, and what was found in some of them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from wildfern.ssl.evaluation.evaluator import SegmentationDetails
from wildfern.ssl.evaluation.metrics.pixel_ranking import CURVE_THRESHOLDS, precision_and_recall
from wildfern.ssl.evaluation.protocols.segmentation import FIXED
from wildfern.ssl.evaluation.report.images import is_small_jpeg
from wildfern.ssl.evaluation.report.parts import color, dot, escape, folded, percent, table
from wildfern.ssl.segmentation.overlay import FALSE_ALARM, FOUND, MISSED

MOST_BACKBONES = 8
OPEN = 2  # backbones whose table is shown at once
LISTED = (0.25, FIXED, 0.75)  # thresholds in the table
SIDE, LEFT, ABOVE, BELOW, RIGHT = 300, 48, 6, 40, 14  # pixels: the square, and the space around it
MEANING = {"found": FOUND, "missed": MISSED, "false alarm": FALSE_ALARM}


@dataclass(frozen=True)
class Point:
    """What one threshold makes of the pixels of all images."""

    threshold: float
    precision: float
    recall: float
    dice: float

    @property
    def words(self) -> str:
        return f"threshold {self.threshold:.2f}: precision {percent(self.precision)}, recall {percent(self.recall)}"


def segmentation_part(by_backbone: Mapping[str, SegmentationDetails]) -> str:
    """The curves of the backbones, and overlays of the first one; nothing without both."""
    shown = dict(list(by_backbone.items())[:MOST_BACKBONES])
    curve = _figure({name: one for name, one in shown.items() if one.counts[0, 0]})
    images = "".join(_overlays(name, one) for name, one in list(shown.items())[:1])
    return f"<div class=segmentation>{curve}{images}</div>" if curve or images else ""


def curve_points(details: SegmentationDetails) -> list[Point]:
    """The curve from the lowest threshold, without thresholds that no pixel reaches. ValueError without mask pixels."""
    precision, recall = precision_and_recall(details.counts)
    predicted = details.counts.sum(0)
    dice = 2 * details.counts[0] / (predicted + details.counts[0, 0])
    numbers = (one[predicted > 0].tolist() for one in (CURVE_THRESHOLDS, precision, recall, dice))
    return [Point(*found) for found in zip(*numbers, strict=True)]


def _figure(by_backbone: Mapping[str, SegmentationDetails]) -> str:
    if not by_backbone:
        return ""
    curves = {name: curve_points(one) for name, one in by_backbone.items()}
    chosen = {name: one.threshold for name, one in by_backbone.items() if one.threshold is not None}
    first = next(iter(by_backbone.values())).counts[:, 0]
    share = float(first[0] / first.sum())
    rows, marked, legend = [], [], ""
    for place, (name, points) in enumerate(curves.items()):
        shown = escape(name, 200)
        legend += f"<span>{dot(place)}{shown}</span>"
        best = point_at(points, chosen.get(name))
        listed = dict.fromkeys([*(point_at(points, threshold) for threshold in LISTED), best])
        for one in sorted(filter(None, listed), key=lambda one: one.threshold):
            which = " (chosen)" * (one == best)
            numbers = "".join(f"<td class=num>{percent(value)}</td>" for value in (one.precision, one.recall, one.dice))
            rows.append(f"<tr><th scope=row>{shown}</th><td>{one.threshold:.2f}{which}</td>{numbers}</tr>")
        fixed = point_at(points, FIXED)
        marked.append(f"{shown}, {fixed.words if fixed else f'nothing at threshold {FIXED}'}")
    diamond = " Diamond: at the threshold that was chosen without these images." * bool(chosen)
    said = (
        f"<p class=note-line>Circle: at the threshold {FIXED}.{diamond} Dashed: {percent(share)}, the share of mask pixels, is "
        "the precision of random pixels. All images are counted together, so that large ones weigh more than in a mean over "
        "images.</p>"
    )
    numbers = table(
        ("", "threshold", "precision", "recall", "Dice"), rows, numbers=3, caption="Precision and recall by threshold"
    )
    tables = folded("table", numbers, is_open=len(curves) <= OPEN)
    label = f"Precision over recall of all pixels. {'; '.join(marked)}"
    return (
        "<figure class=precision-recall><figcaption>Precision over recall of the pixels of all images</figcaption>"
        f"{_svg(curves, chosen, share, label)}<div><p class=legend>{legend}</p>{said}{tables}</div></figure>"
    )


def point_at(points: list[Point], threshold: float | None) -> Point | None:
    """The point of the `curve_points` at a threshold; None if no pixel reaches it."""
    place = len(points) if threshold is None else round(threshold * (len(CURVE_THRESHOLDS) - 1))
    return points[place] if place < len(points) else None


def _svg(curves: Mapping[str, list[Point]], chosen: Mapping[str, float], share: float, label: str) -> str:
    """A line for each backbone, the first one on top, over the grid and the share of mask pixels."""
    parts = [f'<rect x="{LEFT}" y="{ABOVE}" width="{SIDE}" height="{SIDE}" class=frame />']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _place(tick, tick)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y:g}" y2="{y:g}" class=grid />')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:g}" text-anchor=end>{100 * tick:.0f}</text>')
        parts.append(f'<text x="{x:g}" y="{ABOVE + SIDE + 16}" text-anchor=middle>{100 * tick:.0f}</text>')
    _, y = _place(0, share)
    parts.append(f'<line x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y:.1f}" y2="{y:.1f}" class=chance />')
    for number, (name, points) in reversed(list(enumerate(curves.items()))):
        places = dict.fromkeys("{:.1f},{:.1f}".format(*_place(one.recall, one.precision)) for one in points)
        parts.append(f'<polyline points="{" ".join(places)}" stroke="{color(number)}" />')
        if fixed := point_at(points, FIXED):
            x, y = _place(fixed.recall, fixed.precision)
            said = f"<title>{escape(name, 200)}, {fixed.words}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color(number)}">{said}</circle>')
        if best := point_at(points, chosen.get(name)):
            x, y = _place(best.recall, best.precision)
            said = f"<title>{escape(name, 200)}, chosen {best.words}</title>"
            corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
            parts.append(f'<polygon points="{corners}" fill="{color(number)}">{said}</polygon>')
    width, height = LEFT + SIDE + RIGHT, ABOVE + SIDE + BELOW
    middle = ABOVE + SIDE / 2
    parts.append(f'<text x="{LEFT + SIDE / 2:g}" y="{height - 6}" text-anchor=middle>recall in %</text>')
    parts.append(
        f'<text transform="rotate(-90 12 {middle:g})" x="12" y="{middle:g}" text-anchor=middle>precision in %</text>'
    )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role=img aria-label="{label}">{"".join(parts)}</svg>'


def _place(recall: float, precision: float) -> tuple[float, float]:
    return LEFT + recall * SIDE, ABOVE + (1 - precision) * SIDE


def _overlays(name: str, details: SegmentationDetails) -> str:
    """The images, which may be of a stranger, with what they mean."""
    tiles = []
    for item, dice, content in zip(details.items.tolist(), details.dice.tolist(), details.overlays, strict=True):
        if is_small_jpeg(content):
            said = f"Test image {item}: Dice {percent(dice)}"
            uri = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
            tiles.append(
                f'<li><img alt="{said}" src="{uri}"><span>Dice <b>{percent(dice)}</b><small>image {item}</small></span></li>'
            )
    if not tiles:
        return ""
    at = FIXED if details.threshold is None else f"{details.threshold:.2f}, the chosen threshold"
    colors = "".join(
        f'<span><i class=dot style="background: rgb{rgb}"></i>{meaning}</span>' for meaning, rgb in MEANING.items()
    )
    return (
        f"<h3>Test images segmented by {escape(name, 200)}</h3>"
        f"<p class=legend>{colors}<span>predicted: probability of at least {at}</span></p>"
        f"<ol class=overlays>{''.join(tiles)}</ol>"
    )
