"""Where features of evaluations are kept between commands, and by which name the images of a data set are known there."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from pydantic_core import to_jsonable_python

from wildfern.cache_folder import cache_folder
from wildfern.launch.errors import RunError
from wildfern.launch.protocols import Dataset
from wildfern.ssl.data import Source
from wildfern.ssl.evaluation import FeatureStore, MemoryBudget

GIB = 2**30
NONE = "none"


def feature_store(cache: str | Path | None, memory_gb: float) -> FeatureStore:
    """The store of an evaluation: `cache` is a folder, "auto" for the user's cache folder, "none" or None for no folder.

    Raises RunError for a memory of less than 0 and for a folder that cannot be used.
    """
    if not memory_gb >= 0:
        raise RunError(f"memory_gb must be a number of GiB of at least 0, got {memory_gb}")
    memory = MemoryBudget(int(memory_gb * GIB))
    if cache is None or str(cache) == NONE:
        return FeatureStore(None, memory)
    folder = cache_folder("features") if str(cache) == "auto" else Path(cache).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if str(cache) == "auto":  # a read-only home: this evaluation only
            return FeatureStore(None, memory)
        raise RunError(f"--cache {folder}: {error.strerror or error}") from error
    return FeatureStore(folder, memory)


def data_key(dataset: Dataset, split: str, source: Source) -> str | None:
    """A name for the images of a split: source, arguments, labels, and path, size and time of change of each of its files.

    None for a source without files: its features are not kept.
    """
    files = source.files()
    if files is None:
        return None
    listed = [(os.path.abspath(file.path), file.size, os.stat(file.path).st_mtime_ns) for file in files]
    kind = dataset.source.partition(":")[0]
    labels = getattr(source, "labels", None)  # of sources that have them apart from the images, such as a table
    known = "" if labels is None else hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    return json.dumps([kind, to_jsonable_python(dataset.arguments), split, source.num_items, known, listed])
