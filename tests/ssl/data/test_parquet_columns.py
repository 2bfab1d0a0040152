"""The forms in which programs write image and label columns of parquet files, and the names of files of splits."""

import datetime
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def reds(source) -> list[int]:
    return [int(p[0, 0, 0]) for p in source.read(np.arange(source.num_items)).pixels]


PNG = [png(value) for value in range(4)]
LISTS = [list(data) for data in PNG]


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


IMAGES = {
    "list of uint8": ("image", pa.array(LISTS, pa.list_(pa.uint8()))),
    "large list of uint8": ("pixels", pa.array(LISTS, pa.large_list(pa.uint8()))),
    "large binary": ("img", pa.array(PNG, pa.large_binary())),
    "binary view": ("jpg", pa.array(PNG, pa.binary_view())),
    "dictionary": ("x", pa.array(PNG).dictionary_encode()),
    "struct with data": ("picture", pa.array([{"data": data, "width": 4} for data in PNG])),
    "struct with one binary": ("photo", pa.array([{"blob": data, "name": "x"} for data in PNG])),
    "struct with a list": ("image", pa.array([{"bytes": row} for row in LISTS], pa.struct([("bytes", pa.list_(pa.uint8()))]))),
}  # fmt: skip


@pytest.mark.parametrize("form", IMAGES)
def test_the_image_column_is_found(tmp_path, form):
    name, column = IMAGES[form]
    path = write(tmp_path / "train.parquet", id=[1, 2, 3, 4], **{name: column})
    for arguments in ({}, {"image_column": name}):
        source = open_source(f"parquet:{path}", **arguments)
        assert (reds(source), source.skipped) == ([0, 1, 2, 3], {})
    assert open_source(f"parquet:{path}").notes == (
        [] if name == "image" else [f"{path}: images are read from column {name}"]
    )


def test_of_several_image_columns_the_usual_name_is_read(tmp_path):
    two = write(tmp_path / "train.parquet", mask=PNG[::-1], Image=PNG)
    assert reds(open_source(f"parquet:{two}")) == [0, 1, 2, 3]
    assert reds(open_source(f"parquet:{two}", image_column="mask")) == [3, 2, 1, 0]
    two = write(tmp_path / "train.parquet", left=PNG, right=PNG)
    with pytest.raises(DataError, match="several columns can hold images: set image_column to left or right"):
        open_source(f"parquet:{two}")
    none = write(tmp_path / "train.parquet", image=["a.png"], other=[[1]])
    with pytest.raises(DataError, match=r"no column holds encoded images .*; it has image \(string\), other \(list"):
        open_source(f"parquet:{none}")


def test_null_bytes_with_a_path_read_that_file(tmp_path):
    rows = [
        {"bytes": PNG[0], "path": "gone.png"},
        {"bytes": None, "path": "images/1.png"},
        {"bytes": None, "path": "gone.png"},
    ]
    path = write(tmp_path / "train.parquet", image=rows)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(PNG[1])
    source = open_source(f"parquet:{path}")
    assert reds(source)[:2] == [0, 1]
    assert source.skipped == {f"{path} row 2": f"the row has no bytes, and there is no file {path.parent / 'gone.png'}"}


@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [
        ([10**9, 10**9 + 5, 7, -1], [1, 2, 0, -1], ["7", "1000000000", "1000000005"]),
        (pa.array([1, 0, 1, 2], pa.uint8()), [1, 0, 1, 2], ["0", "1", "2"]),
        ([3.0, None, 1.0, 3.0], [1, -1, 0, 1], ["1", "3"]),
        ([True, False, None, True], [1, 0, -1, 1], ["false", "true"]),
        (pa.array(["x", "y", "x", None]).dictionary_encode(), [0, 1, 0, -1], ["x", "y"]),
        (pa.array(["x", "y", "x", "x"], pa.large_string()), [0, 1, 0, 0], ["x", "y"]),
        (pa.array(["x", "y", "x", "x"], pa.string_view()), [0, 1, 0, 0], ["x", "y"]),
        ([["a"], ["b", "a"], [], None], [[1, 0], [1, 1], [0, 0], [0, 0]], ["a", "b"]),
        (pa.array([[4, 9]] * 4, pa.list_(pa.int32(), 2)), [[1, 1]] * 4, ["4", "9"]),
        ([[0.0, 1.0, 0.0]] * 4, [[0, 1, 0]] * 4, ["0", "1", "2"]),
    ],
)
def test_label_columns(tmp_path, column, labels, names):
    source = open_source(f"parquet:{write(tmp_path / 'train.parquet', image=PNG, label=column)}")
    assert (source.read(np.arange(4)).labels.tolist(), source.class_names) == (labels, names)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([{"box": [1, 2]}] * 4, "column label is of type struct.*; label_column could be fine, or null"),
        ([[{"box": 1}]] * 4, "column label is of type list<.*struct"),
        ([b"x"] * 4, "column label is of type binary"),
        ([datetime.datetime(2024, 1, 1)] * 4, "column label is of type timestamp"),
        ([0.5, 1.0, 2.0, 3.0], "column label: a label is 0.5; labels are whole numbers"),
        ([0, 1, -7, 2], "column label: a label is -7; -1 means unlabeled"),
    ],
)
def test_unusable_labels_are_an_error_only_where_they_are_needed(tmp_path, column, message):
    path = write(tmp_path / "train.parquet", image=pa.array(PNG, pa.large_binary()), label=column, fine=[1, 2, 3, 4])
    source = open_source(f"parquet:{path}", image_column="image")
    source.reads_labels = False
    assert (reds(source), source.read([0]).labels, source.notes) == ([0, 1, 2, 3], None, [])
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            _ = source.num_classes
    source.reads_labels = True
    assert source.read([0]).labels is None
    assert len(source.notes) == 1
    assert open_source(f"parquet:{path}", image_column="image", label_column="fine").num_classes == 4


