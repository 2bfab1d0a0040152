"""95 % intervals of the differences to the baseline, paired over the test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.metrics.bootstrap import difference_interval

NO_DIFFERENCE: dict[str, Any] = {"difference_low": None, "difference_high": None}


def add_difference_intervals(
    rows: list[dict[str, Any]],
    per_image: Mapping[tuple[str, str, str], NDArray[np.float32]],
    baseline: str | Mapping[str, str],
) -> None:
    """Set `difference_low` and `difference_high` of the rows of one data set, in points (hundredths) for a share.

    `per_image` has what each test image contributes, by protocol, backbone and metric; without that of both the row stays.
    """
    for row in rows:
        name = row["backbone"]
        other = baseline if isinstance(baseline, str) else baseline.get(name)
        own, theirs = (per_image.get((row["protocol"], one or "", row["metric"])) for one in (name, other))
        if other == name or own is None or theirs is None or len(own) != len(theirs):
            continue
        low, high = difference_interval(own, theirs)
        if low is not None and high is not None:
            scale = 100 if row["share"] else 1
            row |= {"difference_low": scale * low, "difference_high": scale * high}
