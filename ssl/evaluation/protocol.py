"""Evaluate several backbones on one data set, the baseline first."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.dataset_reader import DatasetReader, kind_of
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, Predictions, Score
from wildfern.ssl.evaluation.feature_store import FeatureStore
from wildfern.ssl.evaluation.metrics.breakdown import breakdown
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts
from wildfern.ssl.evaluation.metrics.paired_differences import NO_DIFFERENCE, add_difference_intervals
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
ROW_KEYS = tuple(one.name for one in fields(Score) if one.name not in ("per_image", "predictions"))


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
    Raises ProtocolsFailed, with all other scores, if an evaluator raises ValueError for some protocols or backbones only.
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
    failures: dict[str, ValueError] = {}
    rows: list[dict[str, Any]] = []
    per_image: dict[tuple[str, str, str], NDArray[np.float32]] = {}
    predictions: dict[tuple[str, str], Predictions] = {}
    for protocol, evaluator in evaluators.items():
        for name in names:
            progress.part(f"{dataset}: {protocol} of {name}")
            object.__setattr__(evaluator, "progress", progress)  # also of a frozen dataclass
            try:
                found = evaluator(data.split(evaluator, name, "train"), HeldOut(data.split(evaluator, name, "test")))
                scores = _checked(found, protocol)
            except ValueError as error:
                failures.setdefault(f"{protocol}: {error}", error)
                continue
            given: dict[str, Any] = {"image_size": data.preprocessing[name].size}
            for split, source in data.sources.items():
                read = data.counts.get((split, kind_of(evaluator)))
                given |= {f"{split}_images": read and read.images, f"{split}_split": source.split_words}
            own = len(scores)
            if details and scores[0].predictions is not None:
                predictions[protocol, name] = scores[0].predictions
            train_counts = data.counts.get(("train", kind_of(evaluator))) or LabelCounts()
            scores = [*scores, *breakdown(scores, train_counts, data.test_groups(evaluator), data.class_names)]
            for number, score in enumerate(scores):
                values = {key: getattr(score, key) for key in ROW_KEYS}
                row = {"dataset": dataset, "protocol": protocol, "backbone": name, **values, **given}
                rows.append({**row, "breakdown": number >= own, **NO_DIFFERENCE})
                if score.per_image is not None:
                    per_image[protocol, name, score.metric] = score.per_image
    if failures and not rows:
        raise next(iter(failures.values()))
    compared = baseline if isinstance(baseline, str) else dict(baseline)
    add_difference_intervals(rows, per_image, compared)
    done = {row["protocol"] for row in rows}
    words = {protocol: evaluator.describe() for protocol, evaluator in evaluators.items() if protocol in done}
    notes = data.notes()
    shown = None
    if details:
        progress.part(f"{dataset}: images for the report")
        shown = collect_details(data, predictions, names)
    result = EvaluationResult(
        tuple(rows), words, compared, {dataset: notes} if notes else {}, {} if shown is None else {dataset: shown}
    )
    if failures:
        raise ProtocolsFailed(f"{dataset}: {'; '.join(failures)}", result) from next(iter(failures.values()))
    return result


def _checked(scores: object, protocol: str) -> list[Score]:
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise ValueError(f"the evaluator of {protocol} must return a list of Score, got {type(scores).__name__}")
    metrics = [score.metric for score in scores]
    if not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(
            f"the evaluator of {protocol} must return at least one Score, each of a different metric; got {metrics}"
        )
    return scores