def test_other_label_columns_are_proposed(tmp_path):
    path = write(tmp_path / "train.parquet", image=PNG, fine_label=[1, 2, 3, 4], size=[4] * 4)
    source = open_source(f"parquet:{path}")
    with pytest.raises(DataError, match=r"no column 'label'; label_column could be fine_label$"):
        _ = source.class_names


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["Train.parquet", "VALIDATION.parquet"], [0], [1]),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"], [0, 1], [2]),
        (["train/b.parquet", "train/a.parquet", "test/x.parquet", "._train.parquet"], [1, 0], [2]),
        (["training_1.parquet", "eval_1.parquet", "dev.parquet"], [0], [1]),
        (["a.parquet", "b.parquet"], [0, 1], None),
        (["train.parquet", "extra.parquet"], [0], None),
    ],
)  # fmt: skip
def test_files_of_splits(tmp_path, files, train, test):
    for number, name in enumerate(files):
        write(tmp_path / name, image=[PNG[number]]) if "._" not in name else (tmp_path / name).write_bytes(b"x")
    assert reds(open_source(f"parquet:{tmp_path}")) == train
    if test is not None:
        assert reds(open_source(f"parquet:{tmp_path}", "test")) == test
    notes = open_source(f"parquet:{tmp_path}").notes
    assert any("passed over extra.parquet" in note for note in notes) == ("extra.parquet" in files)
    assert any("all 2 parquet files are the train split" in note for note in notes) == ("b.parquet" in files)


def test_two_sets_of_files_for_a_split_are_refused_unless_named(tmp_path):
    for number, name in enumerate(("train.parquet", "data/train-0.parquet", "val.parquet", "dev.parquet")):
        write(tmp_path / name, image=[PNG[number]])
    with pytest.raises(
        DataError, match=r"has train.parquet and data/train-\*.parquet for the train split: set train_files"
    ):
        open_source(f"parquet:{tmp_path}")
    with pytest.raises(DataError, match=r"has dev.parquet and val.parquet for the test split: set test_files"):
        open_source(f"parquet:{tmp_path}", "test")
    assert reds(open_source(f"parquet:{tmp_path}", train_files="data/train*")) == [1]
    assert reds(open_source(f"parquet:{tmp_path}", "test", test_files="dev.parquet")) == [3]
    with pytest.raises(DataError, match=r"test_files: no parquet files x\*"):
        open_source(f"parquet:{tmp_path}", "test", test_files="x*")


def test_a_share_of_the_rows_is_the_test_split_where_there_is_none(tmp_path):
    path = write(tmp_path / "photos.parquet", image=PNG * 10, label=["a", "b", "c", "d"] * 10)
    train, test = (open_source(f"parquet:{path}", split, test_fraction=0.3) for split in ("train", "test"))
    assert (train.num_items + test.num_items, train.class_names) == (40, list("abcd"))
    assert 5 <= test.num_items <= 20
    assert reds(test) == test.labels.tolist()
    assert test.split_words == "about 30 % of the rows, by a hash of their number"
    write(tmp_path / "s/train.parquet", image=PNG, label=[0] * 4)
    write(tmp_path / "s/test.parquet", image=PNG[:1], label=[0])
    sizes = [open_source(f"parquet:{tmp_path}/s", split, test_fraction=0.3).num_items for split in ("train", "test")]
    assert sizes == [4, 1]
