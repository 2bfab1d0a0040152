"""`masks:PATH`: images with segmentation masks and, where a data set has them, fields of view."""

import gzip
import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from PIL import ExifTags, Image

from wildfern.registry import register
from wildfern.ssl.data import pillow_image
from wildfern.ssl.data.base import DataError, EmptySplit, Images, MaskArray, SourceFile, Split, UnreadableImage
from wildfern.ssl.data.image_file import Decoding, File
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.mask_layouts import Form, FoundPairs, LayoutName, Pair, find_pairs
from wildfern.ssl.data.paths import existing_folder
from wildfern.ssl.data.splits import empty_share
from wildfern.ssl.data.usable_files import fault_of
from wildfern.ssl.data.worker_threads import check_wanted, in_threads

MOST_BYTES = 2**28  # of a packed image or a MATLAB file, unpacked
_TURNED = ("JPEG", "MPO", "TIFF", "WEBP")  # formats whose header has the EXIF orientation


@register("source", "masks")
class MaskSource(ImageSource):
    """Images of a folder with a mask of 0 and 1 for each; no labels.

    path: a published data set as it is unpacked, or a folder with images and masks of equal names.
    layout: `auto` tries those of `mask_layouts`: drive, stare, chase_db1, cfd, pairs, xcad, cracktree.
    images, masks, regions: patterns of layout pairs, paths below `path` with {name}, the text that the files of an image share
        (images/{name}.jpg, masks/{name}_mask.png); .* at the end is any extension. They are read below folders train and test
        (or val), if both have such files; then these are the splits.
    annotator: 2 takes the second annotation of data sets that have two.
    test_fraction: the share of the images that is test (`names_in_test`) where the data set has no split of its own: 0 is
        none, 1 all. `seed` chooses others.
    max_side: shrink images to this longer side, and their masks to the nearest pixel.

    A pixel of a mask is 1 if its value (the largest of its channels) is above half of the largest value in the file: 0 and 1, 0
    and 255, colors on black and smoothed edges are read alike, and a mask of one value other than 0 is all 1. `regions` are read
    in the same way, 1 inside the field of view; images without one get 1 everywhere, if others have one.

    Images without a usable header are left out, those that prove damaged are replaced, with their masks. Raises DataError for a
    mask that is missing, cannot be read or has another size than its image; for images without any masks use `folder:`.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        layout: LayoutName = "auto",
        images: str | None = None,
        masks: str | None = None,
        regions: str | None = None,
        annotator: Literal[1, 2] = 1,
        test_fraction: float = 0.2,
        max_side: int | None = None,
        seed: int = 0,
    ) -> None:
        if layout not in get_args(LayoutName):
            raise DataError(f"there is no layout {layout!r}; there are {', '.join(get_args(LayoutName))}")
        if not 0.0 <= test_fraction <= 1.0:
            raise DataError(f"test_fraction must be in [0, 1], got {test_fraction}")
        given = _given(images, masks, regions)
        folder = existing_folder(path)
        found = find_pairs(folder, split, layout, given, annotator)
        if regions is not None and not any(pair.region for pair in found.pairs.values()):
            raise DataError(f"{folder}: no file of these images matches regions: {regions}")
        chosen, words = _of_split(str(folder), split, found, test_fraction, seed)
        self._root = str(folder)
        paths = [self._path(pair.image) for pair in chosen]
        faults = zip(paths, in_threads(self._fault, chosen, "header"), strict=True)
        damaged = {path: fault for path, fault in faults if fault is not None}
        self._pairs = [pair for path, pair in zip(paths, chosen, strict=True) if path not in damaged]
        if not self._pairs:
            name, reason = next(iter(damaged.items()))
            raise DataError(f"no image under {folder} can be used; for example {name}: {reason}")
        super().__init__(len(self._pairs), decoding=Decoding(max_side))
        for name, reason in damaged.items():
            self.skip(name, reason)
        for message in found.notes:
            self.note(message)
        self.split_words = words
        self._has_regions = any(pair.region for pair in self._pairs)

    def item_name(self, item: int) -> str:
        return self._path(self._pairs[item].image)

    def encoded(self, item: int) -> File:
        return _content(self.item_name(item))

    def files(self) -> Iterator[SourceFile]:
        """The images of the split, then the masks, then the fields of view."""
        for names in zip(*self._pairs, strict=True):
            for name in filter(None, names):
                yield SourceFile(name, os.path.getsize(self._path(name)), self._path(name))

    def read(self, items: ArrayLike) -> Images:
        images = super().read(items)
        unusable = self.skipped
        shown = [self._pairs[self._shown(int(item), unusable)] for item in np.asarray(items, np.int64)]
        pairs = [(pair, one.shape[:2]) for pair, one in zip(shown, images.pixels, strict=True)]
        masks: list[MaskArray] = [self._binary(pair.mask, pair, shape) for pair, shape in pairs]
        regions = [self._binary(pair.region, pair, shape) for pair, shape in pairs] if self._has_regions else None
        if isinstance(images.pixels, list) or not masks:
            return replace(images, masks=masks, regions=regions)
        return replace(images, masks=np.stack(masks), regions=None if regions is None else np.stack(regions))

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _shown(self, item: int, unusable: dict[str, str]) -> int:
        """The item that was read for this one: itself, or what replaced it."""
        candidates = ((item + tried * self._stride) % len(self._pairs) for tried in range(len(self._pairs)))
        return next(candidate for candidate in candidates if self.item_name(candidate) not in unusable)

    def _fault(self, pair: Pair) -> str | None:
        """Why an image cannot be used. Raises DataError for a mask or field of view that cannot be, or has another size."""
        check_wanted()
        image = self._path(pair.image)
        try:
            needed = _shown_size(image)
        except UnreadableImage as error:
            return error.reason
        for name in filter(None, (pair.mask, pair.region)):
            with self._named(name, pair):
                size = _shown_size(self._path(name))
            if size != needed:
                found, wanted = (f"{width} x {height}" for width, height in (size, needed))
                raise DataError(f"{self._path(name)} has {found} pixels, but its image {image} has {wanted}")
        return None

    def _binary(self, name: str | None, pair: Pair, shape: tuple[int, ...]) -> MaskArray:
        """The mask or field of view of an image as it is shown, uint8[H, W]; 1 everywhere without a file."""
        if name is None:
            return np.ones(shape, np.uint8)
        with self._named(name, pair):
            marked = read_mask(self._path(name))
        if marked.shape == shape:
            return marked
        return np.asarray(Image.fromarray(marked).resize((shape[1], shape[0]), Image.Resampling.NEAREST))

    @contextmanager
    def _named(self, name: str, pair: Pair) -> Iterator[None]:
        """Turn UnreadableImage into a DataError that names the file of an image."""
        try:
            yield
        except UnreadableImage as error:
            what = f"the {'mask' if name == pair.mask else 'field of view'} of {self._path(pair.image)}"
            raise DataError(f"{self._path(name)}, {what}, cannot be read: {error.reason}") from error


def names_in_test(names: Iterable[str], test_fraction: float, seed: int) -> set[str]:
    """The names that are test: a share of all, those that come first by a hash of (seed, name), whatever their order.

    The share is rounded; of two names or more, and a fraction other than 0 and 1, at least one is test and one is not.
    """

    def rank(name: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest(), name

    ordered = sorted(set(names), key=rank)
    count = round(test_fraction * len(ordered))
    if 0.0 < test_fraction < 1.0 and len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    return set(ordered[:count])


def read_mask(path: str) -> MaskArray:
    """uint8[H, W] of a mask file: 1 where a value is above half of the largest one, 0 elsewhere. Raises UnreadableImage.

    The value of a pixel is the largest of its channels, times its opacity if it has a channel for that, with the colors
    of a palette. Of a MATLAB file (CFD), the places of `groundTruth.Segmentation` above 1, the background, are 1.
    """
    if path.lower().endswith(".mat"):
        return _segmentation(path)
    file = _content(path)
    values = np.nan_to_num(Decoding(bands=_header(file)[0]).raw(file).values)
    if values.shape[2] in (2, 4):
        values = values[..., :-1] * values[..., -1:].astype(np.float64)
    values = values.max(axis=2)
    return (values > values.max() / 2).astype(np.uint8)


def _header(file: File) -> tuple[tuple[int, ...] | None, bool]:
    """The bands to read of an image with transparency, None of others; and whether it is shown turned by a quarter."""
    try:
        with pillow_image.opened(io.BytesIO(file) if isinstance(file, bytes) else file) as image:  # type: ignore[arg-type]
            sideways = image.format in _TURNED and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            count = 3 if image.mode == "P" else pillow_image.number_of_bands(image)
            return tuple(range(1, count + 1)) if image.has_transparency_data else None, sideways
    except Exception:  # Pillow does not read it, or cannot parse its EXIF
        return None, False


def _shown_size(path: str) -> tuple[int, int]:
    """(width, height) of an image as it is shown, or of a matrix; raises UnreadableImage."""
    if path.lower().endswith(".mat"):
        return _segmentation(path).shape[::-1]
    file = _content(path)
    size = Decoding().size(file)
    return size[::-1] if _header(file)[1] else size


def _content(path: str) -> File:
    """The path of an image file, or the bytes of a packed one (.gz). Raises UnreadableImage."""
    if not path.lower().endswith(".gz"):
        return path
    if (fault := fault_of(path)) is not None:
        raise UnreadableImage(fault)
    try:
        with gzip.open(path) as packed:
            content = packed.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImage(f"truncated or damaged: {pillow_image.first_line(error)}", "truncated") from error
    if len(content) > MOST_BYTES:
        raise UnreadableImage(f"unpacks to more than {MOST_BYTES:,} bytes", "bomb")
    return content


def _segmentation(path: str) -> MaskArray:
    """uint8[H, W] of a MATLAB file of version 5; raises UnreadableImage."""
    from scipy.io import loadmat  # reads numbers and texts, and runs nothing of the file

    if (fault := fault_of(path)) is not None:
        raise UnreadableImage(fault)
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        _check_unpacked(content)
        segments = loadmat(io.BytesIO(content), variable_names=["groundTruth"])["groundTruth"]["Segmentation"][0, 0]
        if segments.ndim != 2 or segments.dtype.kind not in "buif":
            raise UnreadableImage("its groundTruth.Segmentation is no matrix of numbers")
        return (segments > 1).astype(np.uint8)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # scipy raises any for damaged data
        reason = f"truncated, damaged or without groundTruth.Segmentation: {pillow_image.first_line(error)}"
        raise UnreadableImage(reason, "truncated") from error


def _check_unpacked(content: bytes) -> None:
    """Raise UnreadableImage for a MATLAB file of another version, or one that unpacks to more than `MOST_BYTES`."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or content[124:126] not in (b"\0\1", b"\1\0"):
        raise UnreadableImage("not a MATLAB file of version 5 (save -v7, or earlier)", "not_an_image")
    place, total = 128, len(content)
    while place + 8 <= len(content) and total <= MOST_BYTES:
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind == 15:  # a packed element
            part = content[place + 8 : place + 8 + size]
            total += len(zlib.decompressobj().decompress(part, MOST_BYTES + 1))
        place += 8 + size
    if total > MOST_BYTES:
        raise UnreadableImage(f"unpacks to more than {MOST_BYTES:,} bytes", "bomb")


