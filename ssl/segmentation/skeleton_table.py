"""What the graph of a skeleton says: its nodes, its segments, and a row of a table for each of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NodeKind = Literal["end", "branch"]
EndKind = Literal[NodeKind, "loop"]

COLUMNS = (
    "number",
    "component",
    "start_row",
    "start_column",
    "end_row",
    "end_column",
    "start_kind",
    "end_kind",
    "length",
    "chord",
    "tortuosity",
    "mean_width",
    "min_width",
    "max_width",
)  # of `SkeletonGraph.rows`


@dataclass(frozen=True, slots=True)
class SkeletonNode:
    """A free end or a branch point of a skeleton.

    - position: row and column of its pixel; of several branch pixels side by side, that nearest to their mean.
    - degree: the number of segment ends here: 3 or more at a branch point, 1 at a free end, 0 for an isolated pixel.
    """

    position: tuple[int, int]
    kind: NodeKind
    degree: int


@dataclass(frozen=True, slots=True, eq=False)
class SkeletonSegment:
    """A line of a skeleton from node to node, or a closed line without any node.

    - number, component: from 1; segments of one component are connected.
    - start, end: row and column, those of the nodes; start comes first in the order of rows. A closed line starts and ends at
      the first of its pixels, and both kinds are "loop".
    - points: int32[n, 2], rows and columns from start to end.
    - length: along the points, diagonal steps √2; chord: from start to end. Both in the unit of the pixel size.
    - tortuosity: length / chord; NaN where the chord is 0 (a closed line, one from a node to itself, an isolated pixel).
    - mean_width, min_width, max_width: over the points but those at branch points, in the unit of the pixel size. The width at a
      point is 2 d − 1 pixels, d the distance between the centers of its pixel and of the nearest one outside the mask.
    """

    number: int
    component: int
    start: tuple[int, int]
    end: tuple[int, int]
    start_kind: EndKind
    end_kind: EndKind
    length: float
    chord: float
    tortuosity: float
    mean_width: float
    min_width: float
    max_width: float
    points: NDArray[np.int32]

    def row(self) -> tuple[object, ...]:
        """What it is, but for its points, in the order of `COLUMNS`."""
        kinds = (self.start_kind, self.end_kind)
        sizes = (self.length, self.chord, self.tortuosity, self.mean_width, self.min_width, self.max_width)
        return (self.number, self.component, *self.start, *self.end, *kinds, *sizes)


@dataclass(frozen=True, eq=False)
class SkeletonGraph:
    """Segments in the order of their points, and nodes in that of their positions."""

    segments: list[SkeletonSegment]
    nodes: list[SkeletonNode]

    @property
    def total_length(self) -> float:
        return sum(segment.length for segment in self.segments)

    @property
    def branch_points(self) -> int:
        return sum(node.kind == "branch" for node in self.nodes)

    @property
    def end_points(self) -> int:
        return sum(node.kind == "end" for node in self.nodes)

    @property
    def components(self) -> int:
        return len({segment.component for segment in self.segments})

    def rows(self) -> list[dict[str, object]]:
        """A row for each segment, all with the columns `COLUMNS`: what it is, but for its points."""
        return [dict(zip(COLUMNS, segment.row(), strict=True)) for segment in self.segments]
