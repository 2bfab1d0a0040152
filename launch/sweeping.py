"""A series of runs: one recipe with several seeds or settings, resumable, with one table at the end."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from wildfern.files import write_text
from wildfern.launch.cluster.launcher_environment import several_processes
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.components import read_recipe
from wildfern.launch.components import say as say_to_stderr
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import written_path
from wildfern.launch.run_folder import RunFolder, new_folder
from wildfern.launch.series_points import Axes, Run, grid, listed_points, random_points, read_axes, runs_of
from wildfern.launch.series_processes import run_all
from wildfern.launch.series_record import (
    DONE,
    FAILED,
    MOST_MESSAGE,
    STOPPED,
    WAITING,
    Entry,
    SeriesRecord,
    recipe_sha256,
)
from wildfern.launch.series_values import Range
from wildfern.recipes import Problem, Recipe, RecipeErrors
from wildfern.ssl.evaluation import Comparison, EvaluationResult, compare_runs, read_run, write_report
from wildfern.ssl.evaluation.report.run_groups import Group
from wildfern.ssl.evaluation.score_words import short_name

LOGS, RESULTS, REPORT = "logs", "results.json", "report.html"
MOST_IN_REPORT = 40  # runs with curves

Say = Callable[[str], None]


class SeriesFailed(Exception):
    """Some runs of a series failed; `table` is that of the others, `failed` the message of each by the name of its folder."""

    exit_code = 1

    def __init__(self, folder: Path, failed: dict[str, str], table: Comparison, total: int) -> None:
        listed = "".join(f"\n  {name}: {message}" for name, message in failed.items())
        super().__init__(
            f"{len(failed)} of {total} runs failed; --resume tries them again (series in {folder}):{listed}"
        )
        self.folder, self.failed, self.table = folder, failed, table


class SeriesStopped(Exception):
    """A series was stopped by a signal; `exit_code` is 128 + its number."""

    def __init__(self, folder: Path, done: int, total: int, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}: {done} of {total} runs are done; continue the series with the same "
            f"command, --run {folder} and --resume"
        )
        self.exit_code = 128 + number


def sweep(
    recipe: str | Path,
    changes: str | Sequence[str] = (),
    *,
    seeds: Sequence[int] | None = None,
    run: str | Path | None = None,
    random: int | None = None,
    list_file: str | Path | None = None,
    gpus: Sequence[int | str] = (),
    resume: bool = False,
    plugins: str | Path | Sequence[str | Path] = (),
    say: Say = say_to_stderr,
) -> Comparison:
    """Train a recipe once for each setting and seed, and return the table of their scores.

    `changes` are `key=value`, or `key=a,b` for several values: every combination is trained, or `random` points of them, or the
    settings in `list_file`. Each run is a process of its own, on one of the `gpus` if given. The folder `run` keeps the runs,
    `series.json`, `results.json` and `report.html`; `resume` continues there. Raises RecipeErrors with the errors of all settings
    before the first run starts, RunError for an invalid request, SeriesFailed at the end if runs failed, SeriesStopped
    after a signal.
    """
    words = [changes] if isinstance(changes, str) else list(changes)
    if random is not None and list_file is not None:
        raise RunError("--random and --list exclude each other: a list names its settings")
    axes = read_axes(words, _checked_seeds(seeds))
    files = [plugins] if isinstance(plugins, str | Path) else list(plugins)
    if list_file is not None:
        points = listed_points(axes, list_file)
    elif random is not None:
        points = random_points(axes, random, _recipe_seed(recipe, axes, files))
    else:
        points = grid(axes)
    return _train_series(recipe, runs_of(points, axes.seeds), run, gpus, resume, files, say)


def pretrain_seeds(
    recipe: str | Path,
    overrides: Sequence[str],
    seeds: Sequence[int],
    run: str | Path | None = None,
    resume: bool = False,
    plugins: Sequence[str | Path] = (),
    say: Say = say_to_stderr,
) -> Comparison:
    """Train one recipe once for each seed, in the folders `seed=0` … of `run`; otherwise like `sweep`."""
    axes = read_axes(list(overrides), _checked_seeds(seeds), split=False)
    return _train_series(recipe, runs_of(grid(axes), axes.seeds), run, (), resume, list(plugins), say)


def score(
    run: str | Path,
    dataset: str,
    protocol: str,
    metric: str | None = None,
    backbone: str = "pretrained",
) -> float:
    """One score in the `evaluation.json` of a run; a share is between 0 and 1.

    `protocol` is named as in the table or as in the file; `metric` defaults to its main one. Raises RunError,
    with what there is, if there is no such score.
    """
    folder = RunFolder.for_reading(run)
    rows = EvaluationResult.from_json(read_run(folder.path, whole=False).evaluation).rows
    named = [row for row in rows if protocol in (row["protocol"], short_name(row["protocol"]))]
    found = [row for row in named if (row["dataset"], row["backbone"]) == (dataset, backbone)]
    for row in found:
        if metric in (None, row["metric"]):
            return float(row["value"])
    there = dict.fromkeys(f"{r['dataset']}, {short_name(r['protocol'])}, {r['metric']}, {r['backbone']}" for r in rows)
    wanted = ", ".join([dataset, protocol, *([metric] if metric else []), backbone])
    raise RunError(
        f"{folder.path} has no score {wanted}; it has {'; '.join(there) or 'none: set evaluation.on, or use wildfern evaluate'}"
    )


def parse_seeds(text: str) -> list[int]:
    """The numbers in `0,1,2`. Raises RunError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        raise RunError(f"--seeds must be whole numbers with commas between, for example 0,1,2; got {text!r}")
    return [int(part) for part in parts]


