"""Where images come from: named sets, folders, shards and generator streams behind one interface, and how they are mixed.

`open_source(name, split, **arguments)` opens any of them; a new kind is one file and one line in SOURCES.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from wildfern.generators import STREAMS, make_stream
from wildfern.ssl.data.base import DataError, Images, Source, Split, UnreadableImage
from wildfern.ssl.data.crop import crop_resize, crops_resize, square
from wildfern.ssl.data.digits import DigitsSource
from wildfern.ssl.data.folder import FolderSource
from wildfern.ssl.data.huggingface import HuggingFaceSource
from wildfern.ssl.data.image_file import decode_image, image_size
from wildfern.ssl.data.loader import Loader
from wildfern.ssl.data.mixture import Mixture
from wildfern.ssl.data.parquet import ParquetSource
from wildfern.ssl.data.permutation import permuted
from wildfern.ssl.data.synthetic import SyntheticSource
from wildfern.ssl.data.torchvision_sets import TORCHVISION_SETS, TorchvisionSource
from wildfern.ssl.data.webdataset import WebDatasetSource

SCHEMES: dict[str, Callable[..., Source]] = {
    "folder": FolderSource,
    "parquet": ParquetSource,
    "webdataset": WebDatasetSource,
    "hf": HuggingFaceSource,
}
NAMED: dict[str, Callable[..., Source]] = {
    "digits": DigitsSource,
    **{name: partial(TorchvisionSource, name) for name in TORCHVISION_SETS},
}
# Every name and scheme -> the callable whose keyword-only parameters are its recipe keys (a stream's class for a generator).
SOURCES: dict[str, Callable[..., Any]] = {**SCHEMES, **NAMED, **STREAMS}

__all__ = [
    "SCHEMES",
    "SOURCES",
    "DataError",
    "Images",
    "Loader",
    "Mixture",
    "Source",
    "SyntheticSource",
    "UnreadableImage",
    "crop_resize",
    "crops_resize",
    "decode_image",
    "image_size",
    "open_source",
    "permuted",
    "source_signature",
    "square",
]


def source_signature(name: str) -> Callable[..., Any]:
    """The callable behind a source's name ("digits", "folder:PATH", "ifs"); its keyword-only parameters are the recipe keys."""
    scheme, colon, rest = name.partition(":")
    if colon and scheme in SCHEMES:
        if not rest:
            raise DataError(f"{name!r} wants what to open after the colon, for instance {_example(scheme)}")
        return SCHEMES[scheme]
    if name in SCHEMES:
        raise DataError(f"{name!r} wants what to open: {_example(name)}")
    if name in SOURCES:
        return SOURCES[name]
    if not colon and Path(name).expanduser().exists():
        raise DataError(f"unknown source {name!r}; a path wants its kind before it: folder:{name} or parquet:{name}")
    near = get_close_matches(scheme if colon else name, SCHEMES if colon else SOURCES, 1, 0.5)
    known = ", ".join(_example(entry) if entry in SCHEMES else entry for entry in SOURCES)
    raise DataError(f"unknown source {name!r}{f'; did you mean {near[0]!r}?' if near else ''} There are: {known}")


def open_source(name: str, split: Split = "train", **arguments: Any) -> Source:
    """A source by its name: a named set ("digits"), SCHEME:WHERE ("folder:photos"), or a generator ("ifs", endless).

    `arguments` are the constructor's keyword-only parameters (a generator's go to `make_stream`). Raises DataError for an
    unknown name or argument, naming the nearest, and for whatever cannot be opened.
    """
    constructor = source_signature(name)
    if split not in ("train", "test"):
        raise DataError(f"split is train or test, got {split!r}")
    parameters = inspect.signature(constructor).parameters.values()
    keys = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for argument in arguments:
        if argument not in keys:
            near = get_close_matches(argument, keys, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(keys) or 'none'}"
            raise DataError(f"source {name!r} has no argument {argument!r}; {hint}")
    if name in STREAMS:
        return SyntheticSource(make_stream(name, **arguments), split)
    scheme, colon, rest = name.partition(":")
    return constructor(rest, split, **arguments) if colon and scheme in SCHEMES else constructor(split, **arguments)


def _example(scheme: str) -> str:
    return f"{scheme}:{ {'webdataset': 'PATTERN', 'hf': 'NAME'}.get(scheme, 'PATH') }"
