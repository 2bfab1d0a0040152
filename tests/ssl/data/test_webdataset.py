"""Tar shards: order, labels, patterns, and damage."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.base import listed_files
from wildfern.ssl.data.shard_files import _are_files, expand_braces


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def plain(path, values) -> None:
    shard(path, [m for v in values for m in ((f"{v:04}.png", png(v)), (f"{v:04}.cls", str(v % 3).encode()))])


def reds(source) -> list[int]:
    return [int(p[0, 0, 0]) for p in source.read(np.arange(source.num_items)).pixels]


def test_shards_in_order_with_labels(tmp_path):
    for number in range(3):
        plain(tmp_path / f"shard-{number:03}.tar", range(10 * number, 10 * number + 5))
    expected = [10 * number + row for number in range(3) for row in range(5)]
    for pattern in ("shard-{000..002}.tar", "shard-*.tar", "shard-00{0,1,2}.tar"):
        source = open_source(f"webdataset:{tmp_path}/{pattern}")
        assert reds(source) == expected
        assert source.class_names == ["0", "1", "2"]
        order = np.random.default_rng(0).permutation(15)
        images = source.read(order)
        assert images.pixels[:, 0, 0, 0].tolist() == [expected[i] for i in order]
        assert images.labels.tolist() == [expected[i] % 3 for i in order]
    assert source.item_name(5) == f"{tmp_path}/shard-001.tar/0010.png"
    assert open_source(f"webdataset:{tmp_path}/shard-*.tar", labels="none").class_names is None


def test_members_with_one_key_are_one_sample(tmp_path):
    long = "deep/" * 40 + "x.jpg"  # longer than the header's 100 + 155 bytes is left to tar's extensions
    shard(
        tmp_path / "a.tar",
        [
            ("a/1.json", json.dumps({"label": "dog", "caption": "…"}).encode()),
            ("a/1.png", png(1)),
            ("a/1.mask.png", png(99)),
            ("b/1.png", png(2)),
            ("b/1.cls", b"cat\n"),
            ("README.txt", b"no image"),
            (long, png(3)),
        ],
    )
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert reds(source) == [1, 2, 3]
    assert source.class_names == ["cat", "dog"]
    assert source.read([0, 1, 2]).labels.tolist() == [1, 0, -1]
    assert source.item_name(2).endswith("deep/x.jpg")


def test_split_in_the_pattern(tmp_path):
    plain(tmp_path / "train-0.tar", [1, 2])
    plain(tmp_path / "test-0.tar", [3])
    pattern = f"webdataset:{tmp_path}/{{split}}-*.tar"
    assert (reds(open_source(pattern)), reds(open_source(pattern, "test"))) == ([1, 2], [3])
    with pytest.raises(DataError, match=r"no test split; write \{split\}"):
        open_source(f"webdataset:{tmp_path}/train-0.tar", "test")


def test_a_truncated_shard_gives_the_samples_before_the_damage(tmp_path):
    plain(tmp_path / "0.tar", range(10))
    plain(tmp_path / "1.tar", range(10, 20))
    data = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(data[: 8 * 1024 + 540])  # each sample is 4 blocks of 512
    source = open_source(f"webdataset:{tmp_path}/*.tar")
    assert reds(source) == [0, 1, 2, 3, *range(10, 20)]
    assert list(source.skipped) == [f"{tmp_path}/0.tar"]
    assert "after 4 images" in source.skipped[f"{tmp_path}/0.tar"]


def test_a_damaged_header_is_not_treated_as_the_end(tmp_path):
    plain(tmp_path / "0.tar", range(10))
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[5 * 2048 : 5 * 2048 + 300] = b"\xff" * 300
    (tmp_path / "0.tar").write_bytes(data)
    source = open_source(f"webdataset:{tmp_path}/0.tar")
    assert source.num_items == 5
    assert "no tar header at byte 10240" in source.skipped[f"{tmp_path}/0.tar"]


def test_a_damaged_image_is_replaced(tmp_path):
    shard(tmp_path / "0.tar", [("0.png", png(7)), ("1.png", b"junk")])
    source = open_source(f"webdataset:{tmp_path}/0.tar")
    assert reds(source) == [7, 7]
    assert source.skipped == {f"{tmp_path}/0.tar/1.png": "not an image in a known format"}


def test_missing_shards_are_named(tmp_path):
    plain(tmp_path / "s-0.tar", [0])
    with pytest.raises(DataError, match=r"2 of the 3 shards .* are missing, the first is .*s-1\.tar"):
        open_source(f"webdataset:{tmp_path}/s-{{0..2}}.tar")
    with pytest.raises(DataError, match="no file matches"):
        open_source(f"webdataset:{tmp_path}/x*.tar")
    for mode in ("w:gz", "w:bz2", "w:xz"):
        shard(tmp_path / "z.tar", [("0.png", png(7))], mode)
        with pytest.raises(DataError, match="is compressed"):
            open_source(f"webdataset:{tmp_path}/z.tar")
    (tmp_path / "n.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(DataError, match=r"no images in the 1 shards .*n\.tar: truncated or damaged"):
        open_source(f"webdataset:{tmp_path}/n.tar")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
    ],
)
def test_braces(pattern, expected):
    assert expand_braces(pattern) == expected


def test_class_numbers_agree_between_splits(tmp_path):
    for split, names in (("train", ["cow", "ant"]), ("test", ["bee", "cow"])):
        members = [m for k, n in enumerate(names) for m in ((f"{k}.png", png(k)), (f"{k}.cls", n.encode()))]
        shard(tmp_path / f"{split}.tar", members)
    train, test = (open_source(f"webdataset:{tmp_path}/{{split}}.tar", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ["ant", "bee", "cow"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0], [1, 2])


def encoded(value: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def test_every_image_extension_counts_and_other_members_are_named(tmp_path):
    members = [m for v in range(4) for m in ((f"{v}.tif", encoded(v, "TIFF")), (f"{v}.txt", b"caption"))]
    litter = [("._0.jpg", b"x"), ("__MACOSX/._0.tif", b"x"), (".DS_Store", b"x"), ("Thumbs.db", b"x")]
    shard(tmp_path / "a.tar", [*litter, *members, ("9.BMP", encoded(9, "BMP")), ("9.npy", b"x")])
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert reds(source) == [0, 1, 2, 3, 9]
    assert source.notes == [f"{tmp_path}/a.tar: passed over 5 of 10 members: 4 .txt, 1 .npy"]
    shard(tmp_path / "b.tar", [("0.npy", b"x"), ("1.txt", b"x"), ("2.txt", b"x")])
    with pytest.raises(DataError, match=r"no images in the 1 shards of .*b\.tar; they have 2 \.txt, 1 \.npy"):
        open_source(f"webdataset:{tmp_path}/b.tar")


def test_of_several_images_of_a_sample_the_first_photograph_is_read(tmp_path):
    shard(
        tmp_path / "a.tar", [("0.bmp", encoded(1, "BMP")), ("0.jpg", encoded(2, "PNG")), ("0.png", encoded(3, "PNG"))]
    )
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert reds(source) == [2]
    assert "passed over 2 of 3 members: 1 .bmp, 1 .png" in source.notes[0]


@pytest.mark.parametrize("name", ["a[1].tar", "{b}.tar", "c{0..1}.tar", "d*.tar"])
def test_a_file_of_exactly_this_name_comes_before_patterns(tmp_path, name):
    plain(tmp_path / name, [7])
    plain(tmp_path / "a1.tar", [8])
    plain(tmp_path / "d1.tar", [9])
    assert reds(open_source(f"webdataset:{tmp_path}/{name}")) == [7]


def test_names_that_are_no_utf8(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        for name, data in (("café.png", png(3)), ("café.é", b"x"), ("è.png", b"damaged")):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert reds(source) == [3, 3]
    assert "1 .\\udce9" in source.notes[0]
    assert json.dumps(source.skipped)


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Training", "Validation"), ("TRAIN", "EVAL")])
def test_names_of_splits(tmp_path, train, test):
    shard(tmp_path / f"{train}-0.tar", [("0.png", png(1)), ("0.cls", b"30"), ("1.png", png(2)), ("1.cls", b"10")])
    shard(tmp_path / f"{test}-0.tar", [("0.png", png(3)), ("0.cls", b"20")])
    sources = [open_source(f"webdataset:{tmp_path}/{{split}}-*.tar", split) for split in ("train", "test")]
    assert [source.split_words for source in sources] == [f"shards of {train}", f"shards of {test}"]
    assert [source.class_names for source in sources] == [["10", "20", "30"]] * 2
    assert [source.labels.tolist() for source in sources] == [[2, 0], [1]]
    plain(tmp_path / "dev-0.tar", [7])
    plain(tmp_path / "valid-0.tar", [7])
    if test != "EVAL":
        with pytest.raises(DataError, match=r"there are shards of .* and .* for the test split"):
            open_source(f"webdataset:{tmp_path}/{{split}}-*.tar", "test")


def test_a_share_of_the_samples_is_the_test_split(tmp_path):
    plain(tmp_path / "a.tar", range(40))
    train, test = (open_source(f"webdataset:{tmp_path}/a.tar", s, test_fraction=0.25) for s in ("train", "test"))
    assert sorted(reds(train) + reds(test)) == list(range(40))
    assert 4 <= test.num_items <= 16
    assert test.labels.tolist() == [value % 3 for value in reds(test)]
    assert test.split_words == "about 25 % of the samples, by a hash of their names"


def test_labels_of_json_may_be_lists(tmp_path):
    labels = [["cat", "dog"], ["cow"], [], None]
    members = [
        m
        for k, v in enumerate(labels)
        for m in ((f"{k}.png", png(k)), (f"{k}.json", json.dumps({"label": v}).encode()))
    ]
    shard(tmp_path / "a.tar", members)
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert source.class_names == ["cat", "cow", "dog"]
    assert source.read([0, 1, 2, 3]).labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_unusable_labels_matter_only_where_they_are_needed(tmp_path):
    shard(tmp_path / "a.tar", [("0.png", png(1)), ("0.cls", b"-5"), ("1.png", png(2)), ("1.cls", b"1")])
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    source.reads_labels = False
    assert (reds(source), source.read([0]).labels, source.notes) == ([1, 2], None, [])
    source.reads_labels = True
    assert source.read([0]).labels is None
    assert "images are read without labels: " in source.notes[0]
    with pytest.raises(DataError, match=r"a\.tar: a label is -5; -1 means unlabeled"):
        _ = source.class_names


@pytest.mark.parametrize("folder", ["d[1]", "e{1,2}", "f{0..1}", "g*"])
def test_a_folder_of_exactly_this_name_comes_before_patterns(tmp_path, folder):
    plain(tmp_path / folder / "s-0.tar", [7])
    plain(tmp_path / folder / "s-1.tar", [8])
    for pattern in ("s-*.tar", "s-{0..1}.tar", "s-[01].tar"):
        assert reds(open_source(f"webdataset:{tmp_path}/{folder}/{pattern}")) == [7, 8]


def test_labels_of_cls_may_be_lists(tmp_path):
    labels = ["[0, 2]", "[1]", "[]"]
    shard(
        tmp_path / "a.tar", [m for i, v in enumerate(labels) for m in ((f"{i}.png", png(i)), (f"{i}.cls", v.encode()))]
    )
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    np.testing.assert_array_equal(source.labels, [[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    shard(tmp_path / "b.tar", [("0.png", png(0)), ("0.cls", b"[cat]"), ("1.png", png(1)), ("1.cls", b"dog")])
    assert open_source(f"webdataset:{tmp_path}/b.tar").class_names == ["[cat]", "dog"]


def test_labels_apart_from_their_images_are_said(tmp_path):
    shard(tmp_path / "a.tar", [("0.png", png(0)), ("1.png", png(1)), ("0.cls", b"0"), ("1.cls", b"1")])
    (note,) = open_source(f"webdataset:{tmp_path}/a.tar").notes
    assert "labels (.cls, .json) with no image beside them: 2; the files of a sample must follow each other" in note


@pytest.mark.parametrize(
    "names", [("train-0", "train-1", "val-0"), ("x_train", "x_test"), ("x-train-000000", "x-test-000000")]
)
def test_several_splits_read_as_one_are_said(tmp_path, names):
    for name in names:
        plain(tmp_path / f"{name}.tar", [1])
    (note,) = open_source(f"webdataset:{tmp_path}/*.tar").notes
    assert "are read as one; write {split} for the word that differs" in note
    assert not open_source(f"webdataset:{tmp_path}/*train*.tar").notes


def test_files_are_found_in_the_lists_of_their_folders(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "folder.tar").mkdir()
    (tmp_path / "a" / "0.tar").touch()
    (tmp_path / "a" / "caf\xe9.tar").touch()
    (tmp_path / "a" / "link.tar").symlink_to("0.tar")
    (tmp_path / "a" / "dangling.tar").symlink_to("1.tar")
    names = [
        "0.tar",
        "1.tar",
        "folder.tar",
        "caf\xe9.tar",
        "cafe\u0301.tar",
        "link.tar",
        "dangling.tar",
        "../a/0.tar",
        "0.TAR",
    ]
    files = [f"{tmp_path}/{folder}/{name}" for folder in ("a", "missing") for name in names]
    monkeypatch.chdir(tmp_path / "a")
    files += ["0.tar", "1.tar", "a/0.tar"]
    assert _are_files(files) == [os.path.isfile(file) for file in files]
    asked = []
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path))
    assert _are_files([f"{tmp_path}/a/{number}.tar" for number in range(1000)]) == [True] + [False] * 999
    assert asked == []


def test_files_are_listed_as_those_of_any_source(tmp_path, monkeypatch):
    for name in ("x/0.tar", "x/y/1.tar"):
        plain(tmp_path / name, [1])
    monkeypatch.chdir(tmp_path / "x")
    for pattern, paths in (("{0,y/1}.tar", ["0.tar", "y/1.tar"]), (f"{tmp_path}/x/y/1.tar", [f"{tmp_path}/x/y/1.tar"])):
        assert list(open_source(f"webdataset:{pattern}").files()) == list(listed_files(paths))
