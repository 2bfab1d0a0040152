"""Groups of images by one column or several, and by columns of parquet files."""

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.groups import Groups, crossed, without_unreadable


def words(groups: Groups) -> list[str | None]:
    return [groups.names[code] if code >= 0 else None for code in groups.codes]


def test_numbers_are_ordered_as_numbers_and_what_is_missing_is_unknown():
    groups = Groups.of("camera", [10, 9, None, 10.0, math.nan, "", " 9 "])
    assert (groups.names, groups.codes.tolist()) == (("9", "10"), [1, 0, -1, 1, -1, -1, 0])
    assert Groups.of("city", ["b", "a", "10"]).names == ("10", "a", "b")
    assert words(groups[[3, 2, 1]]) == ["10", None, "9"]
    assert len(Groups.of("x", [])) == 0


def test_crossed_groups_are_those_that_occur():
    rng = np.random.default_rng(0)
    first, second = (Groups.of(name, [str(v) if v else "" for v in rng.integers(4, size=60)]) for name in "ab")
    both = crossed(first, second)
    expected = [
        None if one is None or other is None else f"a {one}, b {other}"
        for one, other in zip(words(first), words(second), strict=True)
    ]
    assert (both.name, words(both), set(both.names)) == ("a × b", expected, {name for name in expected if name})
    assert crossed(first) is first
    with pytest.raises(ValueError, match="of the same images, got 60, 2"):
        crossed(first, Groups.of("c", [1, 2]))


def test_skipped_images_are_of_unknown_group():
    groups = (Groups.of("place", [1, 2, 1]),)
    assert words(without_unreadable(groups, ["a", "b", "c"], {"b": "truncated"})[0]) == ["1", None, "1"]
    assert without_unreadable(groups, iter(()), {}) is groups


def test_impossible_groups_are_refused():
    with pytest.raises(ValueError, match=r"codes of 1 groups are -1 \(unknown\) to 0, got 0 to 1"):
        Groups("x", np.array([0, 1]), ("a",))
    with pytest.raises(ValueError, match="int64"):
        Groups("x", np.array([0.0]), ("a",))
    with pytest.raises(ValueError, match="column x: a group is a text or a number, not of type list"):
        Groups.of("x", [[1]])


def test_groups_by_columns_of_parquet_files(tmp_path):
    def png(value: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    columns = {"image": [png(0), png(1), b"damaged", png(3)], "label": [0, 1, 0, 1]}
    columns |= {"hospital": ["b", "a", "b", None], "tags": [["x"], [], [], []]}
    parquet.write_table(pa.table(columns), tmp_path / "test.parquet")
    source = open_source(f"parquet:{tmp_path}", "test", group_columns=("hospital",))
    assert [words(groups) for groups in source.groups] == [["b", "a", "b", None]]
    source.read(np.arange(4))
    assert [words(groups) for groups in source.groups] == [["b", "a", None, None]]
    assert open_source(f"parquet:{tmp_path}", "test").groups == ()
    with pytest.raises(DataError, match=r"no column 'hopsital' \(group_columns\); did you mean 'hospital'\?"):
        open_source(f"parquet:{tmp_path}", "test", group_columns=("hopsital",))
    with pytest.raises(DataError, match="column tags: a group is a text or a number, not of type list"):
        _ = open_source(f"parquet:{tmp_path}", "test", group_columns=("tags",)).groups
