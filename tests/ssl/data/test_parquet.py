"""Parquet files: written here in every layout, and the real CIFAR-10."""

import gc
import io
import json
import re
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.row_groups import RowGroups


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, encoded, labels=None, *, names=None, row_group_size=1000, image="image", flat=False, label="label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {image: encoded if flat else [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(encoded)]}
    if labels is not None:
        columns[label] = labels
    table = pa.table(columns)
    if names:
        features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, path, row_group_size=row_group_size)


def reds(source) -> list[int]:
    return [int(p[0, 0, 0]) for p in source.read(np.arange(source.num_items)).pixels]


def test_splits_labels_and_class_names(tmp_path):
    write(tmp_path / "train.parquet", [png(v) for v in range(5)], [0, 1, 2, None, 1], names=["ant", "bee", "cat"])
    write(tmp_path / "test.parquet", [png(9)], [2], names=["ant", "bee", "cat"])
    train, test = open_source(f"parquet:{tmp_path}"), open_source(f"parquet:{tmp_path}", "test")
    assert (train.class_names, train.num_classes) == (["ant", "bee", "cat"], 3)
    assert reds(train) == [0, 1, 2, 3, 4]
    assert train.read([4, 3, 0]).labels.tolist() == [1, -1, 0]
    assert (reds(test), test.read([0]).labels.tolist()) == ([9], [2])


def test_a_source_that_is_no_longer_used_is_freed(tmp_path):
    write(tmp_path / "train.parquet", [png(v) for v in range(5)])

    def use():
        source, held = open_source(f"parquet:{tmp_path}"), np.zeros(8)  # what its callers hold is freed too
        source.read([0])
        return weakref.ref(source), weakref.ref(held)

    found = use()
    gc.collect()
    assert [reference() for reference in found] == [None, None]


@pytest.mark.parametrize("memory_gb", [0.5, 0.0])
def test_shards_and_row_groups_are_one_list(tmp_path, memory_gb):
    for shard in range(3):
        encoded = [png(10 * shard + row) for row in range(7)]
        write(tmp_path / f"data/train-0000{shard}-of-00003.parquet", encoded, row_group_size=3)
    source = open_source(f"parquet:{tmp_path}", memory_gb=memory_gb)
    expected = [10 * shard + row for shard in range(3) for row in range(7)]
    assert reds(source) == expected
    order = np.random.default_rng(0).permutation(21)
    assert [int(p[0, 0, 0]) for p in source.read(order).pixels] == [expected[i] for i in order]
    assert source.class_names is None
    assert source.item_name(8) == f"{tmp_path}/data/train-00001-of-00003.parquet row 1"


def test_row_groups_stay_within_the_budget(tmp_path):
    write(tmp_path / "train.parquet", [bytes(1000) for _ in range(40)], row_group_size=4)
    rows = RowGroups([tmp_path / "train.parquet"], [ImageColumn("image", "bytes")], 10_000)
    assert [len(rows[row]) for row in (0, 39, 17, 0, 25)] == [1000] * 5
    assert len(rows._kept) == 2
    assert rows._kept_bytes == sum(encoded.nbytes for encoded, _ in rows._kept.values()) <= 10_000


def test_ragged_images_come_as_a_list_and_bad_rows_are_replaced(tmp_path):
    encoded = [png(0, (3, 5)), png(1, (4, 4)), b"nonsense", None, png(4, (6, 2))]
    write(tmp_path / "train.parquet", encoded, ["b", "a", "a", "a", "b"])
    source = open_source(f"parquet:{tmp_path}/train.parquet")
    images = source.read(np.arange(5))
    assert isinstance(images.pixels, list)
    assert [p.shape for p in images.pixels][:2] == [(5, 3, 3), (4, 4, 3)]
    missing = f"the row has no bytes, and there is no file {tmp_path / '3.png'}"
    assert set(source.skipped.values()) == {"not an image in a known format", missing}
    assert source.class_names == ["a", "b"]
    assert images.labels[[0, 1, 4]].tolist() == [1, 0, 1]
    replaced = int(images.pixels[2][0, 0, 0])
    assert images.labels[2] == {0: 1, 1: 0, 4: 1}[replaced]


