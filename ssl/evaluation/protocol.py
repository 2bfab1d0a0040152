"""Evaluate several backbones on one data set, the baseline first."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.evaluator import ChunkStream, Evaluator, Features, HeldOut, LabeledImages, Score
from wildfern.ssl.evaluation.features import device_of, extract_features, stream
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk, labeled_chunks
from wildfern.ssl.evaluation.preprocessing import Preprocessing, resize_center_crop
from wildfern.ssl.evaluation.result import EvaluationResult

if TYPE_CHECKING:
    from wildfern.ssl.data import Source


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
    announce: Callable[[str], None] = lambda step: None,
) -> EvaluationResult:
    """Compare every backbone with the baseline on one data set, by evaluators named by their protocol.

    `preprocessing` and `baseline` are those of all backbones, or mappings by name; a backbone without a baseline of its own is
    compared with none. The images are read once for all backbones; features are extracted once and kept in memory for all
    evaluators. Tokens and maps are computed again whenever an evaluator iterates over them. Each evaluator gets test as a
    `HeldOut`.
    `announce` gets progress messages. Raises ValueError when `backbones` has no `baseline`, when nothing is to be
    evaluated, for features that are not finite, and for sources that are endless, without labels or of fewer than two classes.
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
    settings = {name: preprocessing[name] for name in names}
    sources = {"train": train_source, "test": test_source}
    kept: dict[tuple[str, bool], _Split] = {}
    for needs_labels in (True, False):
        needs = {e.needs for e in evaluators.values() if e.needs_labels == needs_labels}
        for split, source in sources.items() if needs & {"features", "images"} else ():
            announce(f"{dataset}: features of {split}")
            found = _read(
                {name: backbones[name] for name in names} if "features" in needs else {},
                labeled_chunks(source, f"{dataset} ({split})", unlabeled=not needs_labels),
                "images" in needs,
                device_of(backbones[names[0]]),
                batch_size,
                settings,
            )
            if not len(found.labels):
                raise ValueError(f"{dataset} ({split}): no image has a label")
            for name, features in found.features.items():
                if not torch.isfinite(features.x).all():
                    raise ValueError(
                        f"{dataset} ({split}): the features of the {name} backbone contain NaN or infinity: it has diverged"
                    )
            kept[split, needs_labels] = found
        if needs_labels and needs and (train := kept.get(("train", True))) and len(np.unique(train.labels)) < 2:
            raise ValueError(f"{dataset} (train): all labeled images are of one class; at least two are needed")

    def data(evaluator: Evaluator, name: str, split: str) -> Any:
        source, unlabeled = sources[split], not evaluator.needs_labels
        class_names = None if source.class_names is None else tuple(source.class_names)
        if evaluator.needs == "features":
            return replace(kept[split, evaluator.needs_labels].features[name], class_names=class_names)
        if evaluator.needs == "images":
            found = kept[split, evaluator.needs_labels]
            images = found.images[_crop(settings[name])]
            return LabeledImages(images, found.labels, backbones[name], settings[name], class_names)

        def opened():
            chunks = labeled_chunks(source, f"{dataset} ({split})", unlabeled=unlabeled)
            return stream(backbones[name], chunks, evaluator.needs, settings[name])

        return ChunkStream(opened, class_names)

    rows = []
    for protocol, evaluator in evaluators.items():
        for name in names:
            announce(f"{dataset}: {protocol} of {name}")
            scores = evaluator(data(evaluator, name, "train"), HeldOut(data(evaluator, name, "test")))
            for score in _checked(scores, protocol):
                rows.append({"dataset": dataset, "protocol": protocol, "backbone": name, **asdict(score)})
    words = {protocol: evaluator.describe() for protocol, evaluator in evaluators.items()}
    return EvaluationResult(tuple(rows), words, baseline if isinstance(baseline, str) else dict(baseline))


@dataclass(frozen=True)
class _Split:
    """The data of one split: labels int64[N], features by backbone, and images by their crop if an evaluator needs them."""

    labels: NDArray[np.int64]
    features: dict[str, Features]
    images: dict["Crop", NDArray[np.uint8]]


Crop = tuple[int | None, str]  # size and interpolation


def _crop(preprocessing: Preprocessing) -> Crop:
    return preprocessing.size, preprocessing.interpolation


def _read(
    backbones: Mapping[str, nn.Module],
    chunks: Iterable[LabeledChunk],
    keep: bool,
    device: torch.device,
    batch_size: int,
    preprocessing: Mapping[str, Preprocessing],
) -> _Split:
    """Features of every backbone, reading the chunks once; with `keep` also the preprocessed images, as bytes."""
    parts: dict[str, list[Features]] = {name: [] for name in backbones}
    labels = [np.empty(0, np.int64)]
    images: dict[Crop, list[NDArray[np.uint8]]] = {_crop(one): [] for one in preprocessing.values()} if keep else {}
    for chunk in chunks:
        labels.append(np.asarray(chunk.labels, np.int64))
        for name, backbone in backbones.items():
            pair = (chunk.pixels, chunk.labels)
            parts[name].append(extract_features(backbone, [pair], batch_size=batch_size, **vars(preprocessing[name])))
        for (size, interpolation), kept in images.items():
            resized = resize_center_crop(chunk.pixels, size, device, interpolation)
            kept.append(resized.permute(0, 2, 3, 1).mul(255).round_().byte().cpu().numpy())
    features = {name: Features.concatenated(found) for name, found in parts.items() if found}
    whole = {crop: np.concatenate(kept) for crop, kept in images.items() if kept}
    return _Split(np.concatenate(labels), features, whole)


def _checked(scores: object, protocol: str) -> list[Score]:
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise ValueError(f"the evaluator of {protocol} must return a list of Score, got {type(scores).__name__}")
    metrics = [score.metric for score in scores]
    if not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(
            f"the evaluator of {protocol} must return at least one Score, each of a different metric; got {metrics}"
        )
    return scores
