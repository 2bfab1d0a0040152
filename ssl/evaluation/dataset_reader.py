"""The images of one data set for several evaluators and backbones: read once, with their features, tokens and maps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.evaluator import ChunkStream, Evaluator, Features, LabeledImages
from wildfern.ssl.evaluation.feature_store import FeatureStore, FeatureWriter, feature_key
from wildfern.ssl.evaluation.features import device_of, extract_features, stream
from wildfern.ssl.evaluation.label_checks import check_labels, unseen_note
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk, Labels, labeled_chunks
from wildfern.ssl.evaluation.last_blocks import LastBlocks
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts
from wildfern.ssl.evaluation.preprocessing import Preprocessing, resize_center_crop
from wildfern.ssl.evaluation.spilled_array import SpilledArray
from wildfern.ssl.tracking.progress import Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Groups, Source


Crop = tuple[int | None, str]  # size and interpolation
Network = tuple[str, int | None]  # a backbone by name, and of which layers the features are
Kind = bool | Literal["targets"]  # what is needed of images besides pixels: labels (True), nothing (False), or targets


def kind_of(evaluator: Evaluator) -> Kind:
    """What an evaluator needs of the images."""
    return "targets" if evaluator.targets else evaluator.needs_labels


@dataclass
class SplitData:
    """What was read of one split: labels as of `label_array`, or targets, and the items of the source that have them.

    Features by network, and images by crop if an evaluator needs them.
    """

    labels: Labels
    items: NDArray[np.int64]
    features: dict[Network, Features] = field(default_factory=dict)
    images: dict[Crop, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass
class DatasetReader:
    """Gives each evaluator the train and test split in the form that it needs.

    `sources` are those of "train" and "test"; `data_keys` names their images for the store. Raises ValueError for data that
    cannot be used, as `evaluate_backbones` says.
    """

    backbones: Mapping[str, nn.Module]
    preprocessing: Mapping[str, Preprocessing]
    sources: Mapping[str, "Source"]
    dataset: str
    evaluators: Mapping[str, Evaluator]
    batch_size: int
    store: FeatureStore
    data_keys: Mapping[str, str]
    progress: Progress
    counts: dict[tuple[str, Kind], LabelCounts] = field(default_factory=dict)
    _items: dict[tuple[str, Kind], NDArray[np.int64]] = field(default_factory=dict)
    _kept: dict[tuple[str, Kind], SplitData] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        names = self.sources["train"].class_names
        return None if names is None else tuple(names)

    def check_class_names(self) -> None:
        """Raise ValueError if train and test number their classes in two ways."""
        train, test = (self.sources[split].class_names or () for split in ("train", "test"))
        for label, names in enumerate(zip(train, test, strict=False)):
            if names[0] != names[1]:
                raise ValueError(
                    f"{self.dataset}: label {label} is the class {names[0]!r} in train and {names[1]!r} in test; both must "
                    "number their classes in the same way"
                )

    def read(self) -> None:
        """Read what evaluators of features and images need."""
        kinds: tuple[Kind, ...] = (True, False, "targets")
        for kind in kinds:
            wanted = [one for one in self.evaluators.values() if kind_of(one) == kind]
            layers = list(dict.fromkeys(one.layers for one in wanted if one.needs == "features"))
            images = any(one.needs == "images" for one in wanted)
            if not layers and not images:
                continue
            for split in self.sources:
                self.progress.part(f"{self.dataset}: features of {split}")
                found = self._read(split, kind, layers, images)
                if not len(found.labels):
                    what = "a label" if kind != "targets" else f"its {', '.join(self.sources[split].parameter_names)}"
                    raise ValueError(f"{self.dataset} ({split}): no image has {what}")
                self._check_finite(split, found)
                key = split, kind
                self._kept[key], self._items[key] = found, found.items
                self.counts[key] = LabelCounts.of(_of_classes(found.labels))
            if kind is True:
                check_labels(self.dataset, self._kept["train", True].labels, self._kept["test", True].labels)

    def split(self, evaluator: Evaluator, name: str, split: str) -> Features | LabeledImages | ChunkStream:
        """A split for one evaluator and backbone."""
        if evaluator.needs == "features":
            found = self._kept[split, kind_of(evaluator)]
            return replace(found.features[name, evaluator.layers], class_names=self._names(split, evaluator))
        if evaluator.needs == "images":
            found = self._kept[split, kind_of(evaluator)]
            settings = self.preprocessing[name]
            pixels = found.images[_crop(settings)]
            return LabeledImages(pixels, found.labels, self.backbones[name], settings, self._names(split, evaluator))
        return ChunkStream(lambda: self._stream(evaluator, name, split), self._names(split, evaluator))

    def labeled(self, split: str) -> SplitData | None:
        """What was read of the labeled images of a split for evaluators of features and images, if anything."""
        return self._kept.get((split, True))

    def test_groups(self, evaluator: Evaluator) -> tuple["Groups", ...]:
        """The groups of the test images that the evaluator was given, in their order."""
        items = self._items.get(("test", kind_of(evaluator)))
        return () if items is None else tuple(groups[items] for groups in self.sources["test"].groups)

    def notes(self) -> list[str]:
        """Messages about the data: of the sources, of unreadable images, of classes of test that no train image has."""
        notes = [note for source in self.sources.values() for note in source.notes]
        for split, source in self.sources.items():
            if skipped := source.skipped:
                name, reason = next(iter(skipped.items()))
                images = "1 image" if len(skipped) == 1 else f"{len(skipped):,} images"
                more = "" if len(skipped) == 1 else " …"
                notes.append(f"{images} of {split} could not be read: {name}: {reason}{more}")
        if ("train", True) in self.counts and ("test", True) in self.counts:
            notes += unseen_note(self.counts["train", True], self.counts["test", True], self.class_names)
        return list(dict.fromkeys(notes))

    def _names(self, split: str, evaluator: Evaluator) -> tuple[str, ...] | None:
        """Of the classes, or of the targets."""
        if evaluator.targets:
            return tuple(self.sources[split].parameter_names)
        names = self.sources[split].class_names
        return None if names is None else tuple(names)

    def _chunks(self, split: str, kind: Kind, size: int | None = None) -> Iterator[LabeledChunk]:
        single_label = [name for name, one in self.evaluators.items() if kind_of(one) is True and not one.multi_label]
        return labeled_chunks(
            self.sources[split],
            f"{self.dataset} ({split})",
            unlabeled=kind is False,
            single_label=single_label if kind is True else (),
            size=size,
            targets=kind == "targets",
        )

    def _stream(self, evaluator: Evaluator, name: str, split: str) -> Iterator[Any]:
        source, settings = self.sources[split], self.preprocessing[name]
        chunks = self._chunks(split, kind_of(evaluator), settings.size)
        chunks = self._noted(chunks, (split, kind_of(evaluator)))
        chunks = _told(chunks, self.progress, source.num_items or 0, f"reading {split}")
        return stream(self.backbones[name], chunks, evaluator.needs, settings, targets=evaluator.targets)  # type: ignore[arg-type]

    def _noted(self, chunks: Iterable[LabeledChunk], key: tuple[str, Kind]) -> Iterator[LabeledChunk]:
        """The same chunks; their counts and items are known after the last one."""
        found, items = LabelCounts(), []
        for chunk in chunks:
            found.add(_of_classes(chunk.labels))
            items.append(chunk.items)
            yield chunk
        self.counts[key] = found
        self._items[key] = np.concatenate(items) if items else np.empty(0, np.int64)

    def _read(self, split: str, kind: Kind, layers: Sequence[int | None], images: bool) -> SplitData:
        """Features of every backbone that are not stored, reading the images once; and the images, as bytes, if wanted."""
        source = self.sources[split]
        found, writers = self._stored(split, kind, layers)
        if found is not None and not writers and not images:
            return found
        sizes = {settings.size for settings in self.preprocessing.values()}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        labels: list[Labels] = []
        items: list[NDArray[np.int64]] = []
        kept = {_crop(one): SpilledArray(self.store.memory) for one in self.preprocessing.values()} if images else {}
        device = device_of(next(iter(self.backbones.values())))
        counted = _Counted(self.progress, source.num_items or 0)
        try:
            for chunk in self._chunks(split, kind, size):
                labels.append(chunk.labels)
                items.append(chunk.items)
                for number, (network, (module, writer)) in enumerate(writers.items()):
                    told = counted.of(chunk, number / len(writers), 1 / len(writers))
                    pair, settings = (chunk.pixels, chunk.labels), vars(self.preprocessing[network[0]])
                    settings = {**settings, "batch_size": self.batch_size, "targets": kind == "targets"}
                    writer.append(extract_features(module, [pair], done=told, **settings))
                for (crop, interpolation), array in kept.items():
                    resized = resize_center_crop(chunk.pixels, crop, device, interpolation)  # type: ignore[arg-type]
                    array.append(resized.permute(0, 2, 3, 1).mul(255).round_().byte().cpu().numpy())
                counted.done(chunk)
            read = SplitData(
                np.concatenate(labels or [np.empty(0, np.int64)]), np.concatenate(items or [np.empty(0, np.int64)])
            )
            if not len(read.labels):
                return read
            for network, (_, writer) in writers.items():
                # Not kept where images could not be read: they may be mended.
                read.features[network] = writer.finish(read.items, keep=not source.skipped)
            read.images = {crop: array.finish() for crop, array in kept.items()}
            kept = {}
        finally:
            for array in kept.values():
                array.discard()
            for _, writer in writers.values():
                writer.discard()
        read.features |= {} if found is None else found.features
        return read

    def _stored(
        self, split: str, kind: Kind, layers: Sequence[int | None]
    ) -> tuple[SplitData | None, dict[Network, tuple[nn.Module, FeatureWriter]]]:
        """What the store has, and for each other network its module and the writer of its features."""
        data, source = self.data_keys.get(split), self.sources[split]
        read: SplitData | None = None
        writers: dict[Network, tuple[nn.Module, FeatureWriter]] = {}
        for name, backbone in self.backbones.items():
            settings = self.preprocessing[name]
            key = None
            if data is not None and self.store.folder is not None:
                described = [settings.size, settings.mean, settings.std, settings.precision, settings.interpolation]
                labels = source.parameter_names if kind == "targets" else kind
                key = feature_key(backbone, data, *described, str(device_of(backbone)), labels)
            for layer in layers:
                own = None if key is None else f"{key}_{layer or 'output'}"
                stored = self.store.find(own)
                if stored is None:
                    module = backbone if layer is None else LastBlocks(backbone, layer)
                    writers[name, layer] = module, self.store.writer(own, settings.device or device_of(backbone))
                    continue
                if read is None:
                    read = SplitData(stored.features.y.numpy(), stored.items)
                features = replace(stored.features, device=torch.device(settings.device or device_of(backbone)))
                read.features[name, layer] = features
        return read, writers

    def _check_finite(self, split: str, found: SplitData) -> None:
        for (name, _), features in found.features.items():
            if not all(torch.isfinite(part).all() for part in features.x.split(2**14)):
                raise ValueError(
                    f"{self.dataset} ({split}): the features of the {name} backbone contain NaN or infinity: it has diverged"
                )


def _of_classes(labels: Labels) -> Labels:
    """Labels whose classes can be counted: targets are of none."""
    return np.full(len(labels), -1) if labels.dtype.kind == "f" else labels


def _crop(preprocessing: Preprocessing) -> Crop:
    return preprocessing.size, preprocessing.interpolation


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