def test_plain_binary_columns_and_other_names(tmp_path):
    write(tmp_path / "train.parquet", [png(5), png(6)], [3, 1], image="img", label="fine", flat=True)
    source = open_source(f"parquet:{tmp_path}", image_column="img", label_column="fine")
    assert (reds(source), source.class_names) == ([5, 6], ["1", "3"])
    with pytest.raises(
        DataError, match="no column 'image' with encoded images; it has img, fine; image_column could be img"
    ):
        open_source(f"parquet:{tmp_path}", image_column="image")
    with pytest.raises(DataError, match="no label column 'coarse'"):
        open_source(f"parquet:{tmp_path}", image_column="img", label_column="coarse")
    assert open_source(f"parquet:{tmp_path}", image_column="img", label_column=None).class_names is None


def test_missing_files_and_splits_are_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/gone does not exist \\({tmp_path} exists\\)"):
        open_source(f"parquet:{tmp_path}/gone")
    write(tmp_path / "train.parquet", [png(5)])
    with pytest.raises(DataError, match=r"no test.parquet, test-\*.parquet or .*; it has train.parquet"):
        open_source(f"parquet:{tmp_path}", "test")
    with pytest.raises(DataError, match="single file and has no test split"):
        open_source(f"parquet:{tmp_path}/train.parquet", "test")
    (tmp_path / "train.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_source(f"parquet:{tmp_path}")


def test_a_set_kept_decoded_gives_the_same_bytes_twice(tmp_path):
    write(tmp_path / "train.parquet", [png(v) for v in range(50)])
    source = open_source(f"parquet:{tmp_path}")
    first, again = reds(source), reds(source)
    assert first == again == list(range(50))
    assert source._filled.all()


def test_real_cifar10(shared):
    train = open_source(f"parquet:{shared}/data/cifar10")
    assert train.class_names == [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    np.testing.assert_array_equal(np.bincount(train.labels), [5000] * 10)
    test = open_source(f"parquet:{shared}/data/cifar10", "test")
    images = test.read(np.arange(test.num_items))
    np.testing.assert_array_equal(np.bincount(images.labels), [1000] * 10)
    assert images.pixels.shape == (10_000, 32, 32, 3)
    # published channel means of CIFAR-10, through one JPEG compression
    np.testing.assert_allclose(images.pixels.mean((0, 1, 2)) / 255, [0.4942, 0.4851, 0.4504], atol=2e-3)


def test_a_shard_that_differs_is_named(tmp_path):
    write(tmp_path / "train-0.parquet", [png(5)], [0])
    write(tmp_path / "train-1.parquet", [png(6)], [0], image="photo")
    with pytest.raises(
        DataError, match=r"train-1\.parquet has images in column 'photo', but .*train-0\.parquet in 'image'"
    ):
        open_source(f"parquet:{tmp_path}")
    (tmp_path / "train-1.parquet").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"train-1\.parquet cannot be read as parquet"):
        open_source(f"parquet:{tmp_path}")


def test_class_numbers_agree_between_splits(tmp_path):
    write(tmp_path / "train.parquet", [png(v) for v in range(3)], ["cow", "ant", "cow"])
    write(tmp_path / "test.parquet", [png(v) for v in range(2)], ["bee", "cow"])
    train, test = open_source(f"parquet:{tmp_path}"), open_source(f"parquet:{tmp_path}", "test")
    assert train.class_names == test.class_names == ["ant", "bee", "cow"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 2], [1, 2])
    write(tmp_path / "test.parquet", [png(0)])
    assert open_source(f"parquet:{tmp_path}").class_names == ["ant", "cow"]
    assert open_source(f"parquet:{tmp_path}", "test").class_names is None


@pytest.mark.parametrize(
    "names", [("x-train-00000-of-00002", "x-test-00000-of-00001"), ("my_train", "my_val"), ("a_trainset", "a_testset")]
)
def test_files_that_look_like_splits_are_not_mixed(tmp_path, names):
    for number, name in enumerate(names):
        write(tmp_path / f"{name}.parquet", [png(number)])
    with pytest.raises(
        DataError, match=r"look like splits: set train_files: .*train.*parquet and test_files: .*parquet"
    ) as caught:
        open_source(f"parquet:{tmp_path}")
    train, test = re.findall(r"_files: (\S+)", str(caught.value))[:2]
    assert [
        reds(open_source(f"parquet:{tmp_path}", s, train_files=train, test_files=test)) for s in ("train", "test")
    ] == [[0], [1]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_share_without_rows_says_what_to_set(tmp_path, split):
    write(tmp_path / "all.parquet", [png(1), png(2)])
    with pytest.raises(
        DataError, match=f"leaves no image for the {split} split: all 2 rows of .*; set a (smaller|larger) test_f"
    ):
        open_source(f"parquet:{tmp_path}", split, test_fraction={"train": 0.999, "test": 0.001}[split])
