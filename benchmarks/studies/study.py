"""Run the arms of a study with several seeds, and collect scores as means and standard deviations, as JSON and as a plot."""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.files import write_text
from wildfern.ssl.tracking import environment

MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Arm:
    """One setting of a study: a bundled recipe and changes to it, in a `group` of arms that share a panel of the plot."""

    name: str
    changes: Sequence[str]
    recipe: str = "quickstart"
    group: str = ""


@dataclass(frozen=True)
class Study:
    """`protocol`: what is equal between the arms and how they are evaluated, in sentences.

    main: (dataset, protocol) of the plot.
    names: of sources in the results, so that they have no paths of one machine.
    """

    name: str
    protocol: str
    arms: Sequence[Arm]
    main: tuple[str, str]
    names: Mapping[str, str] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """The text with the sources' names."""
        for source, name in self.names.items():
            text = text.replace(source, name)
        return text


def run(study: Study, seeds: Sequence[int], folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Train and evaluate every arm with every seed in `folder/ARM/seed=N`; finished runs are not repeated, others resume."""
    from wildfern.launch import pretrain

    began, rows = time.time(), []
    for seed in seeds:  # all arms with one seed first: an interrupted study still compares
        for arm in study.arms:
            path = folder / arm.name.replace(" ", "_").replace("/", "-") / f"seed={seed}"
            if not (path / "evaluation.json").is_file():
                settings = [*arm.changes, *changes, f"seed={seed}"]
                print(f"\n== {study.name}: {arm.name}, seed {seed}", flush=True)
                pretrain(arm.recipe, settings, run=path, resume=path.exists())
            for row in scores(path):
                rows.append({"arm": arm.name, "group": arm.group, "seed": seed, **row})
                rows[-1]["dataset"] = study.named(row["dataset"])
    return {
        "study": study.name,
        "protocol": study.protocol,
        "seeds": list(seeds),
        "changes": [study.named(change) for change in changes],
        "arms": {arm.name: [arm.recipe, *map(study.named, arm.changes)] for arm in study.arms},
        "rows": summary(rows),
        "seconds": round(time.time() - began),
        "environment": environment(),
    }


def scores(run: Path) -> list[dict[str, Any]]:
    """The accuracies of a finished run, of the pretrained and of the random network."""
    found = read_json(run / "evaluation.json", MOST_BYTES)["rows"]
    keys = ("dataset", "protocol", "backbone", "value")
    return [{key: row[key] for key in keys} for row in found if row["metric"] == "accuracy"]


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds of every arm, data set, protocol and backbone, in percent."""
    grouped: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("group", "arm", "dataset", "protocol", "backbone"))
        grouped.setdefault(key, []).append(100 * row["value"])
    return [
        {
            **dict(zip(("group", "arm", "dataset", "protocol", "backbone"), key, strict=True)),
            "mean": round(fmean(values), 2),
            "std": round(stdev(values), 2) if len(values) > 1 else None,
            "values": [round(value, 2) for value in values],
        }
        for key, values in grouped.items()
    ]


def text_table(result: dict[str, Any]) -> str:
    """Lines of Markdown: an arm in each row, a data set and protocol in each column, the random network's scores last."""
    trained = [row for row in result["rows"] if row["backbone"] == "pretrained"]
    random = [row for row in result["rows"] if row["backbone"] == "random"]
    columns = list(dict.fromkeys((row["dataset"], short(row["protocol"])) for row in trained))
    cells = {(row["group"], row["arm"], row["dataset"], short(row["protocol"])): row for row in trained}
    lines = ["| | " + " | ".join(f"{dataset} {protocol}" for dataset, protocol in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for group, arm in dict.fromkeys((row["group"], row["arm"]) for row in trained):
        lines.append(f"| {arm} | " + " | ".join(_cell(cells.get((group, arm, *column))) for column in columns) + " |")
    values = {column: [] for column in columns}
    for row in random:
        values.setdefault((row["dataset"], short(row["protocol"])), []).append(row["mean"])
    means = [f"{fmean(values[column]):.1f}" if values[column] else "" for column in columns]
    return "\n".join([*lines, "| random network | " + " | ".join(means) + " |"])


def short(protocol: str) -> str:
    """The protocol's name without its arguments."""
    return protocol.split(" (")[0]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['mean']:.1f}" + ("" if row["std"] is None else f" ± {row['std']:.1f}")


def plot(result: dict[str, Any], main: tuple[str, str], path: Path) -> None:
    """A PNG: mean and each seed of every arm, on the main data set and protocol, with the random network as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in result["rows"] if (row["dataset"], short(row["protocol"])) == main]
    trained = [row for row in rows if row["backbone"] == "pretrained"]
    groups = list(dict.fromkeys(row["group"] for row in trained))
    heights = [sum(row["group"] == group for row in trained) for group in groups]
    figure, axes = pyplot.subplots(
        len(groups),
        1,
        figsize=(7, 1.2 + 0.32 * sum(heights) + 0.5 * len(groups)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        mine = [row for row in trained if row["group"] == group]
        for place, row in enumerate(reversed(mine)):
            axis.plot(row["values"], [place] * len(row["values"]), "o", color="#9db4c8", markersize=4)
            axis.errorbar(row["mean"], place, xerr=row["std"] or math.nan, fmt="D", color="#1f4e79", capsize=3)
        baselines = [row["mean"] for row in rows if row["group"] == group and row["backbone"] == "random"]
        if baselines:
            axis.axvline(fmean(baselines), color="#b0572f", linestyle=":", label="random network")
        axis.set_yticks(range(len(mine)), [row["arm"] for row in reversed(mine)], fontsize=8)
        axis.set_ylim(-0.6, len(mine) - 0.4)
        axis.set_title(group, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel(
        f"{main[0]}, {main[1]}: accuracy in % (mean ± standard deviation of {len(result['seeds'])} seeds)"
    )
    axes[0, 0].legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def command(make: Any, module: str, description: str) -> None:
    """The command line of a study: `make(arguments) -> Study`, with the options that all studies share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", default="cifar10", help="source of CIFAR-10: cifar10, or parquet:PATH")
    parser.add_argument("--steps", type=int, help="steps of each run (default: those of the study)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="arms whose names contain this")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies") / module, help="folder of the runs")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results") / f"study_{module}.json")
    parser.add_argument("--plot", type=Path, default=Path("docs/images") / f"study_{module}.png")
    parser.add_argument("changes", nargs="*", help="further changes to the recipes: key.sub=value")
    given = parser.parse_args()
    study = make(given)
    if given.only:
        study = Study(
            study.name, study.protocol, [a for a in study.arms if given.only in a.name], study.main, study.names
        )
    result = run(study, [int(seed) for seed in given.seeds.split(",")], given.runs, given.changes)
    write_text(given.json, json.dumps(result, indent=1) + "\n")
    plot(result, study.main, given.plot)
    print(f"\n{study.protocol}\n\n{text_table(result)}\n\nwritten: {given.json}, {given.plot}")
