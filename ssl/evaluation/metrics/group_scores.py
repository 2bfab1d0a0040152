"""The scores of groups of runs: mean, sample standard deviation and number of runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wildfern.ssl.evaluation.report.run_groups import Group
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import Row

PRETRAINED = "pretrained"
MOST_VALUE = 1e100  # larger ones are no scores
FEW_SHOT = "few_shot"  # its intervals are over the draws, not over test images


@dataclass(frozen=True)
class Statistic:
    """The values of some runs; `mean`, and `sd`, the standard deviation with n − 1, which one value does not have."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample standard deviation; None for one value."""
        return statistics.stdev(self.values) if self.n > 1 else None

    def as_json(self) -> dict[str, Any]:
        """{"mean", "sd", "n", "values"}."""
        return {"mean": self.mean, "sd": self.sd, "n": self.n, "values": list(self.values)}

    def words(self, share: bool) -> str:
        """`93.1 ± 0.4 %`, or `93.1 %` for one value."""
        scale, form, unit = (100, ".1f", " %") if share else (1, ".4g", "")
        spread = "" if self.sd is None else f" ± {scale * self.sd:{form}}"
        return f"{scale * self.mean:{form}}{spread}{unit}"

    def gain_words(self, share: bool) -> str:
        """The same with a sign, for differences that are in points already."""
        form = ".1f" if share else ".4g"
        return f"{self.mean:+{form}}" + ("" if self.sd is None else f" ± {self.sd:{form}}")


@dataclass(frozen=True)
class GroupScore:
    """A metric of one group: statistics by backbone; `gain` of the pretrained one over its baseline, paired within runs.

    `gain` is in points (hundredths) for a share. `low` and `high` are the interval over test images of a single run, else None.
    `main`: of the main metric of its protocol.
    """

    dataset: str
    protocol: str
    metric: str
    share: bool
    main: bool
    group: int
    backbones: dict[str, Statistic]
    gain: Statistic | None
    low: float | None
    high: float | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Data set, protocol and metric."""
        return self.dataset, self.protocol, self.metric

    @property
    def pretrained(self) -> Statistic | None:
        """That of the pretrained backbone."""
        return self.backbones.get(PRETRAINED)

    def difference(self, first: "GroupScore") -> float | None:
        """By how much the mean of the pretrained backbone is above that of another group, in points for a share."""
        if self.pretrained is None or first.pretrained is None:
            return None
        return (100 if self.share else 1) * (self.pretrained.mean - first.pretrained.mean)

    def overlaps(self, first: "GroupScore") -> bool | None:
        """Whether the intervals of two single runs overlap; None where one of them has none."""
        bounds = (self.low, self.high, first.low, first.high)
        if self.protocol.startswith(FEW_SHOT) or any(bound is None for bound in bounds):
            return None
        return max(self.low, first.low) <= min(self.high, first.high)  # type: ignore[type-var]


def group_scores(records: Sequence[RunRecord], groups: Sequence[Group]) -> list[GroupScore]:
    """The scores of each group, ordered by data set, protocol and metric, in order of appearance."""
    results = [EvaluationResult.from_json(record.evaluation) for record in records]
    found: dict[tuple[str, str, str], dict[int, GroupScore]] = {}
    for number, group in enumerate(groups):
        rows: dict[tuple[str, str, str], list[tuple[EvaluationResult, Row]]] = {}
        for result in (results[member] for member in group.members):
            for row in result.rows:
                if abs(row["value"]) <= MOST_VALUE:  # not NaN either
                    rows.setdefault((row["dataset"], row["protocol"], row["metric"]), []).append((result, row))
        main = {
            tuple(row[key] for key in ("dataset", "protocol", "metric"))
            for m in group.members
            for row in results[m].main_rows()
        }
        for key, members in rows.items():
            found.setdefault(key, {})[number] = _score(key, number, members, key in main)
    order = {dataset: place for place, dataset in enumerate(dict.fromkeys(key[0] for key in found))}
    protocols = {pair: place for place, pair in enumerate(dict.fromkeys(key[:2] for key in found))}
    keys = sorted(found, key=lambda key: (order[key[0]], protocols[key[:2]]))
    return [score for key in keys for score in found[key].values()]


def _score(
    key: tuple[str, str, str], number: int, members: Sequence[tuple[EvaluationResult, Row]], main: bool
) -> GroupScore:
    values: dict[str, list[float]] = {}
    gains, intervals = [], []
    for result, row in members:
        values.setdefault(row["backbone"], []).append(row["value"])
        if row["backbone"] == PRETRAINED:
            gain = result.difference(row)
            gains += [gain] if gain is not None and abs(gain) <= MOST_VALUE else []
            intervals.append((row["low"], row["high"]))
    backbones = {name: Statistic(tuple(found)) for name, found in values.items()}
    low, high = intervals[0] if len(intervals) == 1 else (None, None)
    share = bool(members[0][1]["share"])
    return GroupScore(*key, share, main, number, backbones, Statistic(tuple(gains)) if gains else None, low, high)
