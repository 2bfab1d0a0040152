"""Data sources behind one interface: named sets, folders, shards and generator streams; and mixtures of them.

`open_source(name, split, **arguments)` opens any of them; a new source is one file with `@register("source", …)` on its class.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from wildfern.generators import make_stream
from wildfern.registry import GENERATORS, LOCATION, SOURCES, location_parameter, register
from wildfern.ssl.data.base import DataError, Images, Source, Split, UnreadableImage
from wildfern.ssl.data.crop import crop_resize, crops_resize, square
from wildfern.ssl.data.csv_images import CsvSource
from wildfern.ssl.data.curated import CuratedSource
from wildfern.ssl.data.digits import DigitsSource
from wildfern.ssl.data.finite import FiniteSource
from wildfern.ssl.data.folder import FolderSource
from wildfern.ssl.data.groups import Groups, crossed
from wildfern.ssl.data.guided_batches import GuidedBatches
from wildfern.ssl.data.huggingface import HuggingFaceSource
from wildfern.ssl.data.image_file import decode_image, image_size
from wildfern.ssl.data.imbalance import imbalanced
from wildfern.ssl.data.loader import Loader
from wildfern.ssl.data.mask_mix import MaskMixSource
from wildfern.ssl.data.masks import MaskSource
from wildfern.ssl.data.mixture import Mixture
from wildfern.ssl.data.mvtec import MVTecSource
from wildfern.ssl.data.parquet import ParquetSource
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.permutation import permuted
from wildfern.ssl.data.retina import RetinaSource
from wildfern.ssl.data.subset import Subset
from wildfern.ssl.data.synthetic import SyntheticSource
from wildfern.ssl.data.torchvision_sets import TORCHVISION_SETS, TorchvisionSource
from wildfern.ssl.data.webdataset import WebDatasetSource

for _name in TORCHVISION_SETS:
    register("source", _name)(partial(TorchvisionSource, _name))

__all__ = [
    "SOURCES",
    "CsvSource",
    "CuratedSource",
    "DataError",
    "DigitsSource",
    "FiniteSource",
    "FolderSource",
    "Groups",
    "GuidedBatches",
    "HuggingFaceSource",
    "Images",
    "Loader",
    "MVTecSource",
    "MaskMixSource",
    "MaskSource",
    "Mixture",
    "ParquetSource",
    "RetinaSource",
    "Source",
    "Subset",
    "SyntheticSource",
    "TorchvisionSource",
    "UnreadableImage",
    "WebDatasetSource",
    "crop_resize",
    "crops_resize",
    "crossed",
    "decode_image",
    "image_size",
    "imbalanced",
    "open_source",
    "permuted",
    "source_signature",
    "square",
]


def _with_kind(path: str) -> str:
    """The source of this path, by its ending."""
    kind = {".parquet": "parquet", ".tar": "webdataset"}.get(Path(path).suffix.lower())
    return f"{kind}:{path}" if kind else f"folder:{path} or parquet:{path}"


def source_signature(name: str) -> Callable[..., Any]:
    """The callable behind a source's name ("digits", "folder:PATH", "ifs"); its keyword-only parameters are the recipe keys."""
    scheme, colon, location = name.partition(":")
    if scheme not in SOURCES:
        if not colon and expanded(name).exists():
            raise DataError(f"unknown source {name!r}; write the kind of a path before it: {_with_kind(name)}")
        near = get_close_matches(scheme, SOURCES, 1, 0.5)
        known = ", ".join(SOURCES)
        raise DataError(f"unknown source {name!r}{f'; did you mean {near[0]!r}?' if near else '.'} There are: {known}")
    component: Callable[..., Any] = SOURCES[scheme]
    parameter = location_parameter(component)
    if parameter is None and colon:
        raise DataError(f"source {scheme!r} takes nothing after a colon, got {name!r}")
    if parameter is not None and parameter.default is parameter.empty and not location:
        raise DataError(f"source {scheme!r} needs a {parameter.name}: {scheme}:{parameter.name.upper()}")
    return component


def open_source(name: str, split: Split = "train", **arguments: Any) -> Source:
    """A source by its name: a named set ("digits"), SCHEME:WHERE ("folder:photos"), or a generator ("ifs", endless).

    `arguments` are the constructor's keyword-only parameters (a generator's go to `make_stream`). What follows the colon goes to
    the parameter `path`, `pattern` or `name`, the split to the parameter `split`. Raises DataError for an unknown name or
    argument, naming the nearest, and for whatever cannot be opened.
    """
    constructor = source_signature(name)
    if split not in ("train", "test"):
        raise DataError(f"split is train or test, got {split!r}")
    parameters = inspect.signature(constructor).parameters
    keys = [parameter.name for parameter in parameters.values() if parameter.kind is parameter.KEYWORD_ONLY]
    keys = [key for key in keys if key not in ("split", *LOCATION)]
    for argument in arguments:
        if argument not in keys:
            near = get_close_matches(argument, keys, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(keys) or 'none'}"
            raise DataError(f"source {name!r} has no argument {argument!r}; {hint}")
    scheme, colon, location = name.partition(":")
    if scheme in GENERATORS:
        return SyntheticSource(make_stream(scheme, **arguments), split)
    if "split" in parameters:
        arguments["split"] = split
    elif split == "test":
        raise DataError(f"source {scheme!r} has no test split")
    if colon:
        arguments[location_parameter(constructor).name] = location
    source: Source = constructor(**arguments)
    return source
