"""Positions of test images on a map: the first two principal components of their features, or UMAP of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Embedding = Literal["auto", "pca", "umap"]
EMBEDDINGS = ("auto", "pca", "umap")
NEIGHBORS, DISTANCE = 15, 0.1  # the defaults of UMAP (McInnes et al., 2018)
SEED = 0


@dataclass(frozen=True)
class Positions:
    """`points` float64[m, 2], and in words how they were computed."""

    points: NDArray[np.float64]
    words: str


def check_embedding(embedding: str) -> None:
    """Raise ValueError for an unknown way to compute positions, and for UMAP where it is not installed."""
    if embedding not in EMBEDDINGS:
        raise ValueError(f"the map of a report is by {', '.join(EMBEDDINGS)}; got {embedding!r}")
    if embedding == "umap":
        try:
            import umap  # noqa: F401
        except ImportError as error:
            raise ValueError(f"a map by umap needs the package umap-learn ({error}): install it, or use pca") from None


def positions(features: NDArray[np.float32], embedding: Embedding) -> Positions:
    """The positions of float32[m, D]; "auto" is PCA, which is quick and the same everywhere. Of fewer than 3 images: PCA."""
    if embedding == "umap" and len(features) > 2:
        return _umap(features)
    return _pca(features)


def _pca(features: NDArray[np.float32]) -> Positions:
    rows = features.astype(np.float64)
    rows = rows - rows.mean(0) if len(rows) else rows
    values, axes = np.linalg.eigh(rows.T @ rows)
    first = axes[:, ::-1][:, :2]
    # The sign of an axis is arbitrary: its largest entry is positive.
    first = first * np.sign(np.take_along_axis(first, np.abs(first).argmax(0)[None], 0))
    points = rows @ first
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    total = values.sum()
    share = f" ({values[::-1][:2].sum() / total:.0%} of the variance of the stored features)" if total > 0 else ""
    return Positions(
        points,
        f"the first two principal components{share}; images that are far apart here are so in the features, too; those that are "
        "close here may not be",
    )


def _umap(features: NDArray[np.float32]) -> Positions:
    from umap import UMAP

    fewer = min(NEIGHBORS, len(features) - 1)
    found = UMAP(n_neighbors=fewer, min_dist=DISTANCE, random_state=SEED, n_jobs=1).fit_transform(features)
    words = (
        f"UMAP of the features ({fewer} neighbors, minimal distance {DISTANCE}, seed {SEED}): what is near is near in the "
        "features too, but distances between clusters, their sizes and densities mean little"
    )
    return Positions(np.nan_to_num(found.astype(np.float64)), words)
