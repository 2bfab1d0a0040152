"""The skeleton of a mask as a graph of segments, such as vessels, roots or cracks, with their lengths and widths."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from wildfern.ssl.segmentation.skeleton_table import EndKind, NodeKind, SkeletonGraph, SkeletonNode, SkeletonSegment

_FREE = -1


def skeleton_graph(
    mask: NDArray[np.bool_] | NDArray[np.integer], *, pixel_size: float = 1.0, shortest: float = 0.0
) -> SkeletonGraph:
    """The graph of the skeleton of a mask [H, W], bool or not 0 in the object. What is outside the image is no object.

    - pixel_size: the side of a pixel; lengths and widths are in its unit.
    - shortest: segments with a free end that are shorter are removed, once (spurs, and lines that are connected to nothing).

    The skeleton is Zhang & Suen's (1984), without pixels that connect nothing: corners of right angles become diagonal steps. A
    pixel with three or more of its eight neighbors is a branch pixel. Branch pixels side by side are one node, at the one of them
    nearest to their mean, and a hole that they alone surround is lost. A segment enters a node straight from the branch pixel
    that it reaches first. Two segments that meet where no other does are one.
    Raises ValueError for another shape or type, a `pixel_size` not above 0, and a `shortest` below 0.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "biu":
        raise ValueError(f"a mask is bool[H, W] or of integers, got {mask.dtype}{list(mask.shape)}")
    if not (pixel_size > 0 and math.isfinite(pixel_size)):
        raise ValueError(f"pixel_size is above 0, got {pixel_size}")
    if not shortest >= 0:
        raise ValueError(f"shortest is 0 or more, got {shortest}")
    padded = np.pad(mask != 0, 1)
    pixels = _skeleton_pixels(padded)
    if len(pixels) == 0:
        return SkeletonGraph([], [])
    places = np.stack(np.divmod(pixels, padded.shape[1]), axis=1)
    neighbors = _neighbors(pixels, padded)
    lines = _lines(neighbors, places)
    if shortest > 0:
        lengths = pixel_size * _lengths(lines, places)
        lines = [
            line
            for line, length in zip(lines, lengths, strict=True)
            if length >= shortest or line.closed or _FREE not in line.nodes
        ]
    lines = sorted((line.canonical() for line in _joined(lines, places)), key=lambda line: line.pixels)
    if not lines:
        return SkeletonGraph([], [])
    component = _labels(neighbors >= 0, neighbors)
    widths = 2 * _background_distances(padded, places) - 1
    return SkeletonGraph(_segments(lines, places - 1, widths, component, pixel_size), _nodes(lines, places - 1))


@dataclass
class _Line:
    """Numbers of skeleton pixels in order; the nodes at the first and last one (`_FREE`: none).

    At a node, the center comes before the branch pixel that the line reaches first, also if it is that one.
    """

    pixels: list[int]
    nodes: tuple[int, int]
    closed: bool = False  # the last pixel is the first one

    def reversed(self) -> "_Line":
        return _Line(self.pixels[::-1], self.nodes[::-1], self.closed)

    def canonical(self) -> "_Line":
        """Each pixel once in a row, the lesser ones first; a closed line from its least pixel on."""
        pixels = [pixel for pixel, _ in groupby(self.pixels)]
        if self.closed:
            first = pixels.index(min(pixels))
            pixels = [*pixels[first:-1], *pixels[: first + 1]]
        line = _Line(pixels, self.nodes, self.closed)
        return line.reversed() if pixels[::-1] < pixels else line


