"""k-means clusters of features (MacQueen, 1967), by mini-batches (Sculley, 2010)."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from wildfern.ssl.evaluation.unit_rows import unit_rows

PASSES = 100  # over all features, at most
BATCH = 1024  # features; more if there are more clusters, as each batch should have some of each


def k_means(features: Tensor, k: int, seed: int = 0) -> NDArray[np.int32]:
    """The cluster 0 … k - 1 of each row of float[N, D], int32[N], by the distance of unit rows, as in kNN by cosine.

    A cluster may be empty. A function of the features and the seed (and in its last digits of the number of threads). Raises
    ValueError for fewer rows than clusters.
    """
    if len(features) < k:
        raise ValueError(f"{k} clusters need at least as many images, got {len(features)}")
    rows = unit_rows(features.float()).numpy(force=True)
    model = MiniBatchKMeans(k, random_state=seed, batch_size=max(BATCH, 4 * k), n_init=1, max_iter=PASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        found: NDArray[np.int32] = model.fit_predict(rows).astype(np.int32)
    return found
