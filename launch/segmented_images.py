"""The images of `wildfern segment`: a folder, a file or a source, and the names of what is written for each."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.launch.errors import RunError
from wildfern.launch.evaluation_data import check_channels_of
from wildfern.launch.output_paths import written_path
from wildfern.launch.protocols import DatasetLike, check_dataset
from wildfern.printable import printable
from wildfern.recipes import Recipe
from wildfern.registry import GENERATORS
from wildfern.ssl.data import Source, open_source
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.image_source import ImageSource

AS_TRAINED = ("bands", "value_range", "percentiles")  # how the run read its own images
MOST_LETTERS = 120  # of a name, so that it fits into every file system
SEPARATOR = "__"  # in place of "/"


@dataclass(frozen=True)
class SegmentedImages:
    """Images by number. `names`: relative to the folder, with suffix; `written`: of the files for each, without suffix.

    `paths` are those of their files, where they have some; `unreadable`: reasons by name, of files that are no images.
    """

    names: list[str]
    written: list[str]
    read: Callable[[int], NDArray[np.uint8]]
    paths: list[str] = field(default_factory=list)
    source: Source | None = None
    label: str = ""
    unreadable: dict[str, str] = field(default_factory=dict)

    def check(self, channels: int, out: str | Path) -> None:
        """Raise RunError for images of another number of channels, and if some lie in the folder `out`."""
        if self.source is not None:
            check_channels_of({self.label: (self.source, self.source)}, channels, "the run's network")
        place = os.path.realpath(written_path(out))
        for path in self.paths:
            if os.path.commonpath([place, os.path.realpath(path)]) == place:
                raise RunError(f"--out {out} has images that are to be segmented, such as {path}: name another folder")


def open_images(images: str | Path | DatasetLike, recipe: Recipe, out: str | Path) -> SegmentedImages:
    """A folder, a file, or a source. Files are read as in the training of the recipe, unless a source says otherwise.

    Raises RunError if masks in `out` would be among the images, of which they would be some next time, and for endless sources;
    DataError for what cannot be opened.
    """
    if isinstance(images, Path) or (isinstance(images, str) and os.path.exists(os.path.expanduser(images))):
        path = Path(os.path.expanduser(images))
        if path.is_file():
            decoding = _decoding(recipe, path)
            return SegmentedImages(
                [path.name], names_of_files([path.name]), lambda _: decoding.decode(str(path)), [str(path)]
            )
        images = {"source": f"folder:{path}"}
    dataset = check_dataset(images, "segment", "IMAGES")
    scheme, _, location = dataset.source.partition(":")
    _check_place(location, out)
    arguments = dict(dataset.arguments)
    if scheme == "folder":
        arguments = _as_trained(recipe) | arguments
    if scheme == "masks":
        arguments = {"test_fraction": 0.0} | arguments
    source = open_source(dataset.source, "train", **arguments)
    if source.num_items is None:
        raise RunError(f"{dataset.label} is endless: name a folder of images")
    if not isinstance(source, ImageSource):
        names = [f"image_{number:04d}" for number in range(source.num_items)]
        return SegmentedImages(
            names, names, lambda n: np.asarray(source.read([n]).pixels[0]), [], source, dataset.label
        )
    paths = [source.item_name(item) for item in range(source.num_items)]
    names = _relative(paths, location)
    skipped = source.skipped
    unreadable = dict(zip(_relative(list(skipped), location), skipped.values(), strict=True))
    return SegmentedImages(names, names_of_files(names), source.decode, paths, source, dataset.label, unreadable)


def names_of_files(names: Sequence[str]) -> list[str]:
    """Names of the files that are written for images: different, without folders, suffixes, and more than 120 letters.

    Where two would be equal, also on file systems that do not distinguish capitals, the suffixes stay, then numbers are added.
    """
    flat = [name.replace("/", SEPARATOR) for name in names]
    stems = [os.path.splitext(name)[0] or name for name in flat]
    common = Counter(stem.casefold() for stem in stems)
    chosen = [stem if common[stem.casefold()] == 1 else name for stem, name in zip(stems, flat, strict=True)]
    used: set[str] = set()
    found = []
    for name in chosen:
        short = printable(name)
        if len(short.encode("utf-8", "replace")) > MOST_LETTERS:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            short = f"{short.encode('utf-8', 'replace')[: MOST_LETTERS - 9].decode('utf-8', 'ignore')}_{digest}"
        number, own = 1, short
        while own.casefold() in used:
            number += 1
            own = f"{short}_{number}"
        used.add(own.casefold())
        found.append(own)
    return found


def _relative(paths: Sequence[str], root: str) -> list[str]:
    """Paths relative to the folder `root`, those outside of it by their last part."""
    base = os.path.abspath(os.path.expanduser(root)) if root else ""
    names = [os.path.relpath(os.path.abspath(path), base) if base else path for path in paths]
    return [os.path.basename(name) if name.startswith("..") or os.path.isabs(name) else name for name in names]


def _as_trained(recipe: Recipe) -> dict[str, Any]:
    """Arguments by which the photographs of the training were read."""
    for entry in recipe.data:
        if entry.scheme not in GENERATORS:
            return {key: entry.arguments[key] for key in AS_TRAINED if entry.arguments.get(key) is not None}
    return {}


def _decoding(recipe: Recipe, path: Path) -> Decoding:
    """That of a single file. Raises RunError if the training took the range of values from all of its images."""
    arguments = _as_trained(recipe)
    if arguments.get("value_range") == "dataset":
        raise RunError(
            f"{path} is one file, but the run read its images with value_range: dataset, the range of all of them: name the "
            "folder, or '{source: folder:FOLDER, value_range: [low, high]}'"
        )
    return Decoding(**arguments)


def _check_place(location: str, out: str | Path) -> None:
    if not location or not os.path.isdir(os.path.expanduser(location)):
        return
    source, place = Path(os.path.expanduser(location)).resolve(), written_path(out).resolve()
    if place == source or source in place.parents:
        raise RunError(f"--out {out} is in the folder of the images, {location}: name a folder outside of it")
