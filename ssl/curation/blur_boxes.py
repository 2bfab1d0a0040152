"""Boxes of an image, such as faces, blurred so far that nobody can be recognized."""

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.bounded_json import parse_json
from wildfern.ssl.curation.manifest import CurationError

CELLS = 6  # per side of a box
_CELL = 8  # pixels, at least


class Blurring(NamedTuple):
    """Whether boxes of the people detector are blurred, and from which score on."""

    on: bool
    score: float

    @classmethod
    def of_policy(cls, policy: Mapping[str, Any]) -> "Blurring":
        """That of a policy in a manifest. Raises CurationError for values that no policy has."""
        people = policy.get("people", {})
        if not isinstance(people, dict):
            raise CurationError(f"the policy in the manifest is damaged: people is {str(people)[:80]!r}")
        score = people.get("review", 0.0)
        if not isinstance(score, int | float):
            raise CurationError(f"the policy in the manifest is damaged: people.review is {str(score)[:80]!r}")
        return cls(bool(people.get("blur")), score)

    def boxes(self, people_boxes: str | None) -> list[list[float]]:
        """Those of the column `people_boxes` that are blurred."""
        if not self.on or people_boxes is None:
            return []
        return [box for box in parse_json(people_boxes) if box[4] >= self.score]


def blur_boxes(image: NDArray[np.uint8], boxes: Sequence[Sequence[float]], margin: float = 0.2) -> NDArray[np.uint8]:
    """A copy of uint8[H, W, 3] in which each box is made of the means of at most 6 x 6 cells of it, interpolated.

    Nothing else of what was in the box is left. Cells have at least 8 pixels per side, so a smaller box becomes its mean. Edges
    between them are smooth, so that they are no feature to be learned.

    - boxes: left, top, right and bottom in pixels; what follows, such as a score, is not read.
    - margin: by which a box is enlarged on each side, relative to its own width and height.
    """
    height, width = image.shape[:2]
    blurred = image.copy()
    for left, top, right, bottom, *_ in boxes:
        across, down = margin * (right - left), margin * (bottom - top)
        x0, x1 = max(floor(left - across), 0), min(ceil(right + across), width)
        y0, y1 = max(floor(top - down), 0), min(ceil(bottom + down), height)
        if x0 >= x1 or y0 >= y1:
            continue
        inside = Image.fromarray(blurred[y0:y1, x0:x1])
        means = inside.resize((_cells(x1 - x0), _cells(y1 - y0)), Image.Resampling.BOX)
        blurred[y0:y1, x0:x1] = np.asarray(means.resize(inside.size, Image.Resampling.BILINEAR))
    return blurred


def _cells(length: int) -> int:
    return min(max(length // _CELL, 1), CELLS)
