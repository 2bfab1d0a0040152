"""Labels as data sets write them, and the classes that they become."""

import numpy as np
import pytest

from wildfern.ssl.data import DataError
from wildfern.ssl.data.labels import number_labels


@pytest.mark.parametrize(
    ("labels", "others", "numbers", "names"),
    [
        ([0, 2, 1, 0], [], [0, 2, 1, 0], ["0", "1", "2"]),
        ([10**9 + 5, 10**9, 7], [10**9], [2, 1, 0], ["7", "1000000000", "1000000005"]),
        ([5, 3], [1, 4], [3, 1], ["1", "3", "4", "5"]),  # those of the other split count
        ([2**64 - 1, -1, None, 3], [], [1, -1, -1, 0], ["3", str(2**64 - 1)]),
        ([1.0, float("nan"), 4.0], [], [0, -1, 1], ["1", "4"]),
        ([True, False, None], [], [1, 0, -1], ["false", "true"]),
        ([True, True], [], [1, 1], ["false", "true"]),
        (["dog", "cat"], ["emu"], [1, 0], ["cat", "dog", "emu"]),
        (["dog", 7], [], [1, 0], ["7", "dog"]),
    ],
)
def test_occurring_labels_are_numbered(labels, others, numbers, names):
    found, found_names = number_labels(labels, others, "here")
    assert (found.dtype, found.tolist(), found_names) == (np.int64, numbers, names)


@pytest.mark.parametrize(
    ("labels", "others", "hot", "names"),
    [
        ([[1, 5], [5], [], None], [], [[1, 1], [0, 1], [0, 0], [0, 0]], ["1", "5"]),
        ([["b"], ["a", "b"]], [["c"]], [[0, 1, 0], [1, 1, 0]], ["a", "b", "c"]),
        ([["b"], "a"], [], [[0, 1], [1, 0]], ["a", "b"]),
        ([[3, -1, -1], [4, 3, -1]], [], [[1, 0], [1, 1]], ["3", "4"]),  # filled up with -1
        ([[0, 1, 0], [0, 0, 0]], [], [[0, 1, 0], [0, 0, 0]], ["0", "1", "2"]),
        ([[0.0, 1.0], [1.0, 1.0]], [], [[0, 1], [1, 1]], ["0", "1"]),
        ([[True, False]], [], [[1, 0]], ["0", "1"]),
        ([[-1, 1], [1, 1]], [], [[0, 1], [1, 1]], ["0", "1"]),
        ([[0, 1]], [[4, 1]], [[1, 1, 0]], ["0", "1", "4"]),  # ids, as the other split shows
        ([[0, 1], [1]], [], [[1, 1], [0, 1]], ["0", "1"]),  # ids, as the lengths show
    ],
)
def test_lists_are_several_labels(labels, others, hot, names):
    found, found_names = number_labels(labels, others, "here")
    assert (found.dtype, found.tolist(), found_names) == (np.uint8, hot, names)


def test_class_names_are_of_ids():
    assert number_labels([2, None, 0], [], "here", ["a", "b", "c"])[0].tolist() == [2, -1, 0]
    assert number_labels([[0, 1]], [], "here", ["a", "b", "c"])[0].tolist() == [[1, 1, 0]]
    with pytest.raises(DataError, match="here: a label is 3, but there are 3 class names"):
        number_labels([3], [], "here", ["a", "b", "c"])


@pytest.mark.parametrize("labels", [[], [None, -1], [[], None]])
def test_no_labels_at_all(labels):
    assert number_labels(labels, [], "here") == (None, None)


@pytest.mark.parametrize(
    ("label", "message"),
    [(-7, "a label is -7; -1 means"), (0.5, "is 0.5"), ({"a": 1}, "of type dict"), (b"x", "of type bytes"), ([[1]], "of lists")],
)  # fmt: skip
def test_what_no_label_can_be(label, message):
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        number_labels([1, label], [], "here")


def test_a_huge_multi_hot_array_is_refused(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.data.labels.MOST_MULTI_HOT_BYTES", 10)
    with pytest.raises(DataError, match="4 classes of 3 images with several labels each need"):
        number_labels([[1, 2], [3], [4]], [], "here")
