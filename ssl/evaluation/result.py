"""The scores of several backbones: rows for `evaluation.json`, and a table that compares them with the baseline."""

import csv
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console

from wildfern.ssl.evaluation.metrics.paired_differences import NO_DIFFERENCE, Paired, add_difference_intervals
from wildfern.ssl.evaluation.report.breakable import FitToWidth
from wildfern.ssl.evaluation.report.image_details import ImageDetails
from wildfern.ssl.evaluation.result_table import html_table, text_table
from wildfern.ssl.evaluation.score_words import Row, images_words, short_name

GROUP = ("dataset", "protocol", "backbone")
DEFAULTS: dict[str, Any] = {
    "n": None, "share": True, "detail": "", "low": None, "high": None, "breakdown": False, **NO_DIFFERENCE
}  # fmt: skip
FORMER_BASELINE = "untrained"  # what earlier versions call `random`


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Rows {dataset, protocol, backbone, metric, value, low, high, n, share, detail, difference_low, difference_high, breakdown}.

    The main metric of a protocol is first; those with `breakdown` follow from the predictions of its evaluator. The values are
    those of `Score`; `difference_low` to `difference_high` is the 95 % interval of the difference to the baseline, paired over
    test images. Rows also have the number of labeled images that the evaluator was given, and which they are: {train_images,
    train_split, test_images, test_split}; None for a stream that was not read to its end. `protocols` says what each protocol
    does; `baseline` names the backbone that the others are compared with, or for each backbone its own baseline, if it has one;
    `notes` has messages about each data set, for example classes of test without train images; `details` what a report shows of
    its single images, if that was collected; `paired`, for each data set, what differences to other baselines are computed from.
    Results are added: `on_digits + on_cifar10`; ValueError where a protocol is not the same in both.
    """

    rows: tuple[Row, ...]
    protocols: dict[str, str]
    baseline: str | dict[str, str] = "random"
    notes: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, ImageDetails] = field(default_factory=dict, compare=False)
    paired: dict[str, Paired] = field(default_factory=dict, compare=False)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "EvaluationResult":
        """The result in an `evaluation.json`, also of a version that wrote rows with `accuracy` and `std`, or `untrained`."""
        rows = tuple(
            {key: value for key, value in row.items() if key != "difference"} for row in stored.get("rows", [])
        )
        baseline = stored.get("baseline", FORMER_BASELINE)
        baseline = "random" if baseline == FORMER_BASELINE else baseline
        return cls(tuple(upgraded_rows(rows)), stored.get("protocols", {}), baseline, stored.get("notes", {}))

    def __add__(self, other: "EvaluationResult") -> "EvaluationResult":
        if self.baseline != other.baseline:
            raise ValueError(f"evaluations against {self.baseline!r} and {other.baseline!r} do not add up")
        for name in self.protocols.keys() & other.protocols.keys():
            if self.protocols[name] != other.protocols[name]:
                raise ValueError(f"evaluations by different forms of the protocol {name!r} do not add up")
        notes = {
            dataset: list(dict.fromkeys([*self.notes.get(dataset, []), *other.notes.get(dataset, [])]))
            for dataset in self.notes | other.notes
        }
        return EvaluationResult(
            self.rows + other.rows,
            self.protocols | other.protocols,
            self.baseline,
            notes,
            self.details | other.details,
            self.paired | other.paired,
        )

    def baseline_of(self, backbone: str) -> str | None:
        """The name of the backbone that this one is compared with; its own for a baseline."""
        if isinstance(self.baseline, str):
            return self.baseline
        return backbone if self.is_baseline(backbone) else self.baseline.get(backbone)

    def is_baseline(self, backbone: str) -> bool:
        """Whether others are compared with this backbone."""
        return backbone == self.baseline if isinstance(self.baseline, str) else backbone in self.baseline.values()

    def only(self, backbones: Collection[str], baseline: str) -> "EvaluationResult":
        """The rows of these backbones, compared with one of them.

        A difference to another baseline than before has an interval only if `paired` is known.
        """
        rows = [
            {**row, **({} if self.baseline_of(row["backbone"]) == baseline else NO_DIFFERENCE)}
            for row in self.rows
            if row["backbone"] in backbones
        ]
        for dataset, paired in self.paired.items():
            own = [row for row in rows if row["dataset"] == dataset]
            add_difference_intervals(own, paired.per_image, baseline, paired.per_draw)
        details = {name: one.only(backbones) for name, one in self.details.items()}
        return EvaluationResult(tuple(rows), self.protocols, baseline, self.notes, details, self.paired)

    def baseline_row(self, row: Row) -> Row | None:
        """The baseline's row of the same data set, protocol and metric."""
        baseline = self.baseline_of(row["backbone"])
        return self._first.get((baseline, row["dataset"], row["protocol"], row["metric"]))

    @cached_property
    def _first(self) -> dict[tuple[str | None, str, str, str], Row]:
        """The first row of each backbone, data set, protocol and metric."""
        found: dict[tuple[str | None, str, str, str], Row] = {}
        for row in self.rows:
            found.setdefault((row["backbone"], row["dataset"], row["protocol"], row["metric"]), row)
        return found

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
        """The content of `evaluation.json`: {"baseline", "protocols", "notes", "rows"}, each row with its "difference"."""
        rows = [{**row, "difference": self.difference(row)} for row in self.rows]
        return {"baseline": self.baseline, "protocols": self.protocols, "notes": self.notes, "rows": rows}

    def as_csv(self) -> str:
        """The rows as CSV with a header: a column for each key of a row, its difference, and what its protocol does."""
        rows = [{**row, "difference": self.difference(row)} for row in self.rows]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*columns, "description"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "description": self.protocols.get(row["protocol"], "")} for row in rows)
        return text.getvalue()

    def table(self) -> FitToWidth:
        """A table for each data set: a line for the main metric of each protocol and backbone, with the baseline's value."""
        return FitToWidth(lambda width: text_table(self, width))

    def __str__(self) -> str:
        """The table as text, as wide as the terminal."""
        console = Console(file=io.StringIO(), highlight=False, force_jupyter=False, color_system=None)
        console.print(self.table())
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return html_table(self)

    def images_words(self, dataset: str) -> list[str]:
        """The images of a data set: `train: 1,258 images · test: 539 images (folder valid)`; none if its rows do not say.

        A line for each different one, with the protocols where these differ.
        """
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row["dataset"] == dataset and (line := images_words(row)):
                found.setdefault(line, []).append(short_name(row["protocol"]))
        if len(found) < 2:
            return list(found)
        return [f"{line}: {', '.join(dict.fromkeys(protocols))}" for line, protocols in found.items()]


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
        found.append({**DEFAULTS, **row})
    return [row for row in found if isinstance(row.get("value"), int | float)]
