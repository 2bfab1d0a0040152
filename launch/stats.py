"""What is in a data source: sizes, channels, values, classes, and the recipe keys that follow from them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wildfern.launch.protocols import checked_arguments
from wildfern.printable import printable
from wildfern.recipes.errors import Problem, RecipeErrors, dotted
from wildfern.recipes.schema import DataEntry, Imbalance
from wildfern.recipes.wording import complaints
from wildfern.ssl.data import DataError, Source, UnreadableImage, open_source, source_signature
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.imbalance import imbalanced
from wildfern.ssl.data.subset import Subset
from wildfern.ssl.data.value_range import RawImage
from wildfern.ssl.tracking.current_progress import current_progress

PERCENTILES = (0.5, 50.0, 99.5)
_VALUES = 2**14  # of each band of an image, for the percentiles
_LISTED = 20


@dataclass
class Sample:
    """Sizes, values and sums over images, as they are read and as they are stored."""

    sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height)
    channels: Counter[int] = field(default_factory=Counter)
    count: int = 0  # pixels
    sums: NDArray[np.float64] | float = 0.0  # [C], of pixels in [0, 1]
    squares: NDArray[np.float64] | float = 0.0
    types: Counter[str] = field(default_factory=Counter)
    values: list[list[NDArray]] = field(default_factory=list)  # as stored: by image and band
    least: float = np.inf
    most: float = -np.inf

    def add(self, pixels: NDArray[np.uint8]) -> None:
        height, width, channels = pixels.shape
        self.sizes.append((width, height))
        self.channels[channels] += 1
        shares = pixels.reshape(-1, channels) / 255.0
        self.count += len(shares)
        self.sums, self.squares = self.sums + shares.sum(0), self.squares + np.square(shares).sum(0)

    def add_raw(self, raw: RawImage) -> None:
        self.types[raw.values.dtype.name] += 1
        self.values.append(raw.sampled(_VALUES))
        if raw.extremes is not None:
            self.least, self.most = min(self.least, raw.extremes[0]), max(self.most, raw.extremes[1])

    @property
    def is_deep(self) -> bool:
        """Whether images are stored in other types than 8 bits."""
        return bool(self.types) and set(self.types) != {"uint8"}

    def bands(self) -> list[NDArray]:
        """Values as stored, of each band."""
        return [np.concatenate(parts) for parts in zip(*self.values, strict=False)]

    def ranges(self) -> list[tuple[float, float]]:
        """The range of values of each band, without outliers."""
        ends = (np.percentile(values, (PERCENTILES[0], PERCENTILES[-1])) for values in self.bands())
        return [(float(low), float(high)) for low, high in ends]

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the pixels of each channel, in [0, 1]."""
        mean = self.sums / self.count
        return mean, np.maximum(np.sqrt(np.maximum(self.squares / self.count - np.square(mean), 0)), 1e-4)


def describe_source(name: str, arguments: Mapping[str, Any], split: str = "train", images: int = 100) -> str:
    """A printable report on a source, opened with these arguments, from a sample of `images` images spread evenly over it.

    Raises RecipeErrors for arguments that the source does not take, and DataError for a source that cannot be opened.
    """
    imbalance = _imbalance(arguments, name, split)
    arguments = {key: value for key, value in arguments.items() if key != "imbalance"}
    given = checked_arguments(source_signature(name), arguments, name, "stats")
    source = open_with_classes(name, split, given, explicit="labels" in arguments)
    if imbalance is not None:
        source = imbalanced(source, name, **dict(imbalance))
    found, labels, items = examine(source, images)
    if not found.sizes:
        name_of_first, reason = next(iter(source.skipped.items()))
        return printable(f"{name}: none of {items} images can be read; for example {name_of_first}: {reason}")
    total = "endless" if source.num_items is None else f"{source.num_items:,} images"
    words = ", ".join(word for word in (split, source.split_words) if word)
    lines = [
        f"{name} ({words}): {total}, {len(found.sizes)} of them examined",
        *_pixel_lines(found, bool(arguments.get("value_range"))),
    ]
    lines += [*_class_lines(source, labels), *_skipped_lines(source)]
    lines += [f"note: {note}" for note in source.notes]
    return "\n".join(map(printable, lines))


def _imbalance(arguments: Mapping[str, Any], name: str, split: str) -> Imbalance | None:
    """The key `imbalance` of a data entry, for the train split."""
    if "imbalance" not in arguments:
        return None
    if split != "train":
        raise DataError(f"imbalance is for training images: the {split} split has all images")
    given = {"source": name, "imbalance": arguments["imbalance"]}
    try:
        return DataEntry.model_validate_json(json.dumps(given)).imbalance
    except ValidationError as error:
        found = complaints(error.errors(include_url=False), given)
        raise RecipeErrors(
            [Problem("stats", dotted(one.path), one.message, one.suggestion) for one in found]
        ) from error


def open_with_classes(name: str, split: str, given: dict[str, Any], explicit: bool) -> Source:
    """The source; of a folder with its class folders, if it has any and the arguments do not say otherwise."""
    if name.startswith("folder:") and not explicit:
        with suppress(DataError):
            return open_source(name, split, **given | {"labels": "folders"})  # type: ignore[arg-type]
    return open_source(name, split, **given)  # type: ignore[arg-type]


