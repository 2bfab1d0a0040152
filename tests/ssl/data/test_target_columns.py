"""Numbers of tables as parameters of images: `target_columns` of parquet: and csv:."""

import pickle
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.target_columns import target_numbers

AGES = [1.5, None, 3.0, float("nan"), 5.0, 6.0]


def encoded(folder, color):
    Image.new("RGB", (4, 4), (color, 0, 0)).save(folder / "one.png")
    return (folder / "one.png").read_bytes()


def parquet(folder, **columns):
    images = [encoded(folder, color) for color in range(6)]
    images[4] = b"no image"
    pq.write_table(pa.table({"image": images, "age": AGES, "height": range(6), **columns}), folder / "train.parquet")
    return f"parquet:{folder}"


def csv(folder, *ages, **columns):
    for number in range(len(ages)):
        (folder / f"{number}.png").write_bytes(encoded(folder, number))
    columns = {"filename": [f"{number}.png" for number in range(len(ages))], "age": ages, **columns}
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{folder}"


def test_parquet_gives_the_numbers_of_images_when_they_are_wanted(tmp_path):
    source = open_source(parquet(tmp_path), target_columns=("height", "age"))
    assert source.parameter_names == ("height", "age")
    assert source.read([0, 2]).parameters is None
    assert source.notes == []  # the columns are not read yet
    source.reads_parameters = True
    found = source.read([2, 0, 1, 4]).parameters
    assert found.dtype == np.float32
    # The last image is unreadable, and another one is given in its place.
    np.testing.assert_array_equal(found, [[2, 3], [0, 1.5], [1, np.nan], [np.nan, np.nan]])
    assert source.notes == [f"{tmp_path}: of 6 images, these have no number in age (2)"]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read([2, 0]).parameters, found[:2])


def test_parquet_columns_of_any_type_of_number(tmp_path):
    columns = {"decimal": [Decimal(f"{n}.50") for n in range(6)], "flag": [n > 2 for n in range(6)]}
    source = open_source(parquet(tmp_path, **columns), target_columns=("decimal", "flag"))
    source.reads_parameters = True
    np.testing.assert_array_equal(source.read([1, 5]).parameters, [[1.5, 0], [5.5, 1]])


def test_a_share_of_the_rows_has_its_own_numbers(tmp_path):
    name = parquet(tmp_path)
    parts = [open_source(name, s, test_fraction=0.4, target_columns=("height",)) for s in ("train", "test")]
    seen = []
    for part in parts:
        part.reads_parameters = True
        images = part.read(np.arange(part.num_items))
        heights, colors = images.parameters[:, 0], images.pixels[:, 0, 0, 0]
        known = ~np.isnan(heights)
        np.testing.assert_array_equal(heights[known], colors[known])
        seen += heights[known].tolist()
    assert sorted(seen) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("heigth",), r"no column 'heigth' \(target_columns\); did you mean 'height'"),
        (("name",), "column name is of type string; target_columns are numbers"),
        (("image",), "column image is of type binary; target_columns are numbers"),
    ],
)
def test_other_columns_of_parquet_are_refused(tmp_path, columns, words):
    with pytest.raises(DataError, match=words):
        open_source(parquet(tmp_path, name=list("abcdef")), target_columns=columns)


def test_csv_gives_numbers_of_the_images_of_a_split(tmp_path):
    name = csv(tmp_path, "1.5", "", "-3e2", "nan", "7", split=["train", "test", "test", "test", "test"])
    (tmp_path / "2.png").unlink()  # left out
    source = open_source(name, "test", target_columns=("age",))
    source.reads_parameters = True
    np.testing.assert_array_equal(source.read([0, 1, 2]).parameters, [[np.nan], [np.nan], [7]])
    assert source.notes[-1] == f"{tmp_path}/metadata.csv: of 3 images, these have no number in age (2)"
    source.reads_parameters = False
    assert source.read([0]).parameters is None


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1", "NA"], "column age: 'NA' is not a number, such as 1.5; a cell is empty where there is none"),
        (["1", "1e39"], "column age: 1e39 is infinite, or too large for float32"),
        (["1", "-inf"], "column age: -inf is infinite"),
        (["1600000000", "1600000100"], "numbers from 1600000000 to 1600000100 differ too little for float32"),
    ],
)
def test_cells_that_are_no_numbers_are_refused(tmp_path, cells, words):
    with pytest.raises(DataError, match=words):
        open_source(csv(tmp_path, *cells), target_columns=("age",))


def test_a_missing_column_of_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'ages' \(target_columns\); set target_columns to 'age'"):
        open_source(csv(tmp_path, "1"), target_columns=("ages",))


def test_equal_numbers_are_fine_at_any_size():
    np.testing.assert_array_equal(target_numbers({"time": [1.6e9 + 1] * 3}, "t"), np.full((3, 1), 1.6e9, np.float32))