def _checked_seeds(seeds: Sequence[int] | None) -> list[int] | None:
    if seeds is None:
        return None
    if wrong := [seed for seed in seeds if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0]:
        raise RunError(f"seeds are whole numbers of at least 0, got {wrong[0]!r}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise RunError(f"seeds must be different ones, at least one; got {list(seeds)}")
    return list(seeds)


def _recipe_seed(recipe: str | Path, axes: Axes, plugins: Sequence[str | Path]) -> int:
    """The recipe's own seed, from which random points are drawn."""
    try:
        return read_recipe(recipe, axes.fixed, plugins=plugins, announce=lambda message: None).seed
    except RecipeErrors:  # perhaps a key is missing that all points set
        first = [
            f"{key}={repr(values.low) if isinstance(values, Range) else values[0].text}"
            for key, values in axes.varied.items()
        ]
        return read_recipe(recipe, [*axes.fixed, *first], plugins=plugins, announce=lambda message: None).seed


def _train_series(
    recipe: str | Path,
    runs: Sequence[Run],
    folder: str | Path | None,
    gpus: Sequence[int | str],
    resume: bool,
    plugins: Sequence[str | Path],
    say: Say,
) -> Comparison:
    if not isinstance(recipe, str | Path):
        raise RunError(f"a series takes the name or path of a recipe, got {type(recipe).__name__}")
    if several_processes(os.environ):
        raise RunError("a series starts its runs itself: call it in one process, without a launcher")
    if len(set(map(str, gpus))) < len(gpus):
        raise RunError(f"--gpus names a GPU twice: {','.join(map(str, gpus))}")
    if folder is None and resume:
        raise RunError("--resume requires --run DIR")
    place = new_folder(str(recipe)) if folder is None else written_path(folder)
    recipes = _read_all(recipe, runs, plugins)
    entries = [Entry(run, recipe_sha256(found)) for run, found in zip(runs, recipes, strict=True)]
    record = SeriesRecord(place, str(recipe), [os.fspath(path) for path in plugins], entries)
    if not resume:
        record.check_new()
    for entry in entries:
        RunFolder(place / entry.run.name).check_files()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write the folder {place}: {error.strerror}") from error
    with lock(place):
        if not resume:
            record.check_new()
        elif not record.take_states():
            record.check_new()
            say("no series yet: starting with its first run")
        record.write()
        signal_number = _train_waiting(record, recipes, [str(gpu) for gpu in gpus], say)
        done = sum(entry.state == DONE for entry in entries)
        if signal_number is not None:
            raise SeriesStopped(place, done, len(entries), signal_number)
        table = _write_results(record)
        if done:
            say(f"table in {place / RESULTS}, report in {place / REPORT}")
    failed = {entry.run.name: entry.message for entry in entries if entry.state == FAILED}
    if failed:
        raise SeriesFailed(place, failed, table, len(entries))
    return table


def _read_all(recipe: str | Path, runs: Sequence[Run], plugins: Sequence[str | Path]) -> list[Recipe]:
    """The recipes of all runs. Raises RecipeErrors with the errors of all, each once, with the runs that have it."""
    found: list[Recipe] = []
    problems: dict[Problem, list[str]] = {}
    for run in runs:
        try:
            found.append(read_recipe(recipe, run.overrides, plugins=plugins, announce=lambda message: None))
        except RecipeErrors as errors:
            for problem in errors.problems:
                problems.setdefault(problem, []).append(run.name)
    if problems:
        raise RecipeErrors([_of_runs(problem, names, len(runs)) for problem, names in problems.items()])
    return found


def _of_runs(problem: Problem, names: Sequence[str], total: int) -> Problem:
    if len(names) == total:
        return problem
    of = f"run {names[0]}" if len(names) == 1 else f"{len(names)} of {total} runs, the first {names[0]}"
    return replace(problem, message=f"{problem.message} (in {of})")


def _train_waiting(record: SeriesRecord, recipes: Sequence[Recipe], gpus: Sequence[str], say: Say) -> int | None:
    """Train the runs that are not done; the number of a signal that stopped them, if one did."""
    entries, folder = record.entries, record.folder
    for entry in entries:
        if entry.state == DONE and not (folder / entry.run.name / "recipe.yaml").is_file():
            say(f"{entry.run.name}: its folder is gone, so it is trained again")
            entry.state = WAITING
    todo = [number for number, entry in enumerate(entries) if entry.state != DONE]
    settings = len({entry.run.point.changes for entry in entries})
    times = f" ({settings} settings x {len(entries) // settings} seeds)" if 1 < settings < len(entries) else ""
    done = len(entries) - len(todo)
    say(f"series of {len(entries)} runs{times} in {folder}" + (f"; {done} are done" if done else ""))
    if gpus and todo:
        (folder / LOGS).mkdir(exist_ok=True)

    def arguments(number: int) -> list[str]:
        run = entries[number].run
        now = read_recipe(record.recipe, run.overrides, plugins=record.plugins, announce=lambda message: None)
        if recipe_sha256(now) != entries[number].recipe_sha256:
            raise RunError("the recipe has changed since the series began: restore it, or start a new series")
        tracking = recipes[number].tracking
        grouped = tracking.wandb != "off" and tracking.group is None
        words = ["pretrain", record.recipe, *run.overrides]
        words += [f"tracking.group={json.dumps(folder.resolve().name)}"] if grouped else []
        words += [word for path in record.plugins for word in ("--plugin", path)]
        started = RunFolder(folder / run.name)
        resume = os.path.lexists(started.path / "recipe.yaml") or started.has_checkpoints()
        return [*words, "--run", str(started.path), *(["--resume"] if resume else [])]

    def began(number: int, gpu: str | None) -> None:
        on = "" if gpu is None else f" on GPU {gpu}, output in {folder / LOGS / _log(entries[number])}"
        say(f"run {number + 1} of {len(entries)}: {entries[number].run.name}{on}")

    def ended(number: int, code: int, message: str) -> None:
        entry = entries[number]
        entry.state = DONE if code == 0 else STOPPED if code > 128 else FAILED
        entry.message = "" if code == 0 else message[:MOST_MESSAGE]
        record.write()
        if gpus:
            say(f"{entry.run.name}: {'done' if code == 0 else message}")
        elif entry.state == FAILED:  # its own words have been shown; a killed process had none
            say(f"{entry.run.name}: {message if code < 0 else 'failed'}")

    commands = [
        (number, lambda number=number: arguments(number), folder / LOGS / _log(entries[number]) if gpus else None)
        for number in todo
    ]
    signal_number = run_all(commands, gpus, began, ended)
    if signal_number is None:
        for entry in entries:
            entry.state = FAILED if entry.state == STOPPED else entry.state  # by a signal to that run alone
        record.write()
    return signal_number


def _log(entry: Entry) -> str:
    return f"{entry.run.name}.txt"


def _write_results(record: SeriesRecord) -> Comparison:
    """The table of the runs that are done, also written as `results.json` and `report.html`."""
    entries = [entry for entry in record.entries if entry.state == DONE]
    left_out = {entry.run.name: "failed" for entry in record.entries if entry.state == FAILED}
    records = [
        read_run(record.folder / entry.run.name, whole=place < MOST_IN_REPORT) for place, entry in enumerate(entries)
    ]
    members: dict[tuple[str, ...], list[int]] = {}
    for place, entry in enumerate(entries):
        members.setdefault(entry.run.point.changes, []).append(place)
    groups = []
    for places in members.values():
        run = entries[places[0]].run
        groups.append(Group(run.setting or record.recipe, tuple(places), run.point.settings))
    table = compare_runs(records, [entry.run.name for entry in entries], groups, left_out)
    write_text(record.folder / RESULTS, json.dumps(table.as_json(), indent=2) + "\n")
    if records:
        write_report(records[:MOST_IN_REPORT], record.folder / REPORT, table)
    return table
