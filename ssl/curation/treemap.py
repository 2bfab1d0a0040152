"""A treemap of clusters: nested rectangles whose areas are the numbers of images (Bruls, Huizing & van Wijk, 2000).

A level is laid out for the whole canvas and shown alone, with images of each cluster in its rectangle; a click enlarges one. So
do the zoomable treemaps of images of DendroMap (Bertucci et al., 2022).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wildfern.ssl.evaluation.report.thumbnails import Thumbnail

ASPECT = 1.5  # width by height of the canvas
DECIMALS = 5  # of a fraction of the canvas: 0.02 pixels

Rectangle = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True)
class ClusterTile:
    """A cluster of `size` images, some of them to show, and the clusters it splits into; the label may be of strangers."""

    size: int
    label: str
    thumbnails: Sequence[Thumbnail] = ()
    children: Sequence["ClusterTile"] = ()


def squarify(sizes: Sequence[float], width: float, height: float) -> list[Rectangle]:
    """A rectangle for each size, in the order given: areas proportional to sizes, together width x height, near to squares.

    Rows along the shorter side of what is free, each as long as it makes its worst aspect ratio better (Bruls et al., 2000,
    section 3). Raises ValueError for a size that is not positive.
    """
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise ValueError("sizes of a treemap must be positive numbers")
    if not sizes:
        return []
    scale = width * height / sum(sizes)
    rectangles: list[Rectangle] = [(0.0, 0.0, width, height)] * len(sizes)
    free: Rectangle = (0.0, 0.0, width, height)
    row: list[int] = []
    areas: list[float] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        side, longer = min(free[2:]), [*areas, scale * sizes[place]]
        if row and _worst(longer, side) > _worst(areas, side):
            free = _lay(row, areas, free, rectangles)
            row, longer = [], longer[-1:]
        row, areas = [*row, place], longer
    _lay(row, areas, free, rectangles)
    return rectangles


def treemap(clusters: Sequence[ClusterTile]) -> tuple[list[dict[str, Any]], list[str]]:
    """The clusters for JSON, and the data URIs of their images, each once.

    A cluster is {size, label, box, thumbnails, children}: `box` is left, top, width and height as fractions of a canvas of aspect
    ratio `ASPECT`, which children fill as a whole; `thumbnails` are places in the list of URIs.
    """
    places: dict[str, int] = {}
    return _level(clusters, places), list(places)


def _level(clusters: Sequence[ClusterTile], places: dict[str, int]) -> list[dict[str, Any]]:
    boxes = squarify([cluster.size for cluster in clusters], ASPECT, 1.0)
    return [
        {
            "size": cluster.size,
            "label": cluster.label,
            "box": [round(value, DECIMALS) for value in (left / ASPECT, top, width / ASPECT, height)],
            "thumbnails": [places.setdefault(image.uri, len(places)) for image in cluster.thumbnails],
            "children": _level(cluster.children, places),
        }
        for cluster, (left, top, width, height) in zip(clusters, boxes, strict=True)
    ]


def _worst(areas: Sequence[float], side: float) -> float:
    """The largest aspect ratio in a row of these areas, largest first, along `side`: `worst` of Bruls et al."""
    total = sum(areas)
    return max(side**2 * areas[0] / total**2, total**2 / (side**2 * areas[-1]))


def _lay(row: Sequence[int], areas: Sequence[float], free: Rectangle, rectangles: list[Rectangle]) -> Rectangle:
    """Set the rectangles of a row along the shorter side of what is free; returns what remains free."""
    left, top, width, height = free
    total, done = sum(areas), 0.0
    thickness = total / min(width, height)
    for place, area in zip(row, areas, strict=True):
        start, length = done / total, area / total
        if width >= height:
            rectangles[place] = left, top + start * height, thickness, length * height
        else:
            rectangles[place] = left + start * width, top, length * width, thickness
        done += area
    if width >= height:
        return left + thickness, top, width - thickness, height
    return left, top + thickness, width, height - thickness
