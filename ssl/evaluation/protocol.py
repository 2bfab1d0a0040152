"""Evaluate several backbones on one data set, the baseline first."""

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from wildfern.ssl.evaluation.dataset_reader import DatasetReader, kind_of
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, Predictions, Score, SegmentationDetails
from wildfern.ssl.evaluation.feature_store import FeatureStore
from wildfern.ssl.evaluation.metrics.breakdown import breakdown
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts
from wildfern.ssl.evaluation.metrics.paired_differences import NO_DIFFERENCE, Paired, add_difference_intervals
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.ranks import ALONE, Ranks
from wildfern.ssl.evaluation.report.collect_details import collect_details
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.tracking.progress import SILENT, Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Source


class ProtocolsFailed(ValueError):
    """Some protocols could not be done, for reasons that the message names; `result` has the scores of all others."""

    def __init__(self, message: str, result: EvaluationResult) -> None:
        super().__init__(message)
        self.result = result


# What of a `Score` is in its row of the result.
NOT_IN_ROWS = ("per_image", "per_draw", "predictions", "segmentation")
ROW_KEYS = tuple(one.name for one in fields(Score) if one.name not in NOT_IN_ROWS)


def evaluate_backbones(
    backbones: Mapping[str, nn.Module],
    train_source: "Source",
    test_source: "Source",
    *,
    dataset: str,
    evaluators: Mapping[str, Evaluator],
    preprocessing: Preprocessing | Mapping[str, Preprocessing] | None = None,
    baseline: str | Mapping[str, str] = "random",
    batch_size: int = 256,
    progress: Progress = SILENT,
    store: FeatureStore | None = None,
    data_keys: Mapping[str, str] | None = None,
    details: bool = False,
    ranks: Ranks = ALONE,
    when_read: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """Compare every backbone with the baseline on one data set, by evaluators named by their protocol.

    `preprocessing` and `baseline` are those of all backbones, or mappings by name; a backbone without a baseline of its own is
    compared with none. The images are read once for all backbones; features are extracted once for all evaluators and kept as
    `store` does it, where they are found again if `data_keys` names the images of "train" and "test". Tokens and maps are
    computed again whenever an evaluator iterates over them. Each evaluator gets test as a `HeldOut`, and `progress` as an
    attribute. Scores with predictions are followed by their calibration and the spread over classes and over groups of test.
    With `details` the result has the `ImageDetails` of the data set, for a report.
    Notes of the sources, and the classes of test that no train image has, are the notes of the result.
    With several `ranks`, each of which calls this with the same arguments, they extract features together; rank 0 evaluates, and
    the result of others is empty. Features are not kept in the folder of `store` then. `when_read` is called on every rank after
    the last exchange between them.
    Raises ProtocolsFailed, with all other scores, if an evaluator fails for some protocols or backbones only.
    Raises ValueError when `backbones` has no `baseline`, when nothing is to be evaluated, for features that are not finite, for
    sources that are endless, empty, without labels, of fewer than two classes or with classes numbered in two ways, and for
    multi-hot labels with an evaluator that needs one label per image.
    """
    named = [baseline] if isinstance(baseline, str) else list(dict.fromkeys(baseline.values()))
    for name in named:
        if name not in backbones:
            raise ValueError(f"no backbone named {name!r} to compare the others with, only {', '.join(backbones)}")
    if not evaluators:
        raise ValueError("nothing to evaluate: name a protocol")
    names = [*backbones] if len(named) != 1 else [*named, *(name for name in backbones if name not in named)]
    if preprocessing is None or isinstance(preprocessing, Preprocessing):
        preprocessing = dict.fromkeys(names, preprocessing or Preprocessing())
    data = DatasetReader(
        {name: backbones[name] for name in names},
        {name: preprocessing[name] for name in names},
        {"train": train_source, "test": test_source},
        dataset,
        evaluators,
        batch_size,
        FeatureStore() if store is None else store,
        data_keys or {},
        progress,
        ranks,
    )
    data.check_class_names()
    data.read()
    when_read()
    if ranks.rank:
        return EvaluationResult((), {}, baseline if isinstance(baseline, str) else dict(baseline))
    failures: dict[str, Exception] = {}
    rows: list[dict[str, Any]] = []
    paired = Paired()
    predictions: dict[tuple[str, str], Predictions] = {}
    segmentations: dict[tuple[str, str], SegmentationDetails] = {}
    for protocol, evaluator in evaluators.items():
        for name in names:
            progress.part(f"{dataset}: {protocol} of {name}")
            object.__setattr__(evaluator, "progress", progress)  # also of a frozen dataclass
            try:
                found = evaluator(data.split(evaluator, name, "train"), HeldOut(data.split(evaluator, name, "test")))
                scores = _checked(found, protocol)
            except Exception as error:  # of one protocol: no reason to lose the scores of others
                failures.setdefault(f"{protocol}: {_reason(error)}", error)
                continue
            given: dict[str, Any] = {"image_size": data.preprocessing[name].size}
            for split, source in data.sources.items():
                read = data.counts.get((split, kind_of(evaluator)))
                given |= {f"{split}_images": read and read.images, f"{split}_split": source.split_words}
            own = len(scores)
            if details and scores[0].predictions is not None:
                predictions[protocol, name] = scores[0].predictions
            if details and scores[0].segmentation is not None:
                segmentations[protocol, name] = scores[0].segmentation
            train_counts = data.counts.get(("train", kind_of(evaluator))) or LabelCounts()
            scores = [*scores, *breakdown(scores, train_counts, data.test_groups(evaluator), data.class_names)]
            for number, score in enumerate(scores):
                values = {key: getattr(score, key) for key in ROW_KEYS}
                row = {"dataset": dataset, "protocol": protocol, "backbone": name, **values, **given}
                rows.append({**row, "breakdown": number >= own, **NO_DIFFERENCE})
                key = protocol, name, score.metric
                if score.per_image is not None:
                    paired.per_image[key] = score.per_image
                if score.per_draw is not None:
                    paired.per_draw[key] = score.per_draw
    first = next(iter(failures.values()), None)
    if isinstance(first, ValueError) and not rows:
        raise first
    compared = baseline if isinstance(baseline, str) else dict(baseline)
    add_difference_intervals(rows, paired.per_image, compared, paired.per_draw)
    done = {row["protocol"] for row in rows}
    words = {protocol: evaluator.describe() for protocol, evaluator in evaluators.items() if protocol in done}
    notes = data.notes()
    shown = None
    if details:
        progress.part(f"{dataset}: images for the report")
        shown = collect_details(data, predictions, segmentations, names)
    result = EvaluationResult(
        tuple(rows),
        words,
        compared,
        {dataset: notes} if notes else {},
        {} if shown is None else {dataset: shown},
        {dataset: paired},
    )
    if failures:
        raise ProtocolsFailed(f"{dataset}: {'; '.join(failures)}", result) from first
    return result


def _checked(scores: object, protocol: str) -> list[Score]:
    """The scores with their numbers as those of Python. Raises ValueError for anything else than different finite scores."""
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise ValueError(f"the evaluator of {protocol} must return a list of Score, got {type(scores).__name__}")
    metrics = [score.metric for score in scores]
    if not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(
            f"the evaluator of {protocol} must return at least one Score, each of a different metric; got {metrics}"
        )
    return [_in_numbers(score) for score in scores]


def _in_numbers(score: Score) -> Score:
    found: dict[str, float | None] = {}
    for name in ("value", "low", "high"):
        given = getattr(score, name)
        if given is None and name != "value":
            found[name] = None
            continue
        try:
            found[name] = float(given)
        except (TypeError, ValueError, RuntimeError):
            found[name] = math.nan
        if isinstance(given, str | bytes) or not math.isfinite(found[name]):
            raise ValueError(f"{name} of the metric {score.metric} must be a finite number, got {given!r}")
    images = int(score.n)
    if score.per_image is not None and len(score.per_image) != images:
        raise ValueError(
            f"per_image of the metric {score.metric} has {len(score.per_image)} values, but n is {images} test images"
        )
    return replace(score, **found, n=images)


def _reason(error: Exception) -> str:
    """What went wrong, and in which line if it is no error that the user can mend."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
