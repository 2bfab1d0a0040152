"""Runs compared: the settings that differ, and the scores of each setting over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from wildfern.printable import printable
from wildfern.ssl.evaluation.metrics.group_scores import GroupScore, group_scores
from wildfern.ssl.evaluation.report.breakable import Breakable, FitToWidth, widest_piece
from wildfern.ssl.evaluation.report.run_groups import Group, differing_settings, groups_by_seed
from wildfern.ssl.evaluation.result_table import GAP
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import metric_words, short_name

ONE_RUN = (
    "With n = 1 there is no deviation, and the interval is over test images only: it does not contain the variation between "
    "seeds, so that neither overlapping nor separate intervals decide about the settings. Train several seeds."
)
SEVERAL = "± is the sample standard deviation over the runs (n − 1), which differ in their seed."


@dataclass(frozen=True)
class Comparison:
    """Groups of runs with the settings in which they differ, and their scores; `left_out` says what runs lack, by name.

    `series`: the groups are the settings of a series; else each is compared with the first one. `names`: of the runs.
    """

    names: list[str]
    groups: list[Group]
    settings: dict[str, list[str]]
    scores: list[GroupScore]
    series: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether a score is that of a single run."""
        return any(score.pretrained is not None and score.pretrained.n == 1 for score in self.main_scores())

    def main_scores(self) -> list[GroupScore]:
        """The scores of the main metric of each protocol."""
        return [score for score in self.scores if score.main]

    def first(self, score: GroupScore) -> GroupScore | None:
        """The same score of the first group; None for its own."""
        return None if score.group == 0 else self._of_first_group.get(score.key)

    @cached_property
    def _of_first_group(self) -> dict[tuple[str, str, str], GroupScore]:
        return {score.key: score for score in self.scores if score.group == 0}

    def notes(self) -> list[str]:
        """What to know about the table of scores."""
        found = [SEVERAL] if any(len(group.members) > 1 for group in self.groups) else []
        found += [ONE_RUN] if self.single else []
        return found + [f"{name}: {reason}" for name, reason in self.left_out.items()]

    def as_json(self) -> dict[str, Any]:
        """{"groups", "settings", "scores", "left_out"}; each score with the label of its group, all metrics."""
        groups = []
        for number, group in enumerate(self.groups):
            varied = (
                {key: row[number] for key, row in self.settings.items()} if group.settings is None else group.settings
            )
            groups.append({"name": group.label, "settings": varied, "runs": [self.names[i] for i in group.members]})
        scores = []
        for score in self.scores:
            row: dict[str, Any] = {
                "group": self.groups[score.group].label,
                "dataset": score.dataset,
                "protocol": score.protocol,
                "metric": score.metric,
                "main": score.main,
                "share": score.share,
                **{name: statistic.as_json() for name, statistic in score.backbones.items()},
                "gain": score.gain and score.gain.as_json(),
                "interval": None if score.low is None else [score.low, score.high],
            }
            if not self.series:
                first = self.first(score)
                row["difference"] = first and score.difference(first)
                row["intervals_overlap"] = first and score.overlaps(first)
            scores.append(row)
        return {"groups": groups, "settings": self.settings, "scores": scores, "left_out": self.left_out}

    def table(self) -> FitToWidth:
        """Both tables, for a terminal."""
        return FitToWidth(self._table)

    def _table(self, width: int) -> Lines:
        parts: list[RenderableType] = []
        if not self.series:
            parts += [Text("Settings that differ", style="table.title"), self._settings_table()]
        parts.append(Text("Scores on test", style="table.title"))
        main = self.main_scores()
        if not main:
            parts.append(
                Text("none of the runs has scores: name data sets with evaluation.on, or use wildfern evaluate")
            )
        for key, scores in groupby(main, lambda score: score.key):
            parts += [
                Breakable(f"{key[0]} · {short_name(key[1])} · {metric_words(key[2])}", style="bold"),
                self._scores_table(list(scores), width),
            ]
        return Lines(*parts, *(Breakable(note, style="table.caption") for note in self.notes()))

    def _settings_table(self) -> RenderableType:
        if not self.settings:
            return Text("none that is recorded" if len(self.groups) > 1 else "none but the seed")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for group in self.groups:
            table.add_column(Breakable(group.label), overflow="fold")
        for key, row in self.settings.items():
            table.add_row(Breakable(key), *map(Breakable, row))
        return table

    def _scores_table(self, scores: Sequence[GroupScore], width: int) -> Table:
        head, rows = score_cells(self, scores)
        widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
        widths[0] = widest_piece([head[0], *(row[0] for row in rows)])
        fits = sum(widths) + GAP * len(widths) <= width
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(head):
            table.add_column(
                name, justify="left" if number == 0 else "right", overflow="fold", no_wrap=fits and number > 0
            )
        for label, *cells in rows:
            table.add_row(Breakable(label), *map(Text, map(printable, cells)))
        return table


