"""Evaluate backbones of runs, together with the same networks at random weights, and any other networks."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wildfern.files import updating
from wildfern.launch.errors import DISK_FAULTS, RunError, user_errors
from wildfern.launch.evaluated import (
    BackboneLike,
    Evaluated,
    baselines,
    check_networks,
    of_name,
    of_recipe,
    of_run,
    run_names,
)
from wildfern.launch.feature_cache import data_key, feature_store
from wildfern.launch.notebook_progress import shown_in_notebook
from wildfern.launch.protocols import (
    Dataset,
    DatasetLike,
    ProtocolLike,
    check_dataset,
    check_protocols,
    check_request,
)
from wildfern.launch.python_errors import brief_in_notebooks, in_command
from wildfern.launch.run_folder import RunFolder, kept_aside
from wildfern.launch.threads import set_threads
from wildfern.launch.trained_on_test import trained_on_test
from wildfern.recipes import Recipe
from wildfern.ssl.data import Source, open_source, source_signature
from wildfern.ssl.evaluation import (
    EvaluationResult,
    Evaluator,
    FeatureStore,
    evaluate_backbones,
    write_report,
)
from wildfern.ssl.evaluation.label_checks import check_labels
from wildfern.ssl.evaluation.labeled_chunks import check_number_of_labels, label_array
from wildfern.ssl.evaluation.report.image_details import read_details, write_details
from wildfern.ssl.evaluation.result import upgraded_rows
from wildfern.ssl.evaluation.stored_result import EVALUATION, read_evaluation
from wildfern.ssl.tracking import Progress


class NotWritten(RunError):
    """The scores are complete, in `evaluation`, but a file of the run folder could not be written: a full disk, for example."""

    def __init__(self, evaluation: EvaluationResult, reason: OSError) -> None:
        super().__init__(
            f"cannot write {reason.filename}: {reason.strerror}. The scores are complete; free disk space and repeat the command "
            "to keep them in the run folder, or write them elsewhere with --json FILE"
        )
        self.evaluation = evaluation


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
) -> EvaluationResult:
    """Compare backbones on labeled data sets: those of runs with the same networks at random weights, and any others.

    `on` lists sources ("digits") or mappings ({"source": "parquet:X", "image_column": "img"}), `protocols` evaluators ("linear")
    or mappings ({"name": "knn", "k": 5}); a recipe's own entries work too. `few_shot` adds a linear probe and kNN on N labels per
    class, with `seeds` draws. `backbones` are names ("resnet50", random weights) or pairs ("resnet50", "timm"), ("resnet50",
    "x.pth"), on images of `size` px (default: the network's own size), with the network's mean, deviation and interpolation.

    One run writes its `evaluation.json` and report, unless its folder is read-only; its rows are `random`, `start` (if it started
    from weights) and `pretrained`. Several runs write nothing; their rows have the names of the runs. `announce` gets progress (a
    function: a line for each part, and every 5 s within it), `say` messages to keep; without `announce` both are shown in a
    notebook only. `batch_size` is that of feature extraction, `threads` the number of torch's.
    `against` names the row that all others are compared with, instead of the random one of the same network. Features of files
    are kept in the folder `cache` ("auto": the user's cache folder) and found there by later evaluations; at most `memory_gb` of
    features and images are in memory at once.
    Raises RecipeErrors with all wrong names and arguments before anything is read, RunError for a folder that is not a run
    and for backbones that cannot be built, DataError for a data set that cannot be opened, and NotWritten, which holds the
    scores, where the disk is full.
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
            models[next(text for n in count(1) if (text := label + (f" ({n})" if n > 1 else "")) not in models)] = model

        unwritten: OSError | None = None

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
        evaluation = _evaluate_on(
            sources, models, evaluators, progress, save, baseline, batch_size, store, keys, trained
        )
        if store.problem is not None:
            say(f"features are not kept: {store.problem}")
        if store.found:
            say(f"features found in {store.folder}: {store.found} (one for each network and split)")
        if written is not None:
            progress.part("writing the report")
            report = written.path / "report.html"
            unwritten = unwritten or _disk_fault(lambda: write_report([written.path], report))
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


def save_merged(
    folder: RunFolder,
    evaluation: EvaluationResult,
    say: Callable[[str], None],
    backbone_sha256: str | None = None,
) -> None:
    """Write what is `merged` to the folder's `evaluation.json`; of two processes that do so at once, both keep their rows."""
    with updating(folder.path):
        earlier, _ = read_evaluation(folder.path)
        same = earlier.get("backbone_sha256") == (backbone_sha256 or folder.backbone_sha256())
        folder.write_json(EVALUATION, merged(folder, evaluation.as_json(), backbone_sha256, say))
        for dataset, details in evaluation.details.items():
            with suppress(ValueError):  # damaged: replaced
                details = details.with_earlier(read_details(folder.path, dataset) if same else None)
            write_details(folder.path, details)


def merged(
    folder: RunFolder,
    evaluation: dict,
    backbone_sha256: str | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> dict:
    """The evaluation, with the other rows of the folder's `evaluation.json`.

    Only rows of the same backbone are kept: `backbone_sha256` is that of the file that was evaluated (default: of
    the current `backbone.safetensors`), and is stored with the evaluation. The rows of a file without a hash are
    dropped: they may be of another backbone. A damaged file is set aside, with a message; what can be read of it is kept.
    """

    def what(row: dict) -> tuple:
        return row["dataset"], row["protocol"], row["backbone"]

    sha256 = backbone_sha256 or folder.backbone_sha256()
    earlier, faults = read_evaluation(folder.path)
    if faults:
        say(kept_aside(folder.path / EVALUATION, faults[0]))
    rows = upgraded_rows(earlier.get("rows", [])) if earlier.get("backbone_sha256") == sha256 else []
    new = {what(row) for row in evaluation["rows"]}
    kept = [row for row in rows if what(row) not in new]
    described = {row["protocol"] for row in kept}
    protocols = {name: words for name, words in earlier.get("protocols", {}).items() if name in described}
    known = {row["dataset"] for row in kept} - {row["dataset"] for row in evaluation["rows"]}
    notes = {name: found for name, found in earlier.get("notes", {}).items() if name in known}
    return {
        **evaluation,
        "protocols": protocols | evaluation["protocols"],
        "notes": notes | evaluation.get("notes", {}),
        "rows": kept + evaluation["rows"],
        "backbone_sha256": sha256,
    }


def evaluation_sources(on: Iterable[DatasetLike | Dataset], download: bool = False) -> dict[str, tuple[Source, Source]]:
    """The train and test parts of each data set, by its label."""
    datasets = [one if isinstance(one, Dataset) else check_dataset(one) for one in on]
    return {dataset.label: labeled(dataset, download) for dataset in datasets}


def labeled(dataset: DatasetLike | Dataset, download: bool = False) -> tuple[Source, Source]:
    """The train and test parts of a data set; `download` downloads it if its source can.

    Classes of a folder are its sub-folders. Of a folder, parquet files, shards or a data set of the hub without a test split one
    image in five is test. Arguments of the data set override this.
    """
    if not isinstance(dataset, Dataset):
        dataset = check_dataset(dataset)
    source = dataset.source
    scheme = source.partition(":")[0]
    arguments: dict[str, Any] = (
        {"test_fraction": 0.2} if scheme in ("folder", "parquet", "webdataset", "hf", "csv") else {}
    )
    if scheme == "folder":
        arguments["labels"] = "folders"
    if download and "download" in inspect.signature(source_signature(source)).parameters:
        arguments["download"] = True
    arguments |= dataset.arguments
    train, test = open_source(source, "train", **arguments), open_source(source, "test", **arguments)
    if train.num_items is None:
        raise RunError(
            f"{source} is endless and cannot be evaluated on; name a data set with labels, for example digits"
        )
    return train, test


def evaluate_on(
    sources: Mapping[str, tuple[Source, Source]],
    backbones: Mapping[str, nn.Module],
    recipe: Recipe,
    protocols: Sequence[ProtocolLike],
    few_shot: Sequence[int],
    seeds: int,
    progress: Progress,
    save: Callable[[EvaluationResult], None] | None = None,
    folder: RunFolder | None = None,
) -> EvaluationResult:
    """Evaluate on every data set in turn, with images at the size of the recipe's largest views and preprocessed like these.

    `save` gets the scores of each data set once they are known, so that an error on a later one does not lose them, with the
    details for a report. Test images that the run in `folder` was trained on are counted in the notes.
    """
    evaluators = check_protocols(protocols, few_shot, seeds)
    models = of_recipe(recipe, backbones, choose_device(recipe.training.device))
    trained = [] if folder is None else [(folder, recipe)]
    return _evaluate_on(sources, models, evaluators, progress, save, "random", trained=trained)


def _evaluate_on(
    sources: Mapping[str, tuple[Source, Source]],
    models: Mapping[str, Evaluated],
    evaluators: Mapping[str, Evaluator],
    progress: Progress,
    save: Callable[[EvaluationResult], None] | None,
    baseline: str | Mapping[str, str],
    batch_size: int = 256,
    store: FeatureStore | None = None,
    keys: Mapping[str, Mapping[str, str]] | None = None,
    trained: Sequence[tuple[RunFolder, Recipe]] = (),
) -> EvaluationResult:
    if not sources or not evaluators:
        raise RunError(
            "nothing to evaluate: name at least one data set, and a protocol or a number of labels per class"
        )
    _check_for_labels(sources, evaluators)
    for label, model in models.items():
        check_channels_of(sources, model.channels, label)
        check_networks_of(evaluators, model.backbone, model.preprocessing.size)
    backbones = {label: model.backbone for label, model in models.items()}
    preprocessing = {label: model.preprocessing for label, model in models.items()}
    results = []
    for name, (train, test) in sources.items():
        result = evaluate_backbones(
            backbones,
            train,
            test,
            dataset=name,
            evaluators=evaluators,
            preprocessing=preprocessing,
            baseline=baseline,
            batch_size=batch_size,
            progress=progress,
            store=store,
            data_keys=(keys or {}).get(name),
            details=save is not None,
        )
        notes = [note for folder, recipe in trained if (note := trained_on_test(folder, recipe, test)) is not None]
        if notes:
            result = replace(result, notes={name: [*notes, *result.notes.get(name, [])]})
        if save is not None:
            save(result)
        results.append(result)
    return sum(results[1:], start=results[0])


def check_networks_of(
    evaluators: Mapping[str, Evaluator], backbone: nn.Module, size: int | None, where: str = ""
) -> None:
    """Raise RunError if an evaluator cannot take the backbone, or images of `size` pixels; `where` the evaluators are named."""
    for protocol, evaluator in evaluators.items():
        try:
            evaluator.check_network(backbone, size)
        except ValueError as error:
            raise RunError(": ".join([*([where] if where else []), protocol, str(error)])) from error


def _check_for_labels(sources: Mapping[str, tuple[Source, Source]], evaluators: Mapping[str, Evaluator]) -> None:
    needing = [
        protocol for protocol, evaluator in evaluators.items() if evaluator.needs_labels and not evaluator.targets
    ]
    for name, pair in sources.items() if needing else ():
        if any(source.num_classes is None for source in pair):
            raise RunError(f"{name} has no labels, which {' and '.join(needing)} cannot do without")
    predicting = [protocol for protocol, evaluator in evaluators.items() if evaluator.targets]
    for name, pair in sources.items() if predicting else ():
        if not all(source.parameter_names for source in pair):
            raise RunError(
                f"{name} has no numbers that {' and '.join(predicting)} could predict: name columns of them, as in "
                "{source: parquet:PATH, target_columns: [age]}"
            )


def check_labels_of(sources: Mapping[str, tuple[Source, Source]], evaluators: Mapping[str, Evaluator]) -> None:
    """Raise RunError or ValueError for a data set whose labels are missing or of no use to an evaluator.

    Reads labels, but no images; a source that keeps its labels with the images is checked when these are read.
    """
    _check_for_labels(sources, evaluators)
    needing = [
        protocol for protocol, evaluator in evaluators.items() if evaluator.needs_labels and not evaluator.targets
    ]
    single_label = [protocol for protocol in needing if not evaluators[protocol].multi_label]
    for name, pair in sources.items() if needing else ():
        found = [getattr(source, "labels", None) for source in pair]
        if any(labels is None for labels in found):
            continue
        train, test = (label_array(labels) for labels in found)
        check_number_of_labels(train, f"{name} (train)", single_label)
        check_labels(name, *(labels[labels >= 0] if labels.ndim == 1 else labels for labels in (train, test)))


def check_channels_of(
    sources: Mapping[str, tuple[Source, Source]], channels: int, backbone: str = "the backbone"
) -> None:
    """Raise RunError for a data set whose images do not have as many channels as a backbone is made for."""
    for name, (train, _) in sources.items():
        if train.channels != channels:
            raise RunError(
                f"{name} gives images of {train.channels} channels, but {backbone} takes {channels}: "
                "choose the bands, for example {source: folder:PATH, bands: [3, 2, 1]}"
            )


def choose_device(name: str) -> torch.device:
    """The device of `training.device`; `auto` is the GPU if there is one. Raises RunError for a missing device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise RunError(f"training.device is {name}, but this machine has none that torch can use")
    return torch.device(name)


def scores(evaluation: EvaluationResult) -> dict[str, float]:
    """The main metric of the pretrained backbone for `metrics.jsonl`: {"DATASET/PROTOCOL": value}."""
    rows = [row for row in evaluation.main_rows() if row["backbone"] == "pretrained"]
    return {f"{row['dataset']}/{row['protocol']}": row["value"] for row in rows}