def _labels_of(source: Source) -> NDArray | None:
    """All labels; None, with a note, if they cannot be used."""
    try:
        return getattr(source, "labels", None)
    except DataError as error:
        source.note(f"no labels: {error}")
        return None


def examine(source: Source, images: int) -> tuple[Sample, NDArray | None, int]:
    """A sample of `images` images spread evenly over a source, the labels of all items or else of the sample, and its number."""
    number = images if source.num_items is None else min(images, source.num_items)
    items = np.arange(number)
    if source.num_items is not None:
        items = np.unique(np.linspace(0, source.num_items - 1, number).astype(np.int64))
    found, labels, progress = Sample(), [], current_progress()
    whole_source, chosen = (source.source, source.items[items]) if isinstance(source, Subset) else (source, items)
    if isinstance(whole_source, ImageSource):
        as_stored = type(whole_source).decode is ImageSource.decode
        for place, item in enumerate(chosen.tolist()):
            progress.count(place, len(items), "images")
            try:
                found.add(whole_source.decode(item))
                if as_stored:
                    found.add_raw(whole_source.raw(item))
            except UnreadableImage as error:
                whole_source.skip(whole_source.item_name(item), error.reason)
        return found, _labels_of(source), len(items)
    for start in range(0, len(items), 16):
        progress.count(start, len(items), "images")
        images = source.read(items[start : start + 16]).as_lists()
        for pixels in images.pixels:
            found.add(np.asarray(pixels))
        labels.append(images.labels)
    whole = _labels_of(source)
    if whole is not None and len(whole) == source.num_items:
        return found, whole, len(items)
    return found, None if any(part is None for part in labels) else np.concatenate(labels), len(items)


def _pixel_lines(found: Sample, ranged: bool) -> Iterator[str]:
    widths, heights = np.array(found.sizes).T
    common = Counter(found.sizes).most_common(1)[0][0]
    if len(set(found.sizes)) == 1:
        yield f"size: {common[0]} x {common[1]} px"
    else:
        yield (
            f"size: width {widths.min()} to {widths.max()} (median {int(np.median(widths))}), height {heights.min()} to "
            f"{heights.max()} (median {int(np.median(heights))}) px"
        )
    channels = next(iter(found.channels))
    yield f"channels: {channels}" + ("" if channels == 3 else f"; needs model.arguments: {{in_chans: {channels}}}")
    if found.types:
        yield from _value_lines(found, ranged)
    mean, std = found.moments()
    yield "mean and standard deviation of the pixels as they are read now, in [0, 1]:"
    yield f"views: {{mean: {_numbers(mean)}, std: {_numbers(std)}}}"


def _value_lines(found: Sample, ranged: bool) -> Iterator[str]:
    """The values as stored, and the range that follows from them, unless the source is `ranged` already."""
    types = ", ".join(name if len(found.types) == 1 else f"{name} ({n})" for name, n in found.types.most_common())
    yield f"stored values: {types}, {found.least:.6g} to {found.most:.6g}"
    bands = found.bands()
    if len(bands) > 1:
        for number, values in enumerate(bands, 1):
            shares = ", ".join(
                f"{p:g} %: {v:.6g}" for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)
            )
            yield f"  band {number}: {shares}"
    else:
        shares = zip(PERCENTILES, np.percentile(bands[0], PERCENTILES), strict=True)
        yield "  " + ", ".join(f"{p:g} %: {v:.6g}" for p, v in shares)
    if found.is_deep and not ranged:
        ends = found.ranges()
        pairs = ", ".join(f"[{low:.6g}, {high:.6g}]" for low, high in ends)
        written = f"[{pairs}]" if len(ends) > 1 else pairs
        yield f"value_range: {written}    # {PERCENTILES[0]:g} % to {PERCENTILES[-1]:g} %; with it, run stats again"


def _class_lines(source: Source, labels: NDArray | None) -> Iterator[str]:
    if labels is None:
        yield "classes: none"
        return
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=source.num_classes or 0)
    names = source.class_names or [str(number) for number in range(len(counts))]
    whole = "all images" if len(labels) == source.num_items else f"{len(labels)} images"
    there = np.flatnonzero(counts) if whole != "all images" else np.arange(len(counts))
    listed = ", ".join(f"{names[number]} {counts[number]}" for number in there[:_LISTED])
    more = "" if len(there) <= _LISTED else f" … and {len(there) - _LISTED} more"
    unlabeled = int((~labels.any(1)).sum() if labels.ndim == 2 else (labels < 0).sum())
    yield f"classes: {source.num_classes}, in {whole}: {listed}{more}" + (
        f"; unlabeled {unlabeled}" if unlabeled else ""
    )


def _skipped_lines(source: Source) -> Iterator[str]:
    if skipped := source.skipped:
        yield f"skipped: {len(skipped)}, for example"
        yield from (f"  {name}: {reason}" for name, reason in list(skipped.items())[:3])


def _numbers(values: NDArray[np.float64]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values.tolist())}]"
