"""Run the arms of a study with several seeds, and collect scores as means and standard deviations, as JSON and as a plot."""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from wildfern.benchmarks.arguments import at_least_one
from wildfern.bounded_json import parse_json, read_json
from wildfern.files import write_text
from wildfern.launch.command import run_command
from wildfern.launch.errors import RunError
from wildfern.ssl.evaluation import EvaluationResult
from wildfern.ssl.tracking import environment

MOST_BYTES = 16 * 2**20
PICTURES = (".png", ".pdf", ".svg")
BACKBONE, PROTOCOLS = "backbone.safetensors", ("linear", "knn")
SMALL_RESNET = (
    "{backbone: resnet18, stem: cifar, arguments: {layers: [1, 1, 1, 1], channels: [16, 32, 64, 128], stem_width: 16, "
    "zero_init_last: false}}"
)


@dataclass(frozen=True)
class Arm:
    """One setting of a study: a bundled recipe and changes to it, in a `group` of arms that share a panel of the plot.

    recipe: None for an arm that is trained by other code.
    """

    name: str
    changes: Sequence[str]
    recipe: str | None = "quickstart"
    group: str = ""


@dataclass(frozen=True)
class Study:
    """`protocol`: what is equal between the arms and how they are evaluated, in sentences.

    on: the data sets to evaluate on, by their names in the results. main: (data set, protocol) of the plot.
    sources: names of sources, so that the results have no paths of one machine.
    """

    name: str
    protocol: str
    arms: Sequence[Arm]
    on: Mapping[str, str | dict[str, Any]]
    main: tuple[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """The text with the sources' names."""
        for source, name in self.sources.items():
            text = text.replace(source, name)
        return text


def run(study: Study, seeds: Sequence[int], folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Train every arm with every seed in `folder/seed=N/ARM`, and evaluate the arms of a seed together.

    What is finished is not repeated, and interrupted runs resume. Raises RunError for runs of other settings, RecipeErrors and
    DataError for settings and data sets that are none, before anything is trained.
    """
    check(study, seeds, folder, changes)
    rows = []
    for seed in seeds:  # all arms with one seed first: an interrupted study still compares
        paths = {arm.name: train(study, arm, seed, folder, changes) for arm in study.arms}
        groups = {arm.name: arm.group for arm in study.arms}
        for row in scores(study.on, paths, folder / f"seed={seed}" / "scores.json"):
            rows.append({"group": groups[row["arm"]], **row})
    return outcome(study, seeds, changes, rows)


def check(study: Study, seeds: Sequence[int], folder: Path, changes: Sequence[str]) -> None:
    """Raise an error for recipes, data sets and former runs with which the study would end later."""
    from wildfern.launch.evaluation_data import evaluation_sources
    from wildfern.launch.protocols import check_request

    for arm in study.arms:
        for seed in seeds:
            if arm.recipe is not None:
                Record.of(arm, seed, folder, changes).finished()
    evaluation_sources(check_request([*study.on.values()], PROTOCOLS)[0])


@dataclass(frozen=True)
class Record:
    """What is known of a run of a study: the file `seed=N/ARM.json`, with the recipe, and whether it was trained to its end."""

    recipe: Any
    file: Path
    path: Path

    @classmethod
    def of(cls, arm: Arm, seed: int, folder: Path, changes: Sequence[str]) -> "Record":
        """The run of an arm and a seed. Raises RecipeErrors if the settings are no recipe."""
        from wildfern.launch.components import read_recipe

        name = arm.name.replace(" ", "_").replace("/", "-")
        settings = [*arm.changes, *changes, "evaluation.on=[]", f"seed={seed}"]
        below = folder / f"seed={seed}"
        return cls(read_recipe(arm.recipe, settings), below / f"{name}.json", below / name)

    def finished(self) -> bool:
        """Whether the run is complete. Raises RunError if it is one of other settings."""
        try:
            found = read_json(self.file, MOST_BYTES)
            settings, finished = found["recipe"], found["finished"]
        except FileNotFoundError:
            if self.path.exists():
                raise RunError(f"{self.path} is no run of this study: choose another folder with --runs") from None
            return False
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self.file} is damaged: remove it and {self.path} ({error})") from error
        if settings != self._settings():
            raise RunError(f"{self.path} is a run of other settings: choose another folder with --runs")
        return finished is True and (self.path / BACKBONE).is_file()

    def write(self, finished: bool) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps({"finished": finished, "recipe": self._settings()}, indent=1) + "\n")

    def _settings(self) -> Any:
        return parse_json(json.dumps(self.recipe.as_dict(), default=str))


def train(study: Study, arm: Arm, seed: int, folder: Path, changes: Sequence[str]) -> Path:
    """The run folder `folder/seed=N/ARM`, trained to its end without evaluation."""
    from wildfern.launch import pretrain
    from wildfern.launch.training_run import Stopped

    assert arm.recipe is not None
    record = Record.of(arm, seed, folder, changes)
    if not record.finished():
        print(f"\n== {study.name}: {arm.name}, seed {seed}", flush=True)
        record.write(finished=False)
        try:
            pretrain(record.recipe, run=record.path, resume=record.path.exists())
        except Stopped:
            print("To go on with the study, repeat this command.", file=sys.stderr)
            raise
        record.write(finished=True)
    return record.path


def outcome(
    study: Study, seeds: Sequence[int], changes: Sequence[str], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What is written of a study, with its rows summed up."""
    return {
        "study": study.name,
        "protocol": study.protocol,
        "seeds": list(seeds),
        "changes": [study.named(change) for change in changes],
        "arms": {arm.name: [arm.recipe, *map(study.named, arm.changes)] if arm.recipe else [] for arm in study.arms},
        "rows": summary(rows),
        "environment": environment(),
    }


def scores(on: Mapping[str, str | dict[str, Any]], runs: Mapping[str, Path], stored: Path) -> list[dict[str, Any]]:
    """Accuracies {arm, dataset, protocol, value, network, random} of finished runs by linear probe and kNN on frozen features.

    `random` is the value of the same `network` with random weights. They are kept in the file `stored`, and read from it as long
    as data sets and backbones are the same.
    """
    from wildfern.launch import evaluate
    from wildfern.launch.protocols import check_request
    from wildfern.launch.run_folder import RunFolder

    of = {name: hashlib.sha256((path / BACKBONE).read_bytes()).hexdigest() for name, path in runs.items()}
    key = {"on": {name: str(entry) for name, entry in on.items()}, "backbones": of}
    with suppress(OSError, ValueError, TypeError, KeyError):  # missing or damaged: evaluated again
        found = read_json(stored, MOST_BYTES)
        if found["of"] == key:
            return list(found["rows"])
    print(f"evaluating {len(runs)} runs", flush=True)
    result = evaluate([*runs.values()], on=[*on.values()], protocols=PROTOCOLS)
    names = {dataset.label: name for dataset, name in zip(check_request([*on.values()], PROTOCOLS)[0], on, strict=True)}
    arms = {path.name if len(runs) > 1 else "pretrained": name for name, path in runs.items()}
    # The rows of several runs have the names of run and network.
    only = RunFolder.for_reading(*runs.values()).recipe().model.backbone if len(runs) == 1 else None
    rows = [
        {**scored(result, row, names), "arm": arms[row["backbone"]], **({"network": only} if only else {})}
        for row in result.main_rows()
        if row["backbone"] in arms
    ]
    write_text(stored, json.dumps({"of": key, "rows": rows}, indent=1) + "\n")
    return rows


def scored(result: EvaluationResult, row: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """{arm, dataset, protocol, value, network, random} of a row of an evaluation; `names` are those of its data sets."""
    random = result.baseline_row(row)
    return {
        "arm": row["backbone"],
        "dataset": names[row["dataset"]],
        "protocol": short(row["protocol"]),
        "value": row["value"],
        "network": random["backbone"].removesuffix(" random"),
        "random": random["value"],
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds of every arm, data set and protocol, and the random network's mean; in %."""
    keys, grouped = ("group", "arm", "dataset", "protocol", "network"), {}
    for row in rows:
        grouped.setdefault(tuple(row[key] for key in keys), []).append((100 * row["value"], 100 * row["random"]))
    found = []
    for key, pairs in grouped.items():
        values, random = zip(*pairs, strict=True)
        found.append(
            {
                **dict(zip(keys, key, strict=True)),
                "mean": round(fmean(values), 2),
                "std": round(stdev(values), 2) if len(values) > 1 else None,
                "values": [round(value, 2) for value in values],
                "random": round(fmean(random), 2),
            }
        )
    return found


def text_table(result: dict[str, Any]) -> str:
    """Lines of Markdown: an arm in each row, a data set and protocol in each column, networks with random weights last."""
    rows = result["rows"]
    columns = list(dict.fromkeys((row["dataset"], row["protocol"]) for row in rows))
    cells = {(row["arm"], row["dataset"], row["protocol"]): row for row in rows}
    lines = ["| | " + " | ".join(f"{dataset}, {protocol}" for dataset, protocol in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for arm in dict.fromkeys(row["arm"] for row in rows):
        lines.append(f"| {arm} | " + " | ".join(_cell(cells[arm, *column]) for column in columns) + " |")
    random = {(row["network"], row["dataset"], row["protocol"]): row["random"] for row in rows}
    for network in dict.fromkeys(row["network"] for row in rows):
        values = [f"{random[network, *column]:.1f}" for column in columns]
        lines.append(f"| {network}, random weights | " + " | ".join(values) + " |")
    return "\n".join(lines)


def short(protocol: str) -> str:
    """The protocol's name without its arguments."""
    return protocol.split(" (")[0]


def _cell(row: dict[str, Any]) -> str:
    return f"{row['mean']:.1f}" + ("" if row["std"] is None else f" ± {row['std']:.1f}")


def plot(result: dict[str, Any], main: tuple[str, str], path: Path) -> None:
    """A PNG: mean and each seed of every arm, on the main data set and protocol, with the random network as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [row for row in result["rows"] if (row["dataset"], row["protocol"]) == main]
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
        for random in dict.fromkeys(row["random"] for row in mine):
            axis.axvline(random, color="#b0572f", linestyle=":", label="random weights")
        axis.set_yticks(range(len(mine)), [row["arm"] for row in reversed(mine)], fontsize=8)
        axis.set_ylim(-0.6, len(mine) - 0.4)
        axis.set_title(group, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel(
        f"{main[0]}, {main[1]}: accuracy in % (mean ± standard deviation of {len(result['seeds'])} seeds)", fontsize=8
    )
    axes[0, 0].legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def cifar10(source: str) -> dict[str, str | dict[str, Any]]:
    """`on` of a study: CIFAR-10 with the first 10 000 training images, all test images, as a probe of all takes too long."""
    return {"cifar10": {"source": "finite", "of": source, "items": 10_000}}


def quoted(text: str) -> str:
    """The text as YAML, for a change to a recipe."""
    return json.dumps(text, ensure_ascii=False)


def command(make: Any, module: str, description: str, run: Any = run) -> None:
    """The command line of a study: `make(arguments) -> Study`, with the options that all studies share, and how to run it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", default="cifar10", help="source of CIFAR-10: cifar10, or parquet:FOLDER")
    parser.add_argument("--steps", type=at_least_one, help="steps of each run (default: those of the study)")
    parser.add_argument("--seeds", type=_seeds, default="0,1,2", help="for example 0,1,2")
    parser.add_argument("--only", help="settings (arms) whose names contain this")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies") / module, help="folder of the runs")
    parser.add_argument("--json", type=Path, default=Path(f"study_{module}.json"), help="file of the scores")
    parser.add_argument("--plot", type=Path, default=Path(f"study_{module}.png"), help="file of the plot")
    parser.add_argument("changes", nargs="*", help="further changes to the recipes: key.sub=value")
    given = parser.parse_args()
    if given.plot.suffix.lower() not in PICTURES:
        parser.error(f"--plot {given.plot}: the name must end in one of {', '.join(PICTURES)}")

    def work() -> None:
        from wildfern.launch.output_paths import output_file, write_json_file

        results, picture = output_file(given.json), output_file(given.plot)
        study = make(given)
        if given.only:
            study = replace(study, arms=[arm for arm in study.arms if given.only in arm.name])
            if not study.arms:
                names = ", ".join(arm.name for arm in make(given).arms)
                raise RunError(f"no arm has {given.only!r} in its name; there are: {names}")
        result = run(study, given.seeds, given.runs, given.changes)
        write_json_file(results, result)
        plot(result, study.main, picture)
        print(f"\n{study.protocol}\n\n{text_table(result)}\n\nwritten: {given.json}, {given.plot}")

    run_command(work)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas, such as 0,1,2, not {text!r}") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError("must be different numbers of 0 or more")
    return seeds
