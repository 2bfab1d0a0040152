"""Imbalanced subsets: published sizes, and a choice that depends on the seed only."""

import numpy as np
import pytest

from wildfern.ssl.data import DataError, Images, Source, open_source
from wildfern.ssl.data.imbalance import imbalanced, imbalanced_items

CIFAR10, CIFAR100 = np.repeat(np.arange(10), 5000), np.repeat(np.arange(100), 500)


class Labeled(Source):
    def __init__(self, labels, num_items=None, classes=3):
        super().__init__()
        self.labels = None if labels is None else np.asarray(labels)
        self.num_items = len(self.labels) if num_items is None and labels is not None else num_items
        self.class_names = None if labels is None else [f"c{n}" for n in range(classes)]

    def read(self, items):
        return Images(np.zeros((len(items), 2, 2, 3), np.uint8), self.labels[items])


def counts(labels, kind, **given):
    return np.bincount(labels[imbalanced_items(labels, labels.max() + 1, kind, **given)], minlength=labels.max() + 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "linear"}, [500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000]),
        ({"kind": "exp"}, [0, 1, 4, 12, 33, 91, 248, 676, 1839, 5000]),
        ({"kind": "exp", "minimum": 20}, [20, 20, 20, 20, 33, 91, 248, 676, 1839, 5000]),
        ({"kind": "exp", "ratio": 100}, [50, 83, 139, 232, 387, 645, 1077, 1796, 2997, 5000]),  # CIFAR-10-LT
        ({"kind": "linear", "ratio": 10}, [500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000]),
        ({"kind": "step", "ratio": 100}, [50] * 5 + [5000] * 5),
    ],
)
def test_sizes_on_cifar10(given, expected):
    assert counts(CIFAR10, **given).tolist() == expected


def test_published_sizes_on_cifar100_are_in_ten_levels():
    found = counts(CIFAR100, "exp")
    assert found[::10].tolist() == [0, 0, 0, 1, 3, 9, 24, 67, 183, 500]
    assert found.sum() == 7870
    assert counts(CIFAR100, "linear")[::10].tolist() == [50, 100, 150, 200, 250, 300, 350, 400, 450, 500]


def test_smaller_classes_keep_what_they_have_and_unlabeled_images_are_left_out():
    labels = np.array([-1] * 4 + [0] * 10 + [1] * 2 + [2] * 6)
    kept = imbalanced_items(labels, 3, "linear", ratio=2)
    assert np.bincount(labels[kept]).tolist() == [5, 2, 6]


def test_the_choice_follows_from_the_seed_and_a_smaller_one_is_a_part_of_a_larger_one():
    large, small = (set(imbalanced_items(CIFAR10, 10, "exp", ratio=ratio).tolist()) for ratio in (10, 100))
    assert small < large
    others = set(imbalanced_items(CIFAR10, 10, "exp", ratio=100, seed=1).tolist())
    assert len(small & others) < 0.7 * len(small)  # the whole last class is in both


def test_a_subset_reads_the_items_of_its_source():
    whole = open_source("digits")
    part = imbalanced(whole, "digits", "exp", ratio=20)
    assert part.num_items == len(part.items) < whole.num_items
    items = np.array([0, 5, part.num_items - 1])
    read, expected = part.read(items), whole.read(part.items[items])
    np.testing.assert_array_equal(read.pixels, expected.pixels)
    np.testing.assert_array_equal(read.labels, part.labels[items])
    assert part.class_names == whole.class_names
    part.reads_labels = False
    assert whole.reads_labels is False
    with pytest.raises(IndexError, match="has 429 images"):
        part.read([429])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Labeled(None), "endless"),
        (Labeled(None, num_items=5), "labels, but x has none"),
        (Labeled(np.eye(3, dtype=np.uint8)), "have several"),
        (Labeled([0, 1]), "leaves none of the 2 images"),
    ],
)
def test_sources_without_one_label_for_each_image_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        imbalanced(source, "x", "exp")


def test_the_first_images_of_a_labeled_source_have_its_labels():
    first, whole = open_source("finite", of="digits", items=500), open_source("digits")
    part = imbalanced(first, "finite", "exp", ratio=20)
    np.testing.assert_array_equal(part.items, imbalanced_items(whole.labels[:500], 10, "exp", ratio=20))
    items = np.arange(part.num_items)
    np.testing.assert_array_equal(part.read(items).labels, whole.labels[part.items])
