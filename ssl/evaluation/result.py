"""The scores of several backbones: rows for `evaluation.json`, and a table that compares them with the baseline."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wildfern.printable import printable
from wildfern.ssl.evaluation.breakable import Breakable, FitToWidth, widest_piece

Row = dict[str, Any]
GAP = 2  # blanks between the columns of the table
GROUP = ("dataset", "protocol", "backbone")
FORMER_BASELINE = "untrained"  # what earlier versions call `random`


@dataclass(frozen=True)
class EvaluationResult:
    """Rows {dataset, protocol, backbone, metric, value, low, high, n, share, detail}; the main metric of a protocol is first.

    The values are those of `Score`. Rows also have the number of labeled images that the evaluator was given, and which they
    are: {train_images, train_split, test_images, test_split}; None for a stream that was not read to its end. `protocols`
    says what each protocol does; `baseline` names the backbone that the others are compared with, or for each backbone its
    own baseline, if it has one; `notes` has messages about each data set, for example classes of test without train images.
    Results are added: `on_digits + on_cifar10`; ValueError where a protocol is not the same in both.
    """

    rows: tuple[Row, ...]
    protocols: dict[str, str]
    baseline: str | dict[str, str] = "random"
    notes: dict[str, list[str]] = field(default_factory=dict)

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
        return EvaluationResult(self.rows + other.rows, self.protocols | other.protocols, self.baseline, notes)

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
        return EvaluationResult(rows, self.protocols, baseline, self.notes)

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

    def table(self) -> FitToWidth:
        """A table for each data set: a line for the main metric of each protocol and backbone, with the baseline's value."""
        return FitToWidth(self._table)

    def _table(self, width: int) -> Group:
        main = self.main_rows()
        others = [row for row in main if not self.is_baseline(row["backbone"])] or main
        several = len({row["backbone"] for row in others}) > 1 or not isinstance(self.baseline, str)
        evaluated = main if several else others  # for a single one, the baseline's values are a column
        words = [f"{short_name(name)}: {text}" for name, text in self.protocols.items()]
        few = (
            ", over few-label draws ± one standard deviation"
            if any("few_shot" in name for name in self.protocols)
            else ""
        )
        words.append(f"intervals: 95 %{few}; all metrics: evaluation.json, report.html, or --json FILE")
        texts = ("protocol", *(("backbone",) if several else ()), "metric")
        value = evaluated[0]["backbone"] if evaluated and not several else "value"
        headings = (value, "interval", *(() if several else (str(self.baseline),)))
        headings = tuple(map(printable, headings))
        cells = [(row, tuple(map(printable, self._cells(row, several)))) for row in evaluated]
        columns = list(zip((*texts, *headings, "difference"), *(found for _, found in cells), strict=True))
        narrowest = [widest_piece(column) for column in columns[: len(texts)]]
        narrowest += [max(map(cell_len, column)) for column in columns[len(texts) :]]
        fits = sum(narrowest) + GAP * len(columns) <= width
        parts: list[RenderableType] = [Text("Scores on test", style="table.title")]
        for dataset in dict.fromkeys(row["dataset"] for row in evaluated):
            table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
            for number, (column, least) in enumerate(zip(columns, narrowest, strict=True)):
                is_text = number < len(texts)
                table.add_column(
                    Text(column[0]),
                    justify="left" if is_text else "right",
                    overflow="fold",
                    no_wrap=fits and not is_text,
                    min_width=least if fits else None,
                )
            for row, found in cells:
                if row["dataset"] == dataset:
                    table.add_row(*map(Breakable, found[: len(texts)]), *map(Text, found[len(texts) :]))
            parts += [Breakable(dataset, style="bold"), *map(Breakable, self.images_words(dataset)), table]
        several_sets = len({row["dataset"] for row in evaluated}) > 1
        notes = [
            f"{dataset}: {note}" if several_sets else note for dataset, found in self.notes.items() for note in found
        ]
        return Group(*parts, *map(Breakable, notes), *(Breakable(text, style="table.caption") for text in words))

    def _cells(self, row: Row, several: bool) -> tuple[str, ...]:
        other, difference = self.baseline_row(row), self.difference(row)
        return (
            short_name(row["protocol"]),
            *((row["backbone"],) if several else ()),
            metric_words(row["metric"]),
            value_words(row),
            interval_words(row),
            *(() if several else ("" if other is None else value_words(other),)),
            "" if difference is None else f"{difference:+.1f}" if row["share"] else f"{difference:+.4g}",
        )

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


def images_words(row: Row) -> str:
    """How many images of which split a row is of: `train: 1,258 images · test: 539 images (folder valid)`."""
    parts = []
    for split in ("train", "test"):
        images, words = row.get(f"{split}_images"), row.get(f"{split}_split")
        if images is not None:
            plural = "" if images == 1 else "s"
            parts.append(f"{split}: {images:,} image{plural}" + (f" ({words})" if words else ""))
    return " · ".join(parts)


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
