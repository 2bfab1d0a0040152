"""Guided batches (G-SimCLR, Chakraborty et al., 2020): no two images of a batch are of one cluster."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.clusters import digest_of
from wildfern.ssl.data.permutation import permuted, permuted_each

Index = NDArray[np.int64]


class GuidedBatches:
    """Maps global indices to items such that a batch of B indices [s·B, (s + 1)·B) has items of B different clusters.

    `clusters` int[N] is the cluster of each item, any numbers; items with -1 are in none and never drawn. With k clusters,
    k // B batches make a round. In every round k mod B clusters rest, taken in turn from a seeded order of all, and the others
    are permuted by (seed, round) and cut into batches. A cluster gives its items one after the other, in endless seeded
    permutations of its items: each comes once before any comes again.

    So clusters are drawn equally often, whatever their sizes, and items in proportion to 1 / size of their cluster. Everything
    is computed from the index. Raises DataError if there are fewer clusters than images in a batch.
    """

    def __init__(self, clusters: ArrayLike, batch_size: int, seed: int) -> None:
        clusters = np.asarray(clusters)
        members = np.flatnonzero(clusters >= 0)
        _, number, self.sizes = np.unique(clusters[members], return_inverse=True, return_counts=True)
        self.members: Index = members[np.argsort(number, kind="stable")]  # items by cluster
        self.starts: Index = np.cumsum(self.sizes) - self.sizes
        self.batch_size = batch_size
        count = len(self.sizes)
        if count < batch_size:
            fewer = f"set training.batch_size to {count} or less, or " if count > 1 else ""
            raise DataError(
                f"guide: a batch of {batch_size} images of different clusters needs {batch_size} clusters or more, but there are "
                f"{count} with images: {fewer}make more clusters (wildfern cluster -k)"
            )
        self.per_round = count // batch_size  # batches
        self.resting = count - self.per_round * batch_size  # clusters in each round
        self._order = permuted(np.arange(count), count, key("guide order", seed))[1]
        self._place_in_order = np.argsort(self._order)
        self._round_seed = key("guide round", seed)
        self.digest = digest_of(clusters)  # identifies the clusters
        self._cluster_keys = fold(np.uint64(key("guide items", seed)), np.arange(count))

    def clusters_at(self, indices: ArrayLike) -> tuple[Index, Index]:
        """Cluster, numbered by ascending number from 0, and round of each global index: int64[n] each."""
        steps, places = np.divmod(np.asarray(indices, np.int64), self.batch_size)
        rounds, batches = np.divmod(steps, self.per_round)
        drawn = self.per_round * self.batch_size
        # Epoch r of this permutation are the clusters of round r that do not rest.
        active = permuted(rounds * drawn + batches * self.batch_size + places, drawn, self._round_seed)[1]
        return self._order[((rounds + 1) * self.resting + active) % len(self._order)], rounds

    def locate(self, indices: ArrayLike) -> tuple[Index, Index]:
        """Epoch of its cluster, and item, for each global index: int64[n] each."""
        clusters, rounds = self.clusters_at(indices)
        # A cluster at place p rested in rounds that took the multiples p, p + k, p + 2k … below rounds · resting.
        rested = (rounds * self.resting - self._place_in_order[clusters] - 1) // len(self._order) + 1
        epochs, items = permuted_each(rounds - rested, self.sizes[clusters], self._cluster_keys[clusters])
        return epochs, self.members[self.starts[clusters] + items]
