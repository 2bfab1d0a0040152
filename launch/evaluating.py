"""Evaluate a run's backbone, always beside the same network untrained."""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Component, EvaluationEntry, Recipe
from wildfern.ssl.augmentation import MEAN, STD, VIEWS
from wildfern.ssl.data import Source, open_source, source_signature
from wildfern.ssl.evaluation import Evaluation, evaluate_backbones, write_report


def evaluate(
    run: str | Path,
    on: Sequence[str] = (),
    protocols: Sequence[str] = ("linear", "knn"),
    few_shot: Sequence[int] = (),
    seeds: int = 3,
    announce: Callable[[str], None] = lambda text: None,
    download: bool = False,
) -> Evaluation:
    """Hold the run's backbone against its untrained copy on data sets with labels, and write `evaluation.json`.

    Raises RunError for a folder that is no run and DataError for a data set that cannot be opened.
    """
    if not on:
        raise RunError("nothing to evaluate on: name a data set, for instance --on digits")
    folder = RunFolder.for_reading(Path(run))
    recipe = folder.recipe()
    with user_errors():
        sources = {
            name: labeled(name, download) for name in on
        }  # all opened first: a wrong name should not cost an hour
        # Before the weights are read: should a training replace them in between, these rows are not taken for the new ones'.
        sha256 = folder.backbone_sha256()
        backbones = {"untrained": folder.backbone(trained=False), "pretrained": folder.backbone()}
        evaluation = evaluate_on(sources, backbones, recipe, protocols, few_shot, seeds, announce)
    folder.write_json("evaluation.json", merged(folder, evaluation.as_json(), sha256))
    write_report([folder.path], folder.path / "report.html")
    return evaluation


def merged(folder: RunFolder, evaluation: dict, backbone_sha256: str | None = None) -> dict:
    """The evaluation with those rows kept of the `evaluation.json` in the folder that it does not measure anew.

    Kept are rows of the same backbone alone: `backbone_sha256` is that of the file that was evaluated (of
    `backbone.safetensors` as it is now, if None), and the evaluation carries it along. A file without one is not known to
    be of this backbone; none of its rows stays.
    """

    def what(row: dict) -> tuple:
        return row["dataset"], row["protocol"], row["backbone"]

    sha256 = backbone_sha256 or folder.backbone_sha256()
    path = folder.path / "evaluation.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = earlier["rows"] if earlier.get("backbone_sha256") == sha256 else []
    new = {what(row) for row in evaluation["rows"]}
    kept = [row for row in rows if what(row) not in new]
    described = {row["protocol"] for row in kept}
    protocols = {name: words for name, words in earlier.get("protocols", {}).items() if name in described}
    return {
        **evaluation,
        "protocols": protocols | evaluation["protocols"],
        "rows": kept + evaluation["rows"],
        "backbone_sha256": sha256,
    }


def labeled(dataset: str | EvaluationEntry, download: bool = False) -> tuple[Source, Source]:
    """The train and test parts of a data set with labels; `download` fetches it where its source can.

    Classes of a folder are its sub-folders, and one file in five its test part unless it has folders `train` and `test`.
    """
    name, given = (dataset, {}) if isinstance(dataset, str) else (dataset.source, dataset.arguments)
    arguments: dict[str, Any] = {"labels": "folders", "test_fraction": 0.2} if name.startswith("folder:") else {}
    if download and "download" in inspect.signature(source_signature(name)).parameters:
        arguments["download"] = True
    arguments |= given
    train, test = open_source(name, "train", **arguments), open_source(name, "test", **arguments)
    if train.num_items is None:
        raise RunError(
            f"{name} is endless and cannot be evaluated on; name a data set with labels, for instance digits"
        )
    if train.num_classes is None:
        raise RunError(f"{name} has no labels, and every protocol needs them")
    return train, test


def evaluate_on(
    sources: dict[str, tuple[Source, Source]],
    backbones: dict[str, nn.Module],
    recipe: Recipe,
    protocols: Sequence[str | Component],
    few_shot: Sequence[int],
    seeds: int,
    announce: Callable[[str], None],
) -> Evaluation:
    """Every data set in turn, at the size of the recipe's largest views; normalized, or in intensity orders, as these are."""
    device = choose_device(recipe.training.device)
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    size = max(size for _, size in views.shape)
    mean, std = MEAN, STD
    if views.intensity_order is not None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        backbones = {name: nn.Sequential(views.intensity_order, backbone) for name, backbone in backbones.items()}
    total: Evaluation | None = None
    for name, (train, test) in sources.items():
        one = evaluate_backbones(
            {k: b.to(device) for k, b in backbones.items()},
            train,
            test,
            dataset=name,
            size=size,
            protocols=[one if isinstance(one, str) else one.name for one in protocols],
            few_shot=few_shot,
            seeds=seeds,
            device=device,
            mean=mean,
            std=std,
            announce=announce,
        )
        total = one if total is None else total + one
    return total


def choose_device(name: str) -> torch.device:
    """The device of `training.device`; `auto` is the GPU where there is one. Raises RunError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise RunError(f"training.device is {name}, but this machine has none that torch can use")
    return torch.device(name)


def scores(evaluation: Evaluation) -> dict[str, float]:
    """The pretrained rows as flat numbers for `metrics.jsonl`."""
    rows = [row for row in evaluation.rows if row["backbone"] == "pretrained"]
    return {f"{row['dataset']}/{row['protocol']}": row["accuracy"] for row in rows}