def _skeleton_pixels(padded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat positions of the pixels of the skeleton, ascending; without those that are no end and connect nothing.

    These are corners, between two of their four neighbors that are diagonal to each other, with nothing on the other side; and
    pixels whose only two neighbors are side by side. Those of one kind are removed together, as their neighbors stay.
    """
    skeleton = skeletonize(padded).reshape(-1)
    pixels = np.flatnonzero(skeleton)
    width = padded.shape[1]
    around = np.array([-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width])  # clockwise
    before = -1
    while len(pixels) != before:
        before = len(pixels)
        for a, b in ((-width, 1), (1, width), (width, -1), (-1, -width)):
            corner = skeleton[pixels + a] & skeleton[pixels + b]
            corner &= ~(skeleton[pixels - a] | skeleton[pixels - b] | skeleton[pixels - a - b])
            skeleton[pixels[corner]] = False
            pixels = pixels[~corner]
        set_around = skeleton[pixels[:, None] + around]
        beside = (set_around.sum(axis=1) == 2) & (set_around & np.roll(set_around, 1, axis=1)).any(axis=1)
        skeleton[pixels[beside]] = False
        pixels = pixels[~beside]
    return pixels


def _neighbors(pixels: NDArray[np.int64], padded: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The numbers of each pixel's eight neighbors among the pixels, int32[n, 8]; -1 where there is none."""
    number = np.full(padded.size, -1, np.int32)
    number[pixels] = np.arange(len(pixels), dtype=np.int32)
    around = [row * padded.shape[1] + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
    return number[pixels[:, None] + np.array(around)]


def _labels(edges: NDArray[np.bool_], neighbors: NDArray[np.int32]) -> NDArray[np.int32]:
    """The connected component of each pixel by those of the edges to its neighbors that are True."""
    n = len(neighbors)
    start, side = np.nonzero(edges)
    return connected_components(coo_array((np.ones(len(start), bool), (start, neighbors[start, side])), (n, n)))[1]


def _lines(neighbors: NDArray[np.int32], places: NDArray[np.int64]) -> list[_Line]:
    """All lines between branch pixels, free ends included, from center to center of their nodes."""
    branch = (neighbors >= 0).sum(axis=1) >= 3
    cluster = _labels((neighbors >= 0) & branch[:, None] & branch[neighbors], neighbors)
    center = _centers(np.flatnonzero(branch), cluster, places)
    node = np.where(branch, cluster, _FREE).tolist()
    lines = []
    for pixels in _walks(neighbors, branch):
        closed = len(pixels) > 1 and pixels[0] == pixels[-1] and node[pixels[0]] == _FREE
        nodes = node[pixels[0]], node[pixels[-1]]
        if nodes[0] != _FREE:
            pixels.insert(0, center[nodes[0]])
        if nodes[1] != _FREE:
            pixels.append(center[nodes[1]])
        lines.append(_Line(pixels, nodes, closed))
    alone = center.keys() - set(chain.from_iterable(line.nodes for line in lines))
    return lines + [_Line([center[cluster]], (_FREE, _FREE)) for cluster in alone]


def _centers(branch_pixels: NDArray[np.int64], cluster: NDArray[np.int32], places: NDArray[np.int64]) -> dict[int, int]:
    """By cluster of branch pixels, that nearest to their mean; of several, the first."""
    counts = np.bincount(cluster)
    sums = np.stack([np.bincount(cluster, place) for place in places.T], axis=1)
    own = cluster[branch_pixels]
    # Multiplied by the count, so that equal distances are equal numbers.
    away = np.square(counts[own, None] * places[branch_pixels] - sums[own]).sum(axis=1)
    order = np.lexsort((branch_pixels, away, own))
    clusters, first = np.unique(own[order], return_index=True)
    return dict(zip(clusters.tolist(), branch_pixels[order[first]].tolist(), strict=True))


def _walks(neighbors: NDArray[np.int32], branch: NDArray[np.bool_]) -> list[list[int]]:
    """The pixels that are no branch pixels, line by line; with the branch pixels that a line reaches at its ends."""
    two = np.sort(neighbors, axis=1)[:, :-3:-1]  # all neighbors of such a pixel; -1 comes last
    stops = ((two < 0) | branch[two]).any(axis=1) & ~branch
    a, b = two.T.tolist()
    stop = [*branch.tolist(), True]  # also for -1
    seen = branch.tolist()
    walks = []
    for first in [*np.flatnonzero(stops).tolist(), *np.flatnonzero(~stops & ~branch).tolist()]:
        if seen[first]:
            continue
        before, here = (b[first] if stop[b[first]] else a[first]), first
        walk = [before] if stop[before] and before >= 0 else []
        while not (stop[here] or seen[here]):
            walk.append(here)
            seen[here] = True
            before, here = here, a[here] if b[here] == before else b[here]
        walks.append([*walk, here] if here >= 0 else walk)
    return walks


def _joined(lines: list[_Line], places: NDArray[np.int64]) -> list[_Line]:
    """The lines with those made one that meet where no other does; a node with one line is a free end."""
    present: dict[int, _Line] = dict(enumerate(lines))
    at: dict[int, list[int]] = defaultdict(list)  # lines by node, twice one that starts and ends there
    for index, line in present.items():
        for node in line.nodes:
            if node != _FREE:
                at[node].append(index)
    for node, indices in at.items():
        if len(indices) > 2:
            continue
        line = present[indices[0]]
        if len(indices) == 1:
            start, end = (_FREE if each == node else each for each in line.nodes)
            present[indices[0]] = _Line(line.pixels, (start, end))
        elif indices[0] == indices[1]:
            between = _between(line.pixels[-2], line.pixels[1], line.pixels[0], places)
            present[indices[0]] = _Line([*line.pixels[1:-1], *between[1:]], (_FREE, _FREE), closed=True)
        else:
            other = present.pop(indices[1])
            line = line if line.nodes[1] == node else line.reversed()
            other = other if other.nodes[0] == node else other.reversed()
            between = _between(line.pixels[-2], other.pixels[1], other.pixels[0], places)
            pixels = [*line.pixels[:-2], *between, *other.pixels[2:]]
            present[indices[0]] = _Line(pixels, (line.nodes[0], other.nodes[1]))
            far = at.get(other.nodes[1], [])
            far[:] = [indices[0] if index == indices[1] else index for index in far]
    return list(present.values())


def _between(last: int, first: int, center: int, places: NDArray[np.int64]) -> list[int]:
    """The pixels from `last` to `first`, through the center of a node unless they are one, or side by side."""
    if last == first:
        return [last]
    return [last, first] if np.abs(places[last] - places[first]).max() <= 1 else [last, center, first]


def _starts(lines: list[_Line]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(line.pixels) for line in lines[:-1])])


