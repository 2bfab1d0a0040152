"""What a report shows of single test images of one data set: predictions, thumbnails, neighbors, maps and segmentations."""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wildfern.bounded_json import parse_json
from wildfern.files import check_folder, read_bytes, replacing
from wildfern.ssl.evaluation.report.segmentation_arrays import Segmentations, parsed_segmentations, segmentation_arrays

FOLDER = "evaluation_details"  # in a run folder
MOST_BYTES = 256 * 2**20
LEAST_GRID, MOST_GRID = 4, 64  # patches along a side of a map
FORMAT = "1"


@dataclass(frozen=True)
class Predicted:
    """What a protocol says of the n test images with one backbone: `ranked` int64[n, ≤ 5], best first (-1: none).

    `confidence` float32[n] is the probability of the first guess; None for a classifier without probabilities.
    """

    ranked: NDArray[np.int64]
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Thumbnails:
    """Small JPEG files of some images: `images` int64[t] are their numbers, in the order of `files`."""

    images: NDArray[np.int64]
    files: tuple[bytes, ...]


@dataclass(frozen=True)
class Neighbors:
    """The nearest train images of some test images: `queries` int64[q], places in test; by backbone int64[q, k] train items.

    `labels` int64[q, k] of those, by backbone.
    """

    queries: NDArray[np.int64]
    items: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class PatchMaps:
    """Maps of q test images, a pixel for each patch: `images` int64[q], places in test.

    By backbone `components` uint8[q, R, K, 3], principal components as colors, and `attention` uint8[q, R, K] of the class token,
    for networks that have one.
    """

    images: NDArray[np.int64]
    components: dict[str, NDArray[np.uint8]]
    attention: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class ImageDetails:
    """The n test images of `dataset`: `labels` int64[n] (-1: none) and `items` int64[n] of the source, in the order of test.

    n is 0 if only segmentations were evaluated, which are by (protocol, backbone), of images of their own.

    - predictions: by (protocol, backbone).
    - train_counts: int64[C], train images of each class.
    - map_images int64[m], places in test, and `map_features` by backbone, float32[m, ≤ 50]: principal components of unit rows.
    - thumbnails: of test, by place in test; train_thumbnails: by item of train, for the neighbors.
    - groups: codes int64[n] and names, by column.
    - patch_maps: None in files of earlier versions, and where no network has them.
    """

    dataset: str
    labels: NDArray[np.int64]
    items: NDArray[np.int64]
    class_names: tuple[str, ...] | None = None
    predictions: dict[tuple[str, str], Predicted] = field(default_factory=dict)
    train_counts: NDArray[np.int64] | None = None
    map_images: NDArray[np.int64] | None = None
    map_features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    thumbnails: Thumbnails | None = None
    train_thumbnails: Thumbnails | None = None
    neighbors: Neighbors | None = None
    groups: dict[str, tuple[NDArray[np.int64], tuple[str, ...]]] = field(default_factory=dict)
    patch_maps: PatchMaps | None = None
    segmentations: Segmentations = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, backbones: Collection[str]) -> "ImageDetails":
        """Without other backbones."""
        neighbors = self.neighbors
        if neighbors is not None:
            items, labels = (
                {name: found[name] for name in found if name in backbones}
                for found in (neighbors.items, neighbors.labels)
            )
            neighbors = replace(neighbors, items=items, labels=labels)
        maps = self.patch_maps
        if maps is not None:
            components, attention = (
                {name: found[name] for name in found if name in backbones}
                for found in (maps.components, maps.attention)
            )
            maps = replace(maps, components=components, attention=attention)
        return replace(
            self,
            predictions={names: one for names, one in self.predictions.items() if names[1] in backbones},
            map_features={name: rows for name, rows in self.map_features.items() if name in backbones},
            neighbors=neighbors,
            patch_maps=maps,
            segmentations={names: one for names, one in self.segmentations.items() if names[1] in backbones},
        )

    def with_earlier(self, earlier: "ImageDetails | None") -> "ImageDetails":
        """The same with segmentations of other protocols and backbones, and with such predictions for the same test images.

        Without images of its own it has all the earlier ones.
        """
        if earlier is None:
            return self
        segmentations = earlier.segmentations | self.segmentations
        if not len(self):
            return replace(earlier, segmentations=segmentations)
        same = np.array_equal(self.labels, earlier.labels) and np.array_equal(self.items, earlier.items)
        if not same and not earlier.segmentations:
            return self
        predictions = earlier.predictions | self.predictions if same else self.predictions
        return replace(self, predictions=predictions, segmentations=segmentations)


