"""The strictest action decides, and all reasons are kept in order."""

import numpy as np
import pytest

from wildfern.ssl.curation.manifest import SCHEMA
from wildfern.ssl.curation.verdicts import Reason, Verdicts


def test_the_strictest_action_decides():
    verdicts = Verdicts(5)
    verdicts.add("a", "review", [0, 1])
    verdicts.add("b", "reject", [1, 2])
    verdicts.add("c", "review", [2])
    verdicts.add("d", "keep", [3])
    assert verdicts.strictness.tolist() == [1, 2, 2, 0, 0]
    assert verdicts.kept.tolist() == [False, False, False, True, True]
    assert verdicts.rejected.tolist() == [False, True, True, False, False]
    assert verdicts.reasons == {
        0: [Reason("a", "review")],
        1: [Reason("a", "review"), Reason("b", "reject")],
        2: [Reason("b", "reject"), Reason("c", "review")],
    }


def test_values_and_details():
    verdicts = Verdicts(4)
    verdicts.add("a", "reject", np.array([3, 0]), np.array([0.5, 2], np.float32), (f"is {n}" for n in (3, 0)))
    verdicts.add("b", "review", [0], details=["x"])
    verdicts.add("c", "review", [1], [7])
    assert verdicts.reasons == {
        3: [Reason("a", "reject", 0.5, "is 3")],
        0: [Reason("a", "reject", 2.0, "is 0"), Reason("b", "review", None, "x")],
        1: [Reason("c", "review", 7.0, "")],
    }
    assert type(verdicts.reasons[3][0].value) is float
    for wrong in ({"values": [1.0]}, {"details": ["x"]}, {"values": [1.0, 2.0, 3.0]}):
        with pytest.raises(ValueError, match="zip"):
            verdicts.add("d", "review", [0, 1], **wrong)


def test_nothing_to_add():
    verdicts = Verdicts(2)
    verdicts.add("a", "reject", [])
    verdicts.add("a", "reject", np.zeros(0, np.int64), np.zeros(0))
    verdicts.add("a", "keep", [0, 1])
    assert verdicts.reasons == {}
    assert verdicts.kept.all()


def test_one_reason_that_decides_alone():
    verdicts = Verdicts(2)
    verdicts.add("tiny", "reject", [0])
    verdicts.replace(0, Reason("marked", "keep", detail="by hand"))
    verdicts.replace(1, Reason("taken_down", "reject"))
    assert verdicts.strictness.tolist() == [0, 2]
    assert [reason.rule for reason in verdicts.reasons[0]] == ["marked", "tiny"]
    assert verdicts.reasons[1] == [Reason("taken_down", "reject")]


def test_columns_of_the_manifest():
    verdicts = Verdicts(5)
    verdicts.add("a", "review", [1, 2], [0.25, 3], ["x", "y"])
    verdicts.add("b", "reject", [2])
    for start, count in ((0, 5), (1, 2), (3, 2), (5, 0)):
        columns = verdicts.columns(start, count)
        assert {name: column.type for name, column in columns.items()} == {
            name: SCHEMA.field(name).type for name in ("decision", "reasons")
        }
        decisions = ["keep", "review", "reject", "keep", "keep"][start : start + count]
        assert columns["decision"].to_pylist() == decisions
        expected = [verdicts.reasons.get(n, []) for n in range(start, start + count)]
        found = [[Reason(**one) for one in reasons] for reasons in columns["reasons"].to_pylist()]
        assert found == expected


def test_no_images():
    verdicts = Verdicts(0)
    assert verdicts.columns(0, 0)["decision"].to_pylist() == []
    assert verdicts.kept.shape == (0,)
