"""Guided batches: different clusters in each batch, and every image of a cluster in turn, from the index alone."""

from collections import Counter

import numpy as np
import pytest

from wildfern.ssl.data import DataError, Mixture, open_source
from wildfern.ssl.data.clusters import clusters_as_bytes, read_clusters
from wildfern.ssl.data.guided_batches import GuidedBatches
from wildfern.ssl.data.subset import Subset

CLUSTERS = np.random.default_rng(0).integers(-1, 13, 150) * 3  # with unused numbers and items in no cluster


@pytest.mark.parametrize(
    "batch_size", [1, 4, 5, 7, 13]
)  # 13 clusters: also all, and almost half, of which rest in a round
def test_batches_have_different_clusters_and_items_come_in_turn(batch_size):
    guide, drawn = GuidedBatches(CLUSTERS, batch_size, seed=3), []
    for step in range(40 * 13 // batch_size):
        items = guide.locate(np.arange(step * batch_size, (step + 1) * batch_size))[1]
        assert len(set(CLUSTERS[items])) == batch_size
        drawn += items.tolist()
    assert min(CLUSTERS[drawn]) == 0
    for cluster in np.unique(CLUSTERS[CLUSTERS >= 0]):
        members = np.flatnonzero(cluster == CLUSTERS)
        own = [item for item in drawn if CLUSTERS[item] == cluster]
        cycles = [own[start : start + len(members)] for start in range(0, len(own) - len(members) + 1, len(members))]
        assert len(cycles) > 1
        assert all(sorted(cycle) == members.tolist() for cycle in cycles)
        assert cycles[0] != cycles[1] or len(members) < 3
    often = Counter(CLUSTERS[drawn]).values()
    assert max(often) - min(often) <= 2


def test_an_index_says_all():
    """In any order and any part: of a rank, or after resuming; and other seeds draw other batches."""
    whole = GuidedBatches(CLUSTERS, 6, seed=3).locate(np.arange(600))
    order = np.random.default_rng(1).permutation(600)[:250]
    for one, other in zip(GuidedBatches(CLUSTERS, 6, seed=3).locate(order), whole, strict=True):
        np.testing.assert_array_equal(one, other[order])
    assert (GuidedBatches(CLUSTERS, 6, seed=4).locate(np.arange(600))[1] == whole[1]).mean() < 0.2


def test_any_two_clusters_can_be_in_one_batch():
    guide = GuidedBatches(np.arange(9), 4, seed=0)
    batches = guide.locate(np.arange(4 * 400))[1].reshape(-1, 4)
    pairs = Counter((a, b) for batch in batches for a in batch for b in batch if a < b)
    assert len(pairs) == 36
    assert min(pairs.values()) > 0.5 * 400 * 6 / 36


def test_fewer_clusters_than_images_are_refused():
    with pytest.raises(DataError, match="needs 14 clusters or more, but there are 13 with images"):
        GuidedBatches(CLUSTERS, 14, seed=0)


def test_a_mixture_reads_the_items_of_its_guide():
    digits = open_source("digits")
    guide = GuidedBatches(digits.labels, 5, seed=0)
    read = Mixture([(digits, 1.0)], 0, guide).read(np.arange(50))
    np.testing.assert_array_equal(read.labels, digits.labels[guide.locate(np.arange(50))[1]])
    assert all(len(set(labels)) == 5 for labels in read.labels.reshape(-1, 5).tolist())
    with pytest.raises(DataError, match="from one source"):
        Mixture([(digits, 1.0), (digits, 1.0)], 0, guide)


def test_clusters_of_other_images_and_damaged_files_are_refused(tmp_path):
    train, test = open_source("digits"), open_source("digits", "test")
    file, clusters = tmp_path / "clusters.safetensors", np.arange(train.num_items) % 50
    content = clusters_as_bytes(clusters, train)
    file.write_bytes(content)
    np.testing.assert_array_equal(read_clusters(str(file), train, "digits"), clusters)
    part = Subset(train, np.arange(7, 90, 3))
    np.testing.assert_array_equal(read_clusters(str(file), part, "digits"), clusters[part.items])
    moved = Subset(train, np.roll(np.arange(train.num_items), 1))
    moved.source, moved.items = open_source("digits"), np.arange(train.num_items)
    moved.source._pixels = moved.source._pixels[::-1]
    for other in (test, moved):
        with pytest.raises(DataError, match="clusters of other images than those of digits"):
            read_clusters(str(file), other, "digits")
    for damaged, message in (
        (content[:100], "is damaged"),
        (b"", "is damaged"),
        (content + bytes(10**5), "other images"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            read_clusters(str(file), train, "digits")
    with pytest.raises(DataError, match="there is no file"):
        read_clusters(str(tmp_path / "none"), train, "digits")
