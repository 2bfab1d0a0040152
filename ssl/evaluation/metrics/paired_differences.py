"""95 % intervals of the differences to the baseline, paired over the test images, or over draws of train images."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from wildfern.ssl.evaluation.metrics.bootstrap import difference_interval

NO_DIFFERENCE: dict[str, Any] = {"difference_low": None, "difference_high": None}
Key = tuple[str, str, str]  # protocol, backbone and metric


@dataclass(frozen=True)
class Paired:
    """What scores of one data set are means of, as in `Score`."""

    per_image: dict[Key, NDArray[np.float32]] = field(default_factory=dict)
    per_draw: dict[Key, tuple[float, ...]] = field(default_factory=dict)


def add_difference_intervals(
    rows: Sequence[dict[str, Any]],
    per_image: Mapping[Key, NDArray[np.float32]],
    baseline: str | Mapping[str, str],
    per_draw: Mapping[Key, Sequence[float]] | None = None,
) -> None:
    """Set `difference_low` and `difference_high` of the rows of one data set, in points (hundredths) for a share.

    `per_image` has what each test image contributes, `per_draw` the values of draws; without that of both backbones the row
    stays. Where both have draws the interval is `draws_interval`.
    """
    for row in rows:
        name = row["backbone"]
        other = baseline if isinstance(baseline, str) else baseline.get(name)
        if other is None or other == name:
            continue
        own, theirs = ((row["protocol"], one, row["metric"]) for one in (name, other))
        draws = per_draw or {}
        low = high = None
        if own in draws and theirs in draws and len(draws[own]) == len(draws[theirs]):
            low, high = draws_interval(draws[own], draws[theirs])
        elif own in per_image and theirs in per_image and len(per_image[own]) == len(per_image[theirs]):
            low, high = difference_interval(per_image[own], per_image[theirs])
        if low is not None and high is not None:
            scale = 100 if row["share"] else 1
            row |= {"difference_low": scale * low, "difference_high": scale * high}


def draws_interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of mean(values) - mean(others) over draws that are the same for both.

    mean ± t · s / √n of the n differences, by Student's t with n - 1 degrees of freedom; (0, 0) if all are 0, and (None, None)
    for one draw and for other differences that are all equal.
    """
    differences = [own - other for own, other in zip(values, others, strict=True)]
    if len(differences) < 2 or (min(differences) == max(differences) != 0):
        return None, None
    mean = statistics.fmean(differences)
    reach = float(stdtrit(len(differences) - 1, 0.975)) * statistics.stdev(differences) / len(differences) ** 0.5
    return mean - reach, mean + reach