MOST_GROUPS = 10_000  # of a column that is read


def details_path(run: Path, dataset: str) -> Path:
    """The file of a data set in a run folder."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", dataset).strip("_")[:40]
    return run / FOLDER / f"{words}_{hashlib.sha256(dataset.encode()).hexdigest()[:8]}.safetensors"


def write_details(run: Path, details: ImageDetails) -> Path:
    """Write the file of a data set, as a whole; details of other protocols and backbones in it are lost."""
    path = details_path(run, details.dataset)
    check_folder(path.parent)
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {"labels": details.labels, "items": details.items}
    described: dict[str, Any] = {"dataset": details.dataset, "class_names": details.class_names}
    described["predictions"] = [list(names) for names in details.predictions]
    for number, found in enumerate(details.predictions.values()):
        arrays[f"ranked.{number}"] = found.ranked.astype(np.int32)
        if found.confidence is not None:
            arrays[f"confidence.{number}"] = found.confidence.astype(np.float16)
    if details.train_counts is not None:
        arrays["train_counts"] = details.train_counts
    described["map"] = list(details.map_features)
    if details.map_images is not None:
        arrays["map_images"] = details.map_images
        for number, rows in enumerate(details.map_features.values()):
            arrays[f"map.{number}"] = rows.astype(np.float16)
    for name in ("thumbnails", "train_thumbnails"):
        found = getattr(details, name)
        if found is not None:
            arrays[f"{name}.images"] = found.images
            arrays[f"{name}.ends"] = np.cumsum([len(one) for one in found.files], dtype=np.int64)
            arrays[f"{name}.bytes"] = np.frombuffer(b"".join(found.files), np.uint8)
    if details.neighbors is not None:
        arrays["queries"] = details.neighbors.queries
        described["neighbors"] = list(details.neighbors.items)
        for number, name in enumerate(details.neighbors.items):
            arrays[f"neighbors.{number}"] = details.neighbors.items[name]
            arrays[f"neighbor_labels.{number}"] = details.neighbors.labels[name]
    described["groups"] = [[name, list(names)] for name, (_, names) in details.groups.items()]
    for number, (codes, _) in enumerate(details.groups.values()):
        arrays[f"groups.{number}"] = codes
    if details.patch_maps is not None:
        arrays["patch_maps.images"] = details.patch_maps.images
        for what in ("components", "attention"):
            by_backbone = getattr(details.patch_maps, what)
            described[f"patch_maps.{what}"] = list(by_backbone)
            arrays |= {f"patch_maps.{what}.{number}": maps for number, maps in enumerate(by_backbone.values())}
    if details.segmentations:
        described["segmentations"], further = segmentation_arrays(details.segmentations)
        arrays |= further
    content = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        {"format": FORMAT, "details": json.dumps(described)},
    )
    with replacing(path) as file:
        file.write_bytes(content)
    return path


def read_details(run: Path, dataset: str) -> ImageDetails | None:
    """The details of a data set in a run folder; None if there are none. ValueError for a file that is damaged or too large."""
    path = details_path(run, dataset)
    try:
        content = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror or error}") from error
    try:
        return _parsed(content, dataset)
    except (SafetensorError, KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _parsed(content: bytes, dataset: str) -> ImageDetails:
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
    described = parse_json(header["__metadata__"]["details"].encode())
    arrays = load(content)
    n = len(arrays["labels"])

    def column(name: str, high: int | None = None, length: int | None = n, ndim: int = 1) -> NDArray[np.int64]:
        found = arrays[name].astype(np.int64)
        if found.ndim != ndim or (length is not None and len(found) != length):
            raise ValueError(f"{name} has the shape {list(found.shape)}")
        if found.size and (found.min() < -1 or (high is not None and found.max() >= high)):
            raise ValueError(f"{name} has numbers out of range")
        return found

    def number(name: str, shape: tuple[int, ...], ndim: int) -> NDArray[np.float32]:
        found = arrays[name].astype(np.float32)
        if found.ndim != ndim or found.shape[: len(shape)] != shape or not np.isfinite(found).all():
            raise ValueError(f"{name} has the shape {list(found.shape)}, or numbers that are not finite")
        return found

    def pictures(name: str, high: int | None) -> Thumbnails | None:
        if f"{name}.images" not in arrays:
            return None
        images = column(f"{name}.images", high, None)
        ends = column(f"{name}.ends", len(arrays[f"{name}.bytes"]) + 1, len(images))
        if (np.diff(ends, prepend=0) < 0).any():  # files that overlap would multiply in memory
            raise ValueError(f"{name}.ends has numbers that decrease")
        data = arrays[f"{name}.bytes"].astype(np.uint8).tobytes()
        starts = [0, *ends.tolist()][: len(ends)]
        return Thumbnails(images, tuple(data[start:end] for start, end in zip(starts, ends.tolist(), strict=True)))

    def maps(what: str, shape: tuple[int | None, ...]) -> dict[str, NDArray[np.uint8]]:
        by_backbone = {}
        for place, name in enumerate(described[f"patch_maps.{what}"]):
            found = arrays[f"patch_maps.{what}.{place}"]
            fits = len(found.shape) == len(shape) and all(
                LEAST_GRID <= side <= MOST_GRID if wanted is None else side == wanted
                for side, wanted in zip(found.shape, shape, strict=True)
            )
            if found.dtype != np.uint8 or not fits:
                raise ValueError(f"patch_maps.{what}.{place} is {found.dtype} of the shape {list(found.shape)}")
            by_backbone[str(name)] = found
        return by_backbone

    predictions = {}
    for place, (protocol, backbone) in enumerate(described["predictions"]):
        confidence = number(f"confidence.{place}", (n,), 1) if f"confidence.{place}" in arrays else None
        predictions[str(protocol), str(backbone)] = Predicted(column(f"ranked.{place}", ndim=2), confidence)
    map_images = column("map_images", n, None) if "map_images" in arrays else None
    shape = (0 if map_images is None else len(map_images),)
    neighbors = None
    if "queries" in arrays:
        queries = column("queries", n, None)
        names = [str(name) for name in described["neighbors"]]
        items, labels = (
            {name: column(f"{what}.{place}", None, len(queries), 2) for place, name in enumerate(names)}
            for what in ("neighbors", "neighbor_labels")
        )
        neighbors = Neighbors(queries, items, labels)
    patch_maps = None
    if "patch_maps.images" in arrays:
        images = column("patch_maps.images", n, None)
        shape_of_maps = (len(images), None, None)
        patch_maps = PatchMaps(images, maps("components", (*shape_of_maps, 3)), maps("attention", shape_of_maps))
    class_names = described["class_names"]
    return ImageDetails(
        dataset,
        column("labels"),
        column("items"),
        None if class_names is None else tuple(map(str, class_names)),
        predictions,
        column("train_counts", None, None) if "train_counts" in arrays else None,
        map_images,
        {str(name): number(f"map.{place}", shape, 2) for place, name in enumerate(described["map"])},
        pictures("thumbnails", n),
        pictures("train_thumbnails", None),
        neighbors,
        {
            str(name): (column(f"groups.{place}", len(names)), tuple(map(str, names)))
            for place, (name, names) in enumerate(described["groups"])
            if len(names) <= MOST_GROUPS
        },
        patch_maps,
        parsed_segmentations(described.get("segmentations", []), arrays),
    )
