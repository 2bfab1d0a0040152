"""A file of clusters: the cluster of each image of a source, and which source that is."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from wildfern.files import open_reading
from wildfern.ssl.data.base import DataError, Source
from wildfern.ssl.data.fingerprint import fingerprint
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.subset import Subset

EXAMINED = 16  # images of a source without files
MOST_HEADER = 2**16  # bytes

Clusters = NDArray[np.int32]  # [N]; -1 for an item in no cluster


def identity(source: Source) -> NDArray[np.uint8]:
    """SHA-256 as uint8[32] of the number of images and the names and sizes of the files, else of some images' pixels."""
    digest = hashlib.sha256(f"{source.num_items}\n".encode())
    files = source.files()
    if files is not None:
        digest.update(fingerprint(files).names.encode())
    else:
        assert source.num_items is not None
        items = np.unique(np.linspace(0, source.num_items - 1, EXAMINED).astype(np.int64))
        for pixels in source.read(items).as_lists().pixels:
            digest.update(str(pixels.shape).encode() + np.asarray(pixels).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def clusters_as_bytes(clusters: Clusters, source: Source) -> bytes:
    """The content of a file of clusters, in the format safetensors: `clusters` int32[N] and `source` uint8[32]."""
    content: bytes = save({"clusters": np.asarray(clusters, np.int32), "source": identity(source)})
    return content


def is_clusters(path: Path) -> bool:
    """Whether a file is one of clusters, by its header."""
    try:
        with safe_open(path, "numpy") as found:
            return set(found.keys()) == {"clusters", "source"}
    except (SafetensorError, OSError):
        return False


def read_clusters(path: str, source: Source, name: str) -> Clusters:
    """The cluster of each item of `source`, a finite source or a subset of one. `name` is the source's, for errors.

    Raises DataError for a file that cannot be read or is damaged, and for the clusters of other images.
    """
    if isinstance(source, Subset):
        return read_clusters(path, source.source, name)[source.items]
    if source.num_items is None:
        raise DataError(f"guide needs a finite set of images, but {name} is endless")
    file = expanded(path)
    try:
        with open_reading(file.resolve()) as opened:
            content = opened.read(4 * source.num_items + MOST_HEADER + 1)
    except FileNotFoundError as error:
        raise DataError(f"guide: there is no file {path} (wildfern cluster writes one)") from error
    except OSError as error:
        raise DataError(f"guide: {path} cannot be read: {error.strerror or error}") from error
    other = (
        f"guide: {path} has the clusters of other images than those of {name}: make them again with wildfern cluster"
        f"{'' if source.files() is not None else ', on the run itself if the images depend on the seed of its recipe'}"
    )
    if len(content) > 4 * source.num_items + MOST_HEADER:
        raise DataError(other)
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"guide: {path} is damaged, or no file of clusters: {error}") from error
    clusters, of = found.get("clusters"), found.get("source")
    if clusters is None or of is None or clusters.dtype != np.int32 or clusters.ndim != 1:
        raise DataError(f"guide: {path} is not a file of clusters, as wildfern cluster writes it")
    if len(clusters) != source.num_items or not np.array_equal(of, identity(source)):
        raise DataError(other)
    return clusters


def digest_of(array: NDArray) -> str:
    """SHA-256 of items or clusters."""
    return hashlib.sha256(np.ascontiguousarray(array, np.dtype("<i8")).tobytes()).hexdigest()
