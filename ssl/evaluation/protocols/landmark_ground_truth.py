"""The ground truth of revisited Oxford and Paris (Radenović et al., 2018), from JSON."""

import os
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.bounded_json import read_json
from wildfern.printable import printable

ANSWERS = ("easy", "hard", "junk")
TO_JSON = (
    "python -c \"import json, pickle; g = pickle.load(open('gnd.pkl', 'rb')); "
    "json.dump({k: g[k] for k in ('imlist', 'qimlist', 'gnd')}, open('gnd.json', 'w'), default=lambda a: a.tolist())\""
)


@dataclass(frozen=True)
class LandmarkQuery:
    """A query: `name` of its file, the `box` (left, top, right, bottom; pixels) of the landmark, and places in the gallery.

    The landmark is easy to recognize in the images `easy` int64[E], hard in `hard` int64[H], and unclear in `junk` int64[J].
    """

    name: str
    box: tuple[float, float, float, float]
    easy: NDArray[np.int64]
    hard: NDArray[np.int64]
    junk: NDArray[np.int64]


@dataclass(frozen=True)
class LandmarkGroundTruth:
    """The names of the images of the gallery, without their ending, and the queries, which are other images."""

    gallery: tuple[str, ...]
    queries: tuple[LandmarkQuery, ...]


def read_ground_truth(path: str | os.PathLike[str]) -> LandmarkGroundTruth:
    """The ground truth of `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`, converted to JSON: imlist, qimlist and gnd.

    gnd is a list of {"bbx": [left, top, right, bottom], "easy": [places in imlist], "hard": […], "junk": […]}.
    Raises ValueError for a pickle, which can run any program when it is read, and for other content; OSError for the file.
    """
    name = printable(os.fspath(path))
    if Path(path).suffix.lower() != ".json":
        raise ValueError(
            f"{name}: the ground truth is read from .json only, since reading a pickle can run any program. If you trust the "
            f"source of the published file, convert it once: {TO_JSON}"
        )
    try:
        return _parsed(read_json(path))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _parsed(found: Any) -> LandmarkGroundTruth:
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in ("imlist", "qimlist", "gnd")):
        raise ValueError('the ground truth is {"imlist": […], "qimlist": […], "gnd": […]}')
    gallery, names = (tuple(map(_name, found[key])) for key in ("imlist", "qimlist"))
    if not gallery or not names or len(names) != len(found["gnd"]):
        raise ValueError(
            f"imlist has {len(gallery)} images, qimlist {len(names)} queries and gnd {len(found['gnd'])} entries; there must be "
            "at least one image and one query, and an entry for each query"
        )
    queries = (_query(name, entry, len(gallery)) for name, entry in zip(names, found["gnd"], strict=True))
    return LandmarkGroundTruth(gallery, tuple(queries))


def _name(name: Any) -> str:
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
        raise ValueError(f"an image is named by its file without folder and ending, got {printable(repr(name))}")
    return name


def _query(name: str, entry: Any, images: int) -> LandmarkQuery:
    where = f"query {printable(name)}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: an entry of gnd has the keys bbx, easy, hard and junk")
    box = entry.get("bbx")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(type(edge) in (int, float) and isfinite(edge) for edge in box)
    ):
        raise ValueError(f"{where}: bbx is [left, top, right, bottom], in pixels")
    places: dict[str, NDArray[np.int64]] = {}
    for answer in ANSWERS:
        given = entry.get(answer)
        if not isinstance(given, list) or not all(type(place) is int and 0 <= place < images for place in given):
            raise ValueError(f"{where}: {answer} is a list of places in imlist, from 0 to {images - 1}")
        places[answer] = np.array(given, np.int64)
    every = np.concatenate(list(places.values()))
    if len(np.unique(every)) < len(every):
        raise ValueError(f"{where}: easy, hard and junk name an image twice")
    left, top, right, bottom = map(float, box)
    return LandmarkQuery(name, (left, top, right, bottom), **places)