def _lengths(lines: list[_Line], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """In pixels."""
    if not lines:
        return np.zeros(0)
    along = places[list(chain.from_iterable(line.pixels for line in lines))]
    steps = np.hypot(*np.diff(along, axis=0, prepend=along[:1]).T)
    steps[_starts(lines)] = 0  # from line to line
    return np.add.reduceat(steps, _starts(lines))


def _background_distances(padded: NDArray[np.bool_], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """From the center of each place to that of the nearest pixel outside the mask, in pixels.

    The nearest one always has a pixel of the mask beside it. A tree of those takes a fifth of the time of a distance transform.
    """
    edge = np.zeros_like(padded)
    edge[1:] |= padded[:-1]
    edge[:-1] |= padded[1:]
    edge[:, 1:] |= padded[:, :-1]
    edge[:, :-1] |= padded[:, 1:]
    return KDTree(np.argwhere(edge & ~padded)).query(places)[0]


def _segments(
    lines: list[_Line],
    places: NDArray[np.int64],
    widths: NDArray[np.float64],
    component: NDArray[np.int32],
    pixel_size: float,
) -> list[SkeletonSegment]:
    lengths = pixel_size * _lengths(lines, places)
    components = 1 + np.unique(component[[line.pixels[0] for line in lines]], return_inverse=True)[1]
    inner = [line.pixels[line.nodes[0] != _FREE : len(line.pixels) - (line.nodes[1] != _FREE)] for line in lines]
    inner_starts = np.cumsum([0, *map(len, inner[:-1])])
    along = pixel_size * widths[list(chain.from_iterable(inner))]
    mean = np.add.reduceat(along, inner_starts) / [len(pixels) for pixels in inner]
    least, most = np.minimum.reduceat(along, inner_starts), np.maximum.reduceat(along, inner_starts)
    segments = []
    for i, line in enumerate(lines):
        points = places[line.pixels].astype(np.int32)
        start, end = _place(points[0]), _place(points[-1])
        kinds: tuple[EndKind, EndKind] = (
            ("loop", "loop") if line.closed else (_kind(line.nodes[0]), _kind(line.nodes[1]))
        )
        length, chord = float(lengths[i]), pixel_size * math.dist(start, end)
        tortuosity = length / chord if chord else math.nan
        numbers = length, chord, tortuosity, float(mean[i]), float(least[i]), float(most[i])
        segments.append(SkeletonSegment(i + 1, int(components[i]), start, end, *kinds, *numbers, points))
    return segments


def _nodes(lines: list[_Line], places: NDArray[np.int64]) -> list[SkeletonNode]:
    ends = [(line.pixels[-side], line.nodes[side]) for line in lines if not line.closed for side in (0, 1)]
    isolated = {line.pixels[0] for line in lines if len(line.pixels) == 1}
    degrees = Counter((pixel, _kind(node)) for pixel, node in ends)
    return [
        SkeletonNode(_place(places[pixel]), kind, 0 if pixel in isolated else degree)
        for (pixel, kind), degree in sorted(degrees.items())
    ]


def _kind(node: int) -> NodeKind:
    return "end" if node == _FREE else "branch"


def _place(pair: NDArray) -> tuple[int, int]:
    return int(pair[0]), int(pair[1])
