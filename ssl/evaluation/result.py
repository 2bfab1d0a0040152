"""The scores of several backbones: rows for `evaluation.json`, and a table that compares them with the baseline."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

Row = dict[str, Any]
GROUP = ("dataset", "protocol", "backbone")
FORMER_BASELINE = "untrained"  # what earlier versions call `random`


@dataclass(frozen=True)
class EvaluationResult:
    """Rows {dataset, protocol, backbone, metric, value, low, high, n, share, detail}; the main metric of a protocol is first.

    The values are those of `Score`. `protocols` says what each protocol does; `baseline` names the backbone that the others
    are compared with, or for each backbone its own baseline, if it has one. Results are added: `on_digits + on_cifar10`;
    ValueError where a protocol is not the same in both.
    """

    rows: tuple[Row, ...]
    protocols: dict[str, str]
    baseline: str | dict[str, str] = "random"

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "EvaluationResult":
        """The result in an `evaluation.json`, also of a version that wrote rows with `accuracy` and `std`, or `untrained`."""
        rows = tuple(
            {key: value for key, value in row.items() if key != "difference"} for row in stored.get("rows", [])
        )
        baseline = stored.get("baseline", FORMER_BASELINE)
        baseline = "random" if baseline == FORMER_BASELINE else baseline
        return cls(tuple(upgraded_rows(rows)), stored.get("protocols", {}), baseline)

    def __add__(self, other: "EvaluationResult") -> "EvaluationResult":
        if self.baseline != other.baseline:
            raise ValueError(f"evaluations against {self.baseline!r} and {other.baseline!r} do not add up")
        for name in self.protocols.keys() & other.protocols.keys():
            if self.protocols[name] != other.protocols[name]:
                raise ValueError(f"evaluations by different forms of the protocol {name!r} do not add up")
        return EvaluationResult(self.rows + other.rows, self.protocols | other.protocols, self.baseline)

    def baseline_of(self, backbone: str) -> str | None:
        """The name of the backbone that this one is compared with; its own for a baseline."""
        if isinstance(self.baseline, str):
            return self.baseline
        return backbone if self.is_baseline(backbone) else self.baseline.get(backbone)

    def is_baseline(self, backbone: str) -> bool:
        """Whether others are compared with this backbone."""
        return backbone == self.baseline if isinstance(self.baseline, str) else backbone in self.baseline.values()

    def only(self, backbones: Collection[str], baseline: str) -> "EvaluationResult":
        """The rows of these backbones, compared with one of them."""
        rows = tuple(row for row in self.rows if row["backbone"] in backbones)
        return EvaluationResult(rows, self.protocols, baseline)

    def baseline_row(self, row: Row) -> Row | None:
        """The baseline's row of the same data set, protocol and metric."""
        same = ("dataset", "protocol", "metric")
        baseline = self.baseline_of(row["backbone"])
        candidates = (other for other in self.rows if other["backbone"] == baseline)
        return next((other for other in candidates if all(other[key] == row[key] for key in same)), None)

    def difference(self, row: Row) -> float | None:
        """By how much a row is above its baseline's, in points (hundredths) for a share; None for a baseline, or without one."""
        other = self.baseline_row(row)
        if other is None or self.is_baseline(row["backbone"]):
            return None
        return (100 if row["share"] else 1) * (row["value"] - other["value"])

    def main_rows(self) -> list[Row]:
        """The row of the main metric of each data set, protocol and backbone."""
        first: dict[tuple, Row] = {}
        for row in self.rows:
            first.setdefault(tuple(row[key] for key in GROUP), row)
        return list(first.values())

    def as_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`: {"baseline", "protocols", "rows"}, each row with its "difference"."""
        rows = [{**row, "difference": self.difference(row)} for row in self.rows]
        return {"baseline": self.baseline, "protocols": self.protocols, "rows": rows}

    def table(self) -> Table:
        """One line for the main metric of each data set, protocol and backbone, with the baseline's value."""
        main = self.main_rows()
        others = [row for row in main if not self.is_baseline(row["backbone"])] or main
        several = len({row["backbone"] for row in others}) > 1 or not isinstance(self.baseline, str)
        evaluated = main if several else others  # for a single one, the baseline's values are a column
        words = [f"{short_name(name)}: {text}" for name, text in self.protocols.items()]
        words.append(
            "intervals: 95 %, over few-label draws ± one standard deviation; other metrics: evaluation.json, report.html"
        )
        table = Table(
            title="Scores on test",
            caption="\n".join(words),
            caption_justify="left",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        for heading in ("dataset", "protocol", *(("backbone",) if several else ())):
            table.add_column(heading, overflow="fold", min_width=8)
        table.add_column("metric", overflow="fold")
        value = evaluated[0]["backbone"] if evaluated and not several else "value"
        for heading in (value, "interval", *(() if several else (str(self.baseline),)), "difference"):
            table.add_column(heading, justify="right", no_wrap=True)
        last = None
        for row in evaluated:
            if last not in (None, row["dataset"]):
                table.add_section()
            other, difference = self.baseline_row(row), self.difference(row)
            table.add_row(
                row["dataset"] if row["dataset"] != last else "",
                short_name(row["protocol"]),
                *((row["backbone"],) if several else ()),
                metric_words(row["metric"]),
                value_words(row),
                interval_words(row),
                *(() if several else ("" if other is None else value_words(other),)),
                "" if difference is None else f"{difference:+.1f}" if row["share"] else f"{difference:+.4g}",
            )
            last = row["dataset"]
        return table


def short_name(protocol: str) -> str:
    """The name of a protocol in the table, where columns are narrow: `few_shot (classifier=knn, shots=5)` is `knn, 5-shot`."""
    few = re.fullmatch(r"few_shot \(classifier=(\w+), shots=(\d+)(?:, seeds=\d+)?\)", protocol)
    return f"{few[1]}, {few[2]}-shot" if few else protocol


def upgraded_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows as they are written now: those of earlier versions with `accuracy` and `std`, or named `untrained`, are converted."""
    found = []
    for row in rows:
        if row.get("backbone") == FORMER_BASELINE:
            row = {**row, "backbone": "random"}
        if "metric" not in row and isinstance(row.get("accuracy"), int | float):
            accuracy, std = row["accuracy"], row.get("std")
            bounds = (None, None) if std is None else (accuracy - std, accuracy + std)
            kept = {key: value for key, value in row.items() if key not in ("accuracy", "std")}
            row = {**kept, "metric": "accuracy", "value": accuracy, "low": bounds[0], "high": bounds[1]}
        found.append({"n": None, "share": True, "detail": "", "low": None, "high": None, **row})
    return [row for row in found if isinstance(row.get("value"), int | float)]


def metric_words(metric: str) -> str:
    """A metric as people read it: `top5_accuracy` → "top-5 accuracy"."""
    return metric.replace("top5", "top-5").replace("_", " ")


def value_words(row: Row) -> str:
    """The value, in percent for a share."""
    return f"{100 * row['value']:.1f} %" if row["share"] else f"{row['value']:.4g}"


def interval_words(row: Row) -> str:
    """The interval as "low to high" in the unit of the value; empty where there is none."""
    if row["low"] is None or row["high"] is None:
        return ""
    low, high = row["low"], row["high"]
    return f"{100 * low:.1f} to {100 * high:.1f}" if row["share"] else f"{low:.4g} to {high:.4g}"