def score_cells(comparison: Comparison, scores: Sequence[GroupScore]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of one metric, as texts; columns that would be empty are left out."""
    backbones = list(dict.fromkeys(name for score in scores for name in score.backbones))
    backbones.sort(key=["pretrained", "start", "random", *backbones].index)
    head = ["setting" if comparison.series else "run", "seeds", *backbones, "gain"]
    head.insert(3, "95 %")  # beside the pretrained backbone, whose interval it is
    head += [] if comparison.series else ["vs first", "overlap"]
    rows = []
    for score in scores:
        first = comparison.first(score)
        difference = first and score.difference(first)
        overlap = first and score.overlaps(first)
        scale, form = (100, ".1f") if score.share else (1, ".4g")
        row = [
            comparison.groups[score.group].label,
            str(score.pretrained.n if score.pretrained else max(one.n for one in score.backbones.values())),
            *(score.backbones[name].words(score.share) if name in score.backbones else "" for name in backbones),
            score.gain.gain_words(score.share) if score.gain else "",
            "" if difference is None else f"{difference:+{form}}",
            "" if overlap is None else "yes" if overlap else "no",
        ]
        known = score.low is not None and score.high is not None
        row.insert(3, f"{scale * score.low:{form}} to {scale * score.high:{form}}" if known else "")
        rows.append(row[: len(head)])
    kept = [place for place in range(len(head)) if place < 2 or any(row[place] for row in rows)]
    return [head[place] for place in kept], [[row[place] for place in kept] for row in rows]


def compare_runs(
    records: Sequence[RunRecord],
    names: Sequence[str],
    groups: Sequence[Group] | None = None,
    left_out: dict[str, str] | None = None,
) -> Comparison:
    """The comparison of runs, by default in groups that differ only in the seed; `names` are those of the runs, all different.

    With `groups`, which are then the settings of a series, and in their order.
    """
    found = groups_by_seed(records, names) if groups is None else list(groups)
    without = {names[i]: words for group in found for i in group.members if (words := _lacks(records[i]))}
    return Comparison(
        list(names),
        found,
        differing_settings(records, found),
        group_scores(records, found),
        groups is not None,
        {**without, **(left_out or {})},
    )


def _lacks(record: RunRecord) -> str:
    """What a run lacks for a comparison, in words; empty if nothing."""
    found = [remark for remark in record.remarks if remark.startswith(("recipe.yaml", "evaluation.json", "backbone"))]
    training = record.recipe.get("training")
    numbers = [training.get(key) for key in ("steps", "log_every")] if isinstance(training, dict) else []
    if numbers and all(type(number) is int for number in numbers):
        steps, log_every = numbers
        logged = max((int(series.steps[-1]) + 1 for series in record.metrics.values() if series.steps), default=0)
        if logged + log_every <= steps:
            found.append(f"not finished, {logged:,} of {steps:,} steps")
    return "; ".join(found + ([] if record.evaluation.get("rows") else ["no scores"]))
