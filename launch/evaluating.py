"""Evaluate backbones of runs, together with the same networks at random weights, and any other networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from wildfern.launch.device import choose_device
from wildfern.launch.errors import DISK_FAULTS, RunError, user_errors
from wildfern.launch.evaluate_datasets import Unfinished, evaluate_datasets
from wildfern.launch.evaluated import (
    BackboneLike,
    Evaluated,
    baselines,
    check_networks,
    of_name,
    of_run,
    run_names,
)
from wildfern.launch.evaluation_data import evaluation_sources
from wildfern.launch.feature_cache import data_key, feature_store
from wildfern.launch.notebook_progress import shown_in_notebook
from wildfern.launch.output_paths import output_folder
from wildfern.launch.protocols import (
    DatasetLike,
    ProtocolLike,
    check_request,
)
from wildfern.launch.python_errors import brief_in_notebooks, in_command
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.saved_evaluation import save_alone, save_merged
from wildfern.launch.threads import set_threads
from wildfern.recipes import Recipe
from wildfern.ssl.evaluation import (
    EvaluationResult,
    write_report,
)
from wildfern.ssl.evaluation.stored_result import EVALUATION
from wildfern.ssl.tracking import Progress


class NotWritten(Unfinished):
    """The scores are complete, in `evaluation`, but a file of the run folder could not be written: a full disk, for example."""

    def __init__(self, evaluation: EvaluationResult, reason: OSError) -> None:
        message = (
            f"cannot write {reason.filename}: {reason.strerror}. The scores are complete; free disk space and repeat the command "
            "to keep them in the run folder, or write them elsewhere with --json FILE"
        )
        super().__init__(message, evaluation)


@brief_in_notebooks()
def evaluate(
    run: str | Path | Sequence[str | Path] | None = None,
    on: DatasetLike | Sequence[DatasetLike] = (),
    protocols: ProtocolLike | Sequence[ProtocolLike] = ("linear", "knn"),
    few_shot: Sequence[int] = (),
    seeds: int = 5,
    announce: Callable[[str], None] | Progress | None = None,
    download: bool = False,
    backbones: Sequence[BackboneLike] = (),
    size: int | None = None,
    say: Callable[[str], None] | None = None,
    batch_size: int = 256,
    threads: int | None = None,
    against: str | None = None,
    cache: str | Path | None = None,
    memory_gb: float = 4.0,
    out: str | Path | None = None,
) -> EvaluationResult:
    """Compare backbones on labeled data sets: those of runs with the same networks at random weights, and any others.

    `on` lists sources ("digits") or mappings ({"source": "parquet:X", "image_column": "img"}), `protocols` evaluators ("linear")
    or mappings ({"name": "knn", "k": 5}); a recipe's own entries work too. `few_shot` adds a linear probe and kNN on N labels per
    class, with `seeds` draws. `backbones` are names ("resnet50", random weights) or pairs ("resnet50", "timm"), ("resnet50",
    "x.pth"), on images of `size` px (default: the network's own size), with the network's mean, deviation and interpolation.

    One run writes its `evaluation.json` and report, unless its folder is read-only; its rows are `random`, `start` (if it started
    from weights) and `pretrained`. Rows of several runs have the names of the runs, and are not written to their folders. `out`
    is a folder for this evaluation alone: `evaluation.json` with all rows, and `report.html`. `announce` gets progress (a
    function: a line for each part, and every 5 s within it), `say` messages to keep; without `announce` both are shown in a
    notebook only. `batch_size` is that of feature extraction, `threads` the number of torch's.
    `against` names the row that all others are compared with, instead of the random one of the same network. Features of files
    are kept in the folder `cache` ("auto": the user's cache folder) and found there by later evaluations; at most `memory_gb` of
    features and images are in memory at once.
    Raises RecipeErrors with all wrong names and arguments before anything is read, RunError for a folder that is not a run
    and for backbones that cannot be built, DataError for a data set that cannot be opened, and Unfinished, which holds all scores
    that could be computed, where a protocol or a data set failed or the disk is full (NotWritten).
    """
    if not on:
        raise RunError("nothing to evaluate on: name a data set, for example digits")
    on = as_list(on, (str, Mapping), "on must be a data set such as digits, or a list of them")
    protocols = as_list(protocols, (str, Mapping), "protocols must be a protocol such as knn, or a list of them")
    few_shot = as_list(few_shot, (int, str), "few_shot must be a number of labels per class, or a list of them")
    runs = as_list(run, (str, Path), "run must be a run folder, or a list of them")
    backbones = as_list(backbones, (str,), "backbones must be a list of networks")
    if not runs and not backbones:
        raise RunError("nothing to evaluate: name a run folder, or a network with --backbone NAME")
    if size is not None and not backbones:
        raise RunError("--size is for --backbone: a run is evaluated at the size of its views")
    folders = [RunFolder.for_reading(path) for path in runs]
    names = run_names(folders)
    check_networks(backbones, size)
    datasets, evaluators = check_request(on, protocols, few_shot, seeds)
    out = None if out is None else output_folder(out, EVALUATION)
    recipes = [folder.recipe() for folder in folders]
    store = feature_store(cache, memory_gb)
    device = choose_device(recipes[0].training.device if recipes else "auto")
    with shown_in_notebook(announce, say, "evaluated") as (progress, say), user_errors():
        for message in set_threads(threads):
            say(message.replace("training.threads=1", "--threads 1" if in_command() else "threads=1"))
        progress.part(f"opening {', '.join(dataset.label for dataset in datasets)}")
        sources = evaluation_sources(datasets, download)  # all are opened before the first one is evaluated
        # Hashed before the weights are read, so that a training that replaces them in between cannot mislabel these rows.
        sha256 = folders[0].backbone_sha256() if len(folders) == 1 else None
        written = folders[0] if len(folders) == 1 and folders[0].is_writable() else None
        progress.part("building the networks")
        models: dict[str, Evaluated] = {}
        for folder, name, recipe in zip(folders, names, recipes, strict=True):
            start, reason = folder.start_backbone(recipe)
            if reason is not None:
                say(reason if len(folders) == 1 else f"{name}: {reason}")
            found = of_run(folder, recipe, start, device)
            models |= found if len(folders) == 1 else _named(found, name, recipe, models)
        own = dict(models)
        for wanted in backbones:
            label, model, message = of_name(wanted, size, device)
            if message is not None:
                say(message)
            if label in models and models[label].preprocessing.size != model.preprocessing.size:
                label = f"{label}, {model.preprocessing.size} px"
            models[next(text for n in count(1) if (text := label + (f" ({n})" if n > 1 else "")) not in models)] = model

        unwritten: OSError | None = None
        unfinished: Unfinished | None = None

        def save(result: EvaluationResult) -> None:
            nonlocal unwritten
            if written is not None:
                unwritten = _disk_fault(lambda: save_merged(written, result.only(own, "random"), say, sha256))

        baseline = "random" if len(folders) == 1 and not backbones else baselines(models)
        if against is not None:
            if against not in models:
                raise RunError(f"--against {against}: no such row; there are {', '.join(models)}")
            baseline = against
        keys = {
            dataset.label: {
                split: key
                for split, source in zip(("train", "test"), sources[dataset.label], strict=True)
                if store.folder is not None and (key := data_key(dataset, split, source)) is not None
            }
            for dataset in datasets
        }
        trained = list(zip(folders, recipes, strict=True))
        try:
            evaluation = evaluate_datasets(
                sources, models, evaluators, progress, save, baseline, batch_size, store, keys, trained
            )
        except Unfinished as error:
            evaluation, unfinished = error.evaluation, error
        if store.problem is not None:
            say(f"features are not kept: {store.problem}")
        if store.found:
            say(f"features found in {store.folder}: {store.found} (one for each network and split)")
        if written is not None or out is not None:
            progress.part("writing the report")
        if out is not None:
            unwritten = unwritten or _disk_fault(lambda: save_alone(out, evaluation))
        if written is not None:
            report = written.path / "report.html"
            unwritten = unwritten or _disk_fault(lambda: write_report([written.path], report))
    if unfinished is not None:
        raise unfinished
    if unwritten is not None:
        raise NotWritten(evaluation, unwritten) from unwritten
    return evaluation


def _disk_fault(write: Callable[[], object]) -> OSError | None:
    """The error of a full or read-only disk that `write` met, if any; others are raised."""
    try:
        write()
    except OSError as error:
        if error.errno not in DISK_FAULTS or error.filename is None:
            raise
        return error
    return None


def as_list(value: Any, single: tuple[type, ...], expected: str) -> list[Any]:
    """A list of what was given alone, in any collection, or not at all. Raises RunError, with `expected`, for anything else."""
    if value is None or isinstance(value, single):
        return [] if value is None else [value]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise RunError(f"{expected}; got {value!r}")
    return list(value)


def _named(
    found: Mapping[str, Evaluated], name: str, recipe: Recipe, before: Mapping[str, Evaluated]
) -> dict[str, Evaluated]:
    """One of several runs: its backbones by the name of the run, and the random one unless an earlier run has the same."""
    labels = {"random": f"{recipe.model.backbone} random", "start": f"{name} start", "pretrained": name}
    if labels["random"] in before:
        labels["random"] = f"{name} random"
    there = [model.network for model in before.values() if model.random]
    return {labels[row]: model for row, model in found.items() if not (model.random and model.network in there)}
