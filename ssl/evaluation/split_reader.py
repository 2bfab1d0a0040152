"""Reads the images of one split once, for the features of all backbones; several ranks share the work."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.feature_store import FeatureStore, FeatureWriter, feature_key
from wildfern.ssl.evaluation.features import device_of, extract_features
from wildfern.ssl.evaluation.labeled_chunks import CHUNK, LabeledChunk, Labels
from wildfern.ssl.evaluation.last_blocks import LastBlocks
from wildfern.ssl.evaluation.preprocessing import Preprocessing, resize_center_crop
from wildfern.ssl.evaluation.ranks import ALONE, Ranks, hand_over
from wildfern.ssl.evaluation.spilled_array import SpilledArray
from wildfern.ssl.tracking.progress import Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Source

Crop = tuple[int | None, str]  # size and interpolation
Network = tuple[str, int | None]  # a backbone by name, and of which layers the features are
Kind = (
    bool | Literal["targets", "masks"]
)  # what is needed besides pixels: labels (True), nothing (False), targets or masks


@dataclass
class SplitData:
    """What was read of one split: labels as of `label_array`, or targets, and the items of the source that have them.

    Features by network, and images by crop if an evaluator needs them.
    """

    labels: Labels
    items: NDArray[np.int64]
    features: dict[Network, Features] = field(default_factory=dict)
    images: dict[Crop, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What one rank computed of a chunk: features and images as in `SplitData`."""

    chunk: LabeledChunk  # without pixels
    features: dict[Network, Features]
    images: dict[Crop, NDArray[np.uint8]]


@dataclass(frozen=True)
class SplitReader:
    """Computes what evaluators of features and images need, by chunks of the source.

    Features that the store has are not computed again; with several ranks nothing is kept there.
    """

    backbones: Mapping[str, nn.Module]
    preprocessing: Mapping[str, Preprocessing]
    batch_size: int
    store: FeatureStore
    progress: Progress
    ranks: Ranks = ALONE

    def read(
        self,
        source: "Source",
        chunks: Callable[[int | None, tuple[int, int]], Iterator[LabeledChunk]],
        data_key: str | None,
        kind: Kind,
        layers: Sequence[int | None],
        images: bool,
    ) -> SplitData:
        """Features of these layers of every backbone, and the images, as bytes, if wanted; nothing on ranks other than 0.

        `chunks` are those of the source for images of this size, if all have one, and this share of (rank, W).
        """
        found, writers = self._stored(source, data_key, kind, layers)
        if found is not None and not writers and not images:
            return found
        labels: list[Labels] = []
        items: list[NDArray[np.int64]] = []
        crops = {crop_of(one) for one in self.preprocessing.values()} if images else set()
        kept = {crop: SpilledArray(self.store.memory) for crop in crops}
        counted = _Counted(self.progress, source.num_items or 0)
        modules = {network: module for network, (module, _) in writers.items()}
        sizes = {settings.size for settings in self.preprocessing.values()}
        share = self.ranks.rank, self.ranks.world_size

        def take(part: Part) -> None:
            labels.append(part.chunk.labels)
            items.append(part.chunk.items)
            for network, (_, writer) in writers.items():
                writer.append(part.features[network])
            for crop, array in kept.items():
                array.append(part.images[crop])
            counted.done(part.chunk)

        try:
            own = chunks(next(iter(sizes)) if len(sizes) == 1 else None, share)
            parts = self._parts(own, kind == "targets", modules, crops, counted)
            hand_over(parts, math.ceil((source.num_items or 0) / CHUNK), self.ranks, take)
            self._share_messages(source)
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

    def _parts(
        self,
        chunks: Iterator[LabeledChunk],
        targets: bool,
        modules: Mapping[Network, nn.Module],
        crops: Collection[Crop],
        counted: "_Counted",
    ) -> Iterator[tuple[int, Part]]:
        """What this rank computes of its chunks, with their numbers."""
        device = device_of(next(iter(self.backbones.values())))
        for chunk in chunks:
            features, images = {}, {}
            for number, (network, module) in enumerate(modules.items()):
                told = counted.of(chunk, number / len(modules), 1 / len(modules))
                settings = {**vars(self.preprocessing[network[0]]), "batch_size": self.batch_size, "targets": targets}
                found = extract_features(module, [(chunk.pixels, chunk.labels)], done=told, **settings)
                features[network] = Features(found.x.cpu(), found.y.cpu())
            for crop, interpolation in crops:
                resized = resize_center_crop(chunk.pixels, crop, device, interpolation)  # type: ignore[arg-type]
                images[crop, interpolation] = resized.permute(0, 2, 3, 1).mul(255).round_().byte().cpu().numpy()
            yield chunk.first // CHUNK, Part(chunk._replace(pixels=[], masks=None), features, images)

    def _share_messages(self, source: "Source") -> None:
        """Tell rank 0 which images other ranks could not read, and their notes."""
        for skipped, notes in self.ranks.gather((source.skipped, source.notes))[1:]:
            for name, reason in skipped.items():
                source.skip(name, reason)
            for note in notes:
                source.note(note)

    def _stored(
        self, source: "Source", data_key: str | None, kind: Kind, layers: Sequence[int | None]
    ) -> tuple[SplitData | None, dict[Network, tuple[nn.Module, FeatureWriter]]]:
        """What the store has, and for each other network its module and the writer of its features."""
        read: SplitData | None = None
        writers: dict[Network, tuple[nn.Module, FeatureWriter]] = {}
        for name, backbone in self.backbones.items():
            settings = self.preprocessing[name]
            key = None
            if data_key is not None and self.store.folder is not None and self.ranks.world_size == 1:
                described = [settings.size, settings.mean, settings.std, settings.precision, settings.interpolation]
                labels = source.parameter_names if kind == "targets" else kind
                key = feature_key(backbone, data_key, *described, str(device_of(backbone)), labels)
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


def crop_of(preprocessing: Preprocessing) -> Crop:
    """What distinguishes images that are prepared in several ways."""
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
        """All of the chunk is there."""
        self.progress.count(chunk.stop, self.images, "images")
