"""Collect what a report shows of single test images, after a data set was evaluated."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.dataset_reader import DatasetReader
from wildfern.ssl.evaluation.evaluator import Features, Predictions, SegmentationDetails
from wildfern.ssl.evaluation.protocols.neighbor_search import nearest
from wildfern.ssl.evaluation.report.image_details import ImageDetails, Neighbors, PatchMaps, Predicted, Thumbnails
from wildfern.ssl.evaluation.report.patch_maps import patch_maps
from wildfern.ssl.evaluation.unit_rows import unit_rows

if TYPE_CHECKING:
    from wildfern.ssl.data import Source

SIDE = 48  # pixels of a thumbnail's longer side
MAPPED = 50_000  # test images on the map
COMPONENTS = 50
HOVERED = 1_000  # images of the map with a thumbnail
WORST = 24  # mistakes of a protocol and backbone with a thumbnail
QUERIES, NEIGHBORS = 16, 8
MAPS = 8  # images, the first queries, with maps of their patches
AT_ONCE = 64  # images read together


def collect_details(
    data: DatasetReader,
    predictions: Mapping[tuple[str, str], Predictions],
    segmentations: Mapping[tuple[str, str], SegmentationDetails],
    backbones: Sequence[str],
) -> ImageDetails | None:
    """The details of the labeled test images, and of segmentations.

    `predictions` by (protocol, backbone) are of these images, in their order; others are left out. Where no evaluator read
    features or images with labels, there are only the segmentations; None without these.
    """
    test, train = data.labeled("test"), data.labeled("train")
    if test is None or train is None or test.labels.ndim != 1:
        none = np.empty(0, np.int64)
        return ImageDetails(data.dataset, none, none, segmentations=dict(segmentations)) if segmentations else None
    n = len(test.labels)
    found = {names: _predicted(one) for names, one in predictions.items() if len(one) == n}
    features = {name: test.features[name, None] for name in backbones if (name, None) in test.features}
    map_images = _spread(n, MAPPED, "map")
    queries = _spread(n, QUERIES, "queries")
    neighbors = _neighbors(queries, features, data, backbones) if features else None
    shown = [_spread(n, HOVERED, "thumbnails"), queries, *(_worst(one, test.labels) for one in found.values())]
    places = np.unique(np.concatenate(shown))
    train_items = np.empty(0, np.int64)
    if neighbors is not None:
        train_items = np.unique(np.concatenate([one.ravel() for one in neighbors.items.values()]))
    classes = max(int(train.labels.max()), int(test.labels.max())) + 1
    return ImageDetails(
        data.dataset,
        test.labels,
        test.items,
        data.class_names,
        found,
        np.bincount(train.labels, minlength=classes),
        map_images if features else None,
        {name: _components(one, map_images) for name, one in features.items()},
        Thumbnails(places, _jpegs(data.sources["test"], test.items[places])),
        Thumbnails(train_items, _jpegs(data.sources["train"], train_items)) if len(train_items) else None,
        neighbors,
        {one.name: (one[test.items].codes, one.names) for one in data.sources["test"].groups},
        _patch_maps(queries[:MAPS], test.items, data, backbones),
        dict(segmentations),
    )


def _predicted(predictions: Predictions) -> Predicted:
    confidence = None
    if predictions.logits is not None:
        scale = predictions.temperature or 1.0
        parts = [(part / scale).softmax(1).max(1).values for part in predictions.logits.split(4096)]
        confidence = torch.cat(parts).cpu().numpy().astype(np.float32)
    return Predicted(predictions.ranked.cpu().numpy(), confidence)


def _worst(predicted: Predicted, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The mistakes with the highest confidence, or the first ones."""
    wrong = np.flatnonzero(predicted.ranked[:, 0] != labels)
    if predicted.confidence is not None:
        wrong = wrong[np.argsort(-predicted.confidence[wrong], kind="stable")]
    return wrong[:WORST]


def _spread(n: int, most: int, what: str) -> NDArray[np.int64]:
    """The places of at most `most` of n images, drawn at random, in ascending order."""
    if n <= most:
        return np.arange(n)
    draws = uniform(fold(np.uint64(key("report", what)), np.arange(n)), 1)[:, 0]
    return np.sort(np.argsort(draws, kind="stable")[:most])


def _components(features: Features, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """The first principal components of unit rows, float32[m, ≤ 50]."""
    rows = unit_rows(_rows(features, places))
    rows = rows - rows.mean(0)
    _, axes = torch.linalg.eigh((rows.T @ rows).double())
    return (rows @ axes.flip(1)[:, :COMPONENTS].to(rows)).cpu().numpy()


def _rows(features: Features, places: NDArray[np.int64]) -> Tensor:
    index = torch.from_numpy(places).to(features.x.device)
    return features.x[index].to(features.computes_on).float()


def _neighbors(
    queries: NDArray[np.int64], features: Mapping[str, Features], data: DatasetReader, backbones: Sequence[str]
) -> Neighbors | None:
    train = data.labeled("train")
    assert train is not None
    items, labels = {}, {}
    for name in backbones:
        bank = train.features.get((name, None))
        if name not in features or bank is None or len(bank) < NEIGHBORS:
            continue
        rows = _rows(features[name], queries)
        places = torch.cat([place for _, place in nearest(bank.x, rows, NEIGHBORS)]).cpu().numpy()
        items[name], labels[name] = train.items[places], train.labels[places]
    return Neighbors(queries, items, labels) if items else None


def _patch_maps(
    places: NDArray[np.int64], items: NDArray[np.int64], data: DatasetReader, backbones: Sequence[str]
) -> PatchMaps | None:
    pixels = data.sources["test"].read(items[places]).as_lists().pixels
    found = {name: patch_maps(data.backbones[name], pixels, data.preprocessing[name]) for name in backbones}
    components = {name: maps[0] for name, maps in found.items() if maps is not None}
    attention = {name: maps[1] for name, maps in found.items() if maps is not None and maps[1] is not None}
    return PatchMaps(places, components, attention) if components else None


def _jpegs(source: "Source", items: NDArray[np.int64]) -> tuple[bytes, ...]:
    files = []
    for start in range(0, len(items), AT_ONCE):
        for pixels in source.read(items[start : start + AT_ONCE]).as_lists().pixels:
            shown = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
            image = Image.fromarray(np.ascontiguousarray(shown))
            scale = SIDE / max(image.size)
            if scale < 1:
                sides = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
                image = image.resize(sides, Image.Resampling.BILINEAR, reducing_gap=3.0)
            content = io.BytesIO()
            image.save(content, "jpeg", quality=85)
            files.append(content.getvalue())
    return tuple(files)
