"""The images of one data set for several evaluators and backbones: read once, with their features, tokens and maps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.evaluator import ChunkStream, Evaluator, Features, LabeledImages, MaskedImage, MaskedImages
from wildfern.ssl.evaluation.feature_store import FeatureStore
from wildfern.ssl.evaluation.features import stream
from wildfern.ssl.evaluation.label_checks import check_labels, unseen_note
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk, Labels, labeled_chunks
from wildfern.ssl.evaluation.masked_images import masked_images
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.ranks import ALONE, Ranks
from wildfern.ssl.evaluation.split_reader import Kind, SplitData, SplitReader, crop_of
from wildfern.ssl.tracking.progress import Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Groups, Source


def kind_of(evaluator: Evaluator) -> Kind:
    """What an evaluator needs of the images."""
    if evaluator.needs == "masks":
        return "masks"
    return "targets" if evaluator.targets else evaluator.needs_labels


@dataclass
class DatasetReader:
    """Gives each evaluator the train and test split in the form that it needs.

    `sources` are those of "train" and "test"; `data_keys` names their images for the store. With several `ranks` each calls
    `read` and computes a share of the features, which rank 0 gets. Raises ValueError for data that cannot be used, as
    `evaluate_backbones` says.
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
    ranks: Ranks = ALONE
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
                self._on_all(partial(self._keep, split, kind, layers, images))
            if kind is True:
                self._on_all(self._check_labels)

    def _on_all(self, work: Callable[[], None]) -> None:
        """Do this on all ranks, and raise an error of one on each."""
        error: Exception | None = None
        try:
            work()
        except (ValueError, OSError) as caught:
            error = caught
        self.ranks.raise_on_all(error)

    def _keep(self, split: str, kind: Kind, layers: Sequence[int | None], images: bool) -> None:
        self.progress.part(f"{self.dataset}: features of {split}")
        source, key = self.sources[split], self.data_keys.get(split)
        reader = SplitReader(self.backbones, self.preprocessing, self.batch_size, self.store, self.progress, self.ranks)
        found = reader.read(source, partial(self._chunks, split, kind), key, kind, layers, images)
        if self.ranks.rank:
            return
        if not len(found.labels):
            what = "a label" if kind != "targets" else f"its {', '.join(self.sources[split].parameter_names)}"
            raise ValueError(f"{self.dataset} ({split}): no image has {what}")
        self._check_finite(split, found)
        self._kept[split, kind], self._items[split, kind] = found, found.items
        self.counts[split, kind] = LabelCounts.of(_of_classes(found.labels))

    def _check_labels(self) -> None:
        if not self.ranks.rank:
            check_labels(self.dataset, self._kept["train", True].labels, self._kept["test", True].labels)

    def split(
        self, evaluator: Evaluator, name: str, split: str
    ) -> Features | LabeledImages | ChunkStream | MaskedImages:
        """A split for one evaluator and backbone."""
        if evaluator.needs == "masks":
            if (count := self.sources[split].num_items) is None:
                raise ValueError(f"{self.dataset} ({split}): an endless stream cannot be evaluated on")
            return MaskedImages(partial(self._masked, split), count, self.backbones[name], self.preprocessing[name])
        if evaluator.needs == "features":
            found = self._kept[split, kind_of(evaluator)]
            return replace(found.features[name, evaluator.layers], class_names=self._names(split, evaluator))
        if evaluator.needs == "images":
            found = self._kept[split, kind_of(evaluator)]
            settings = self.preprocessing[name]
            pixels = found.images[crop_of(settings)]
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

    def _masked(self, split: str) -> Iterator[MaskedImage]:
        """The images of a split with their masks; their number is known after the last one."""
        images = masked_images(self.sources[split], f"{self.dataset} ({split})", self.progress, f"reading {split}")
        items = []
        for image in images:
            items.append(image.item)
            yield image
        self.counts[split, "masks"] = LabelCounts.of(np.full(len(items), -1))

    def _names(self, split: str, evaluator: Evaluator) -> tuple[str, ...] | None:
        """Of the classes, or of the targets."""
        if evaluator.targets:
            return tuple(self.sources[split].parameter_names)
        names = self.sources[split].class_names
        return None if names is None else tuple(names)

    def _chunks(
        self, split: str, kind: Kind, size: int | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[LabeledChunk]:
        single_label = [name for name, one in self.evaluators.items() if kind_of(one) is True and not one.multi_label]
        return labeled_chunks(
            self.sources[split],
            f"{self.dataset} ({split})",
            unlabeled=kind is False,
            single_label=single_label if kind is True else (),
            size=size,
            targets=kind == "targets",
            share=share,
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

    def _check_finite(self, split: str, found: SplitData) -> None:
        for (name, _), features in found.features.items():
            if not all(torch.isfinite(part).all() for part in features.x.split(2**14)):
                raise ValueError(
                    f"{self.dataset} ({split}): the features of the {name} backbone contain NaN or infinity: it has diverged"
                )


def _of_classes(labels: Labels) -> Labels:
    """Labels whose classes can be counted: targets are of none."""
    return np.full(len(labels), -1) if labels.dtype.kind == "f" else labels


def _told(chunks: Iterable[LabeledChunk], progress: Progress, images: int, detail: str) -> Iterator[LabeledChunk]:
    """The same chunks, counted when the next one is asked for."""
    progress.count(0, images, "images", detail)
    for chunk in chunks:
        yield chunk
        progress.count(chunk.stop, images, "images", detail)
