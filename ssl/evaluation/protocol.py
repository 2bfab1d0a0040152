"""Evaluate several backbones on one data set, the baseline first."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.evaluator import ChunkStream, Evaluator, Features, HeldOut, LabeledImages, Score
from wildfern.ssl.evaluation.features import device_of, extract_features, stream
from wildfern.ssl.evaluation.label_counts import LabelCounts, class_words, unseen_classes
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk, Labels, labeled_chunks
from wildfern.ssl.evaluation.preprocessing import Preprocessing, resize_center_crop
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.tracking.progress import SILENT, Progress

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
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Compare every backbone with the baseline on one data set, by evaluators named by their protocol.

    `preprocessing` and `baseline` are those of all backbones, or mappings by name; a backbone without a baseline of its own is
    compared with none. The images are read once for all backbones; features are extracted once and kept in memory for all
    evaluators. Tokens and maps are computed again whenever an evaluator iterates over them. Each evaluator gets test as a
    `HeldOut`, and `progress` as an attribute. Notes of the sources, and the classes of test that no train image has, are the
    notes of the result. Raises ValueError when `backbones` has no `baseline`, when nothing is to be evaluated, for features that
    are not finite, for sources that are endless, empty, without labels, of fewer than two classes or with classes numbered in
    two ways, and for multi-hot labels with an evaluator that needs one label per image.
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
    _check_class_names(dataset, train_source, test_source)
    single_label = [p for p, evaluator in evaluators.items() if evaluator.needs_labels and not evaluator.multi_label]
    counts: dict[tuple[str, bool], LabelCounts] = {}
    kept: dict[tuple[str, bool], _Split] = {}
    for needs_labels in (True, False):
        needs = {e.needs for e in evaluators.values() if e.needs_labels == needs_labels}
        for split, source in sources.items() if needs & {"features", "images"} else ():
            progress.part(f"{dataset}: features of {split}")
            found = _read(
                {name: backbones[name] for name in names} if "features" in needs else {},
                labeled_chunks(source, f"{dataset} ({split})", unlabeled=not needs_labels, single_label=single_label),
                "images" in needs,
                device_of(backbones[names[0]]),
                batch_size,
                settings,
                _Counted(progress, source.num_items or 0),
            )
            if not len(found.labels):
                raise ValueError(f"{dataset} ({split}): no image has a label")
            for name, features in found.features.items():
                if not torch.isfinite(features.x).all():
                    raise ValueError(
                        f"{dataset} ({split}): the features of the {name} backbone contain NaN or infinity: it has diverged"
                    )
            kept[split, needs_labels], counts[split, needs_labels] = found, LabelCounts.of(found.labels)
        if needs_labels and ("train", True) in kept:
            check_labels(dataset, kept["train", True].labels, kept["test", True].labels)

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
            chunks = labeled_chunks(
                source, f"{dataset} ({split})", unlabeled=unlabeled, single_label=single_label if not unlabeled else ()
            )
            chunks = _counted(chunks, lambda found: counts.update({(split, not unlabeled): found}))
            chunks = _told(chunks, progress, source.num_items or 0, f"reading {split}")
            return stream(backbones[name], chunks, evaluator.needs, settings[name])

        return ChunkStream(opened, class_names)

    rows = []
    for protocol, evaluator in evaluators.items():
        for name in names:
            progress.part(f"{dataset}: {protocol} of {name}")
            object.__setattr__(evaluator, "progress", progress)  # also of a frozen dataclass
            scores = evaluator(data(evaluator, name, "train"), HeldOut(data(evaluator, name, "test")))
            given = {}
            for split, source in sources.items():
                read = counts.get((split, evaluator.needs_labels))
                given |= {f"{split}_images": read and read.images, f"{split}_split": source.split_words}
            for score in _checked(scores, protocol):
                rows.append({"dataset": dataset, "protocol": protocol, "backbone": name, **asdict(score), **given})
    words = {protocol: evaluator.describe() for protocol, evaluator in evaluators.items()}
    notes = [*train_source.notes, *test_source.notes, *_unusable_notes(sources)]
    if ("train", True) in counts and ("test", True) in counts:
        notes += _unseen_note(counts["train", True], counts["test", True], train_source.class_names)
    compared = baseline if isinstance(baseline, str) else dict(baseline)
    return EvaluationResult(tuple(rows), words, compared, {dataset: list(dict.fromkeys(notes))} if notes else {})


@dataclass(frozen=True)
class _Split:
    """The data of one split: labels as of `label_array`, features by backbone, images by crop if an evaluator needs them."""

    labels: Labels
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
    counted: "_Counted",
) -> _Split:
    """Features of every backbone, reading the chunks once; with `keep` also the preprocessed images, as bytes."""
    parts: dict[str, list[Features]] = {name: [] for name in backbones}
    labels: list[Labels] = []
    images: dict[Crop, list[NDArray[np.uint8]]] = {_crop(one): [] for one in preprocessing.values()} if keep else {}
    for chunk in chunks:
        labels.append(chunk.labels)
        for number, (name, backbone) in enumerate(backbones.items()):
            pair, told = (chunk.pixels, chunk.labels), counted.of(chunk, number / len(backbones), 1 / len(backbones))
            settings = vars(preprocessing[name])
            parts[name].append(extract_features(backbone, [pair], batch_size=batch_size, done=told, **settings))
        for (size, interpolation), kept in images.items():
            resized = resize_center_crop(chunk.pixels, size, device, interpolation)
            kept.append(resized.permute(0, 2, 3, 1).mul(255).round_().byte().cpu().numpy())
        counted.done(chunk)
    features = {name: Features.concatenated(found) for name, found in parts.items() if found}
    whole = {crop: np.concatenate(kept) for crop, kept in images.items() if kept}
    return _Split(np.concatenate(labels or [np.empty(0, np.int64)]), features, whole)


def _counted(chunks: Iterable[LabeledChunk], done: Callable[[LabelCounts], None]) -> Iterator[LabeledChunk]:
    """The same chunks; `done` gets their counts after the last one."""
    found = LabelCounts()
    for chunk in chunks:
        found.add(chunk.labels)
        yield chunk
    done(found)


class _Counted:
    """Counts the images of a split of which the features of all backbones are there; one that only some have counts in part."""

    def __init__(self, progress: Progress, images: int) -> None:
        self.progress, self.images = progress, images
        progress.count(0, images, "images")

    def of(self, chunk: LabeledChunk, before: float, share: float) -> Callable[[int], None]:
        """What gets the number of images of the chunk that one backbone, of `share` of the work, has done."""
        per_image = (chunk.stop - chunk.first) / len(chunk.labels)  # some items have no label

        def told(images: int) -> None:
            done = before * len(chunk.labels) + share * images
            self.progress.count(chunk.first + done * per_image, self.images, "images")

        return told

    def done(self, chunk: LabeledChunk) -> None:
        self.progress.count(chunk.stop, self.images, "images")


def _told(chunks: Iterable[LabeledChunk], progress: Progress, images: int, detail: str) -> Iterator[LabeledChunk]:
    """The same chunks, counted when the next one is asked for."""
    progress.count(0, images, "images", detail)
    for chunk in chunks:
        yield chunk
        progress.count(chunk.stop, images, "images", detail)


def _check_class_names(dataset: str, train: "Source", test: "Source") -> None:
    for label, names in enumerate(zip(train.class_names or (), test.class_names or (), strict=False)):
        if names[0] != names[1]:
            raise ValueError(
                f"{dataset}: label {label} is the class {names[0]!r} in train and {names[1]!r} in test; both must number "
                "their classes in the same way"
            )


def check_labels(dataset: str, train: Labels, test: Labels) -> None:
    """Raise ValueError if nothing can be learned from these labels, without those of unlabeled images."""
    for split, labels in (("train", train), ("test", test)):
        if not len(labels):
            raise ValueError(f"{dataset} ({split}): no image has a label")
    if train.shape[1:] != test.shape[1:]:
        kinds = [
            f"labels of {y.shape[1]} classes, multi-hot" if y.ndim == 2 else "one label each" for y in (train, test)
        ]
        raise ValueError(f"{dataset}: images of train have {kinds[0]}, those of test {kinds[1]}; both must be alike")
    if train.ndim == 1 and len(np.unique(train)) < 2:
        raise ValueError(f"{dataset} (train): all labeled images are of one class; at least two are needed")
    if train.ndim == 2 and (train == train[0]).all():
        raise ValueError(f"{dataset} (train): all images have the same labels; at least two kinds are needed")
    if test.ndim == 2 and not test.any():
        raise ValueError(f"{dataset} (test): no image has any of the {test.shape[1]} classes")


def _unusable_notes(sources: Mapping[str, "Source"]) -> list[str]:
    """Images that were left out or replaced because they cannot be read."""
    notes = []
    for split, source in sources.items():
        if skipped := source.skipped:
            name, reason = next(iter(skipped.items()))
            images = "1 image" if len(skipped) == 1 else f"{len(skipped):,} images"
            notes.append(f"{images} of {split} could not be read: {name}: {reason}{'' if len(skipped) == 1 else ' …'}")
    return notes


def _unseen_note(train: LabelCounts, test: LabelCounts, class_names: Sequence[str] | None) -> list[str]:
    unseen = unseen_classes(train, test)
    if not unseen:
        return []
    one = len(unseen) == 1
    return [
        f"{len(unseen)} class{'' if one else 'es'} of test {'has' if one else 'have'} no train image: "
        f"{class_words(unseen, class_names)}"
    ]


def _checked(scores: object, protocol: str) -> list[Score]:
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise ValueError(f"the evaluator of {protocol} must return a list of Score, got {type(scores).__name__}")
    metrics = [score.metric for score in scores]
    if not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(
            f"the evaluator of {protocol} must return at least one Score, each of a different metric; got {metrics}"
        )
    return scores
