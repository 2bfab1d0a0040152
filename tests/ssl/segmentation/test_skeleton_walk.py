"""Skeleton graphs of random masks, against a plain depth-first walk written from their definition."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from wildfern.ssl.segmentation.skeleton_graph import skeleton_graph


def around(pixel, pixels):
    row, column = pixel
    return [
        (row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i or j) and (row + i, column + j) in pixels
    ]


def beside(a, b):
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1


def thinned(mask):
    pixels, before = {*map(tuple, np.argwhere(skeletonize(mask)).tolist())}, None
    while before != len(pixels):
        before = len(pixels)
        for (i, j), (k, l) in (((-1, 0), (0, 1)), ((0, 1), (1, 0)), ((1, 0), (0, -1)), ((0, -1), (-1, 0))):
            pixels -= {
                (r, c)
                for r, c in pixels
                if {(r + i, c + j), (r + k, c + l)} <= pixels
                and not {(r - i, c - j), (r - k, c - l), (r - i - k, c - j - l)} & pixels
            }
        pairs = {pixel: around(pixel, pixels) for pixel in pixels}
        pixels -= {pixel for pixel, pair in pairs.items() if len(pair) == 2 and beside(*pair)}
    return pixels


def pieces_of(pixels):
    """Sets of pixels that are connected, by depth-first search."""
    left = set(pixels)
    while left:
        stack, piece = [left.pop()], set()
        while stack:
            piece.add(pixel := stack.pop())
            for other in around(pixel, left):
                left.remove(other)
                stack.append(other)
        yield piece


def walked(mask, shortest=0.0):
    """Points, start and end kind of all segments, as a sorted list."""
    pixels = thinned(mask)
    branch = {pixel for pixel in pixels if len(around(pixel, pixels)) >= 3}
    center, ports = {}, {}
    for piece in pieces_of(branch):
        mean = [sum(values) / len(piece) for values in zip(*piece, strict=True)]
        middle = min(piece, key=lambda pixel: (round(math.dist(pixel, mean), 9), pixel))
        center |= dict.fromkeys(piece, middle)
        ports[middle] = []
    kept, found = set(), []
    used = set()
    for piece in pieces_of(pixels - branch):
        exits = [(there, here) for here in piece for there in around(here, branch)]
        used |= {center[there] for there, _ in exits}
        steps = sum(math.dist(a, b) for a in piece for b in around(a, piece)) / 2
        length = steps + sum(math.dist(there, here) + math.dist(there, center[there]) for there, here in exits)
        closed = all(len(around(pixel, piece)) == 2 for pixel in piece)
        if closed or len(exits) == 2 or length >= shortest:
            kept |= piece
            for there, here in exits:
                ports[center[there]].append((there, here))
    found += [([middle], "end", "end") for middle in ports.keys() - used if shortest == 0]
    seen = set()

    def follow(points, before, here):
        """Append to `points` until the next node; returns what it is."""
        while here not in seen:
            seen.add(here)
            points.append(here)
            onward = [pixel for pixel in around(here, pixels) if pixel != before]
            if not onward:
                return "end"
            before, here = here, onward[0]
            if here in branch:
                middle = center[here]
                points.append(here)
                others = [port for port in ports[middle] if port != (here, before)]
                if len(others) != 1:
                    points += [middle] * (middle != here)
                    return "branch" if others else "end"
                there = others[0][0]
                if not beside(here, there) and middle not in (here, there):
                    points.append(middle)
                points += [there] * (there != here)
                before, here = others[0]
        points += [points[0]] * (points[0] != points[-1])
        return "loop"

    for kind, chosen in (
        ("branch", [middle for middle in ports if len(ports[middle]) > 2]),
        ("end", [middle for middle in ports if len(ports[middle]) == 1]),
    ):
        for middle in chosen:
            for there, here in ports[middle]:
                if here not in seen:
                    points = [middle, there] if there != middle else [middle]
                    end = follow(points, there, here)
                    found.append((points, kind, end))
    for pixel in sorted(kept, key=lambda pixel: (len(around(pixel, pixels)) > 1, pixel)):
        if pixel not in seen:
            points = []
            end = follow(points, None, pixel)
            found.append((points, "loop" if end == "loop" else "end", end))
    return sorted(map(canonical, found))


def canonical(segment):
    points, start, end = segment
    if start == "loop":
        first = points.index(min(points))
        points = points[first:-1] + points[: first + 1]
    return min((points, start, end), (points[::-1], end, start), key=lambda one: one[0])


def random_masks(n):
    """Noise and blobs, dense and sparse, down to one pixel."""
    rng = np.random.default_rng(11)
    for index in range(n):
        shape = rng.integers(1, 30, 2)
        noise = rng.random(shape)
        if index % 3:
            noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 2.5))
        yield noise > np.quantile(noise, rng.uniform(0.1, 0.95))


@pytest.mark.parametrize("shortest", [0.0, 2.5, 6.0])
def test_random_masks_are_walked_like_a_depth_first_search(shortest):
    compared = 0
    for mask in random_masks(300):
        graph = skeleton_graph(mask, shortest=shortest)
        expected = walked(mask, shortest)
        found = [([*map(tuple, s.points.tolist())], s.start_kind, s.end_kind) for s in graph.segments]
        assert found == expected
        for segment, (points, *_) in zip(graph.segments, expected, strict=True):
            length = sum(math.dist(a, b) for a, b in pairwise(points))
            assert segment.length == pytest.approx(length)
            assert segment.chord == pytest.approx(math.dist(points[0], points[-1]))
            compared += 1
        assert graph.total_length == pytest.approx(sum(segment.length for segment in graph.segments))
    assert compared > 500


def test_random_masks_keep_their_topology():
    """Objects are components, and holes are cycles, but for those that only branch pixels surround (Euler's formula)."""
    for mask in random_masks(300):
        graph = skeleton_graph(mask)
        assert graph.components == ndimage.label(mask, np.ones((3, 3)))[1]
        pixels = thinned(mask)
        branch = np.zeros(np.add(mask.shape, 2), bool)
        for row, column in pixels:
            branch[row + 1, column + 1] = len(around((row, column), pixels)) >= 3
        holes = ndimage.label(~np.pad(mask, 1))[1] - ndimage.label(~branch)[1]
        edges = sum(len(segment.points) > 1 for segment in graph.segments)
        loops = sum(segment.start_kind == "loop" for segment in graph.segments)
        assert edges - (len(graph.nodes) + loops) + graph.components == holes


def test_nodes_are_the_ends_of_the_segments():
    for mask in random_masks(100):
        graph = skeleton_graph(mask)
        degrees = {}
        for segment in graph.segments:
            if segment.start_kind != "loop":
                for end in ((segment.start, segment.start_kind), (segment.end, segment.end_kind)):
                    degrees[end] = degrees.get(end, 0) + (len(segment.points) > 1)
        assert {(node.position, node.kind): node.degree for node in graph.nodes} == degrees
        assert all(node.degree >= 3 if node.kind == "branch" else node.degree <= 1 for node in graph.nodes)
        assert len(graph.nodes) == graph.branch_points + graph.end_points
        together = {}
        for segment in graph.segments:
            for place in (segment.start, segment.end):
                assert together.setdefault(place, segment.component) == segment.component
        assert {*together.values()} == set(range(1, graph.components + 1))