def _given(images: str | None, masks: str | None, regions: str | None) -> Form | None:
    """The patterns of the user. Raises DataError for one without {name}, one that leaves the folder, and one with other signs."""
    if images is None and masks is None and regions is None:
        return None
    if images is None or masks is None:
        raise DataError("give both images: 'images/{name}.png' and masks: 'masks/{name}_mask.png', for example")
    for key, pattern in {"images": images, "masks": masks, "regions": masks if regions is None else regions}.items():
        parts = pattern.split("/")
        if "{name}" not in pattern:
            fault = "needs {name}, the text that an image and its mask share"
        elif ".." in parts or "" in parts or os.path.isabs(pattern):
            fault = "must be a path inside of the folder, without '..'"
        elif re.search(r"[*{}]", pattern.removesuffix(".*").replace("{name}", "")):
            fault = "may have {name}, and .* at its end for any extension"
        else:
            continue
        raise DataError(f"{key}: {pattern!r} {fault}; for example {key}: '{key}/{{name}}.png'")
    return Form(images, (masks,), regions)


def _of_split(root: str, split: Split, found: FoundPairs, test_fraction: float, seed: int) -> tuple[list[Pair], str]:
    """The pairs of the split, and how they were chosen."""
    if found.folder is not None:
        return list(found.pairs.values()), f"{found.layout}, folder {found.folder}"
    test = found.test_names or names_in_test(found.pairs, test_fraction, seed)
    chosen = [pair for name, pair in found.pairs.items() if (name in test) == (split == "test")]
    if not chosen:
        fixed = f"{root} has no {split} images: {', '.join(sorted(test))} are test, the others train"
        raise EmptySplit(
            fixed if found.test_names else empty_share(f"under {root}", split, test_fraction, len(found.pairs))
        )
    how = "by their names" if found.test_names else f"by a hash of their names (seed {seed})"
    return chosen, f"{found.layout}, {len(chosen):,} of {len(found.pairs):,} images, {how}"
