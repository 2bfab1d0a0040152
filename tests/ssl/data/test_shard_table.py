"""The table of shards: that of the single shards, kept between commands, and made again when a shard changes."""

import mmap
import os
import shutil
import time
from itertools import chain

import numpy as np
import pytest
from tar_bytes import AFTER, FIRST, header, member, number, png

from wildfern.ssl.data import DataError, open_source, shard_table
from wildfern.ssl.data.shard_table import split_samples
from wildfern.ssl.data.splits import name_in_test
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import index_shard

EXTRA = member(b"x.txt", b"") + member(b"lone.cls", b"1")


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Four shards, written long ago: with labels, without, without images, and cut off."""
    monkeypatch.setattr(shard_table, "KEPT_FROM", 5)
    monkeypatch.setattr(shard_table, "_LEAST_BYTES", 512)
    monkeypatch.setattr(shard_table, "_RECENT", -(10**12))  # the system's own time of change cannot be set
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    contents = (
        b"".join(
            member(b"%d.png" % v, png(v)) + member(b"%d.%s" % (v, b"cls" if v % 2 else b"json"), b"1") for v in range(4)
        ),
        b"".join(member(b"caf\xe9/%d.png" % v, png(v)) for v in range(10, 15)) + EXTRA,
        EXTRA,
        (FIRST + AFTER)[:-600],
    )
    paths = [tmp_path / f"{place}.tar" for place in range(4)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    return paths


def noted(paths) -> list[SteadyFile]:
    return [SteadyFile.of(path) for path in paths]


def indexes(tmp_path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/indexes/*.index"))


def test_a_table_has_the_samples_of_each_shard(shards):
    table = shard_table.shard_table(noted(shards), None)
    alone = [index_shard(str(path)) for path in shards]
    assert len(table) == 10
    assert table.starts.tolist() == [0, 4, 9, 9, 10]
    assert [table.name(sample) for sample in range(10)] == list(chain.from_iterable(index.keys for index in alone))
    assert [table.shard_of(sample) for sample in range(10)] == [0] * 4 + [1] * 5 + [3]
    for column in ("offsets", "sizes"):
        assert getattr(table, column).tolist() == list(chain.from_iterable(getattr(index, column) for index in alone))
        assert getattr(table, column).dtype == np.uint32
    for place, index in enumerate(alone):
        rows = zip(index.label_offsets, index.label_sizes, map(bool, index.in_json), strict=True)
        assert table.labels_of(place) == list(rows)
        assert list(table.names_of(place)) == list(index.keys)
    assert table.counts.tolist() == [sum(index.members for index in alone), 2, 2]
    assert table.passed_over == "2 .txt"
    assert table.faults == {3: alone[3].fault}
    assert "after 1 images" in table.faults[3]


def test_shards_without_labels_take_no_room_for_them(shards):
    table = shard_table.shard_table(noted(shards[1:3]), None)
    assert table.label_sizes.nbytes == table.label_offsets.nbytes == table.in_json.nbytes == 0
    assert table.labels_of(0) == [(0, 0, False)] * 5


def test_places_beyond_4_gib_have_64_bits(tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(header(b"0.jpg", size=number(5 * 2**30)))
        file.seek(5 * 2**30, os.SEEK_CUR)  # a hole
        file.write(AFTER)
    table = shard_table.shard_table(noted([tmp_path / "a.tar"]), None)
    assert table.offsets.tolist() == [512, 5 * 2**30 + 1024]
    assert table.sizes.tolist() == [5 * 2**30, len(png(9))]


def opened(shards, **arguments):
    source = open_source(f"webdataset:{shards[0].parent}/[0-3].tar", **arguments)
    items = range(source.num_items)
    return (
        [int(source.read([item]).pixels[0, 0, 0, 0]) for item in items],
        [source.item_name(item) for item in items],
        source.labels.tolist(),
        source.class_names,
        source.skipped,
        source.notes,
        source.blocks.tolist(),
        list(source.files()),
    )


def test_a_kept_index_gives_the_same_images_without_reading_headers(shards, tmp_path, monkeypatch):
    without = opened(shards, index=False)
    assert indexes(tmp_path) == []
    assert opened(shards) == without
    assert len(indexes(tmp_path)) == 1

    def read_again(shard, compiled=None):
        raise AssertionError("the headers are in the index")

    monkeypatch.setattr(shard_table, "index_shard", read_again)
    assert opened(shards) == without
    table = open_source(f"webdataset:{tmp_path}/[0-3].tar")._table
    for column in (table.offsets, table.text, table.starts):
        base = column
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
        assert not column.flags.writeable
    with pytest.raises(AssertionError, match="in the index"):
        opened(shards, index=False)


def _longer(path):
    path.write_bytes(path.read_bytes() + AFTER)
    os.utime(path, ns=(10**18, 10**18))


def _written_over(path):
    """Other content of the same size, and the time set back."""
    path.write_bytes(path.read_bytes().replace(png(11), png(99)).replace(b"11.png", b"77.png"))
    os.utime(path, ns=(10**18, 10**18))


def _exchanged(path):
    """Another file of the same size and time is renamed to this one."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    _written_over(other)
    os.replace(other, path)


def _replaced(path):
    path.write_bytes(b"".join(member(b"%d.png" % v, png(v)) for v in range(20, 25)) + EXTRA)
    os.utime(path, ns=(10**18, 10**18 + 1))


@pytest.mark.parametrize(
    "change", [_longer, _written_over, _exchanged, _replaced, lambda path: (path.parent / "2.tar").unlink()]
)
def test_a_change_of_a_shard_is_seen(shards, change):
    before = opened(shards)
    change(shards[1])
    after = opened(shards)
    assert after != before
    assert after == opened(shards, index=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: arrays | {"starts": arrays["starts"] * 2},
        lambda arrays: arrays | {"text_starts": arrays["text_starts"][:-1]},
        lambda arrays: arrays | {"ends": arrays["ends"][1:]},
        lambda arrays: arrays | {"sizes": arrays["sizes"].reshape(-1, 1)},
        lambda arrays: arrays | {"offsets": arrays["offsets"].astype(np.float32)},
        lambda arrays: arrays | {"in_json": arrays["in_json"].astype(np.int64)},
        lambda arrays: arrays | {"faulty": arrays["faulty"] + 9},
        lambda arrays: arrays | {"remarks": arrays["remarks"][:-1]},
        lambda arrays: {name: array for name, array in arrays.items() if name != "counts"},
    ],
)
def test_an_index_that_is_no_table_of_these_shards_is_made_again(shards, tmp_path, damage):
    from wildfern.ssl.data.index_file import map_index, write_index

    right = opened(shards)
    (path,) = tmp_path.glob("cache/indexes/*.index")
    write_index(path, damage({name: array.copy() for name, array in map_index(path).items()}))
    assert opened(shards) == right
    path.write_bytes(path.read_bytes()[:-64])
    assert opened(shards) == right
    assert map_index(path)["starts"].tolist() == [0, 4, 9, 9, 10]


def test_small_sets_and_shards_that_were_just_written_are_not_kept(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_table, "_RECENT", 2 * 10**9)
    (tmp_path / "1.tar").touch()
    opened(shards)
    os.utime(tmp_path / "1.tar", ns=(10**18, 10**18))
    monkeypatch.setattr(shard_table, "KEPT_FROM", 20_000)
    opened(shards)
    assert not (tmp_path / "cache").exists()


def test_either_time_of_change_may_be_too_recent(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_table, "_RECENT", 10**12)
    folder, now = tmp_path / "cache/indexes", time.time_ns()
    old = [file._replace(state=(1, 10**18)) for file in noted(shards)]
    shard_table.shard_table([*old[:-1], old[-1]._replace(state=(1, now))], folder)
    os.utime(shards[0], ns=(now, now))
    shard_table.shard_table([SteadyFile.of(shards[0])._replace(state=(1, 10**18)), *old[1:]], folder)
    assert not (tmp_path / "cache").exists()
    os.utime(shards[0], ns=(10**18, 10**18))
    shard_table.shard_table(old, folder)
    assert len(indexes(tmp_path)) == 1


def test_splits_are_those_of_the_names_and_kept_for_each_fraction(shards, tmp_path):
    files = noted(shards)
    table = shard_table.shard_table(files, None)
    for fraction in (0.3, 0.6):
        in_test = [name_in_test(table.name(sample), fraction) for sample in range(len(table))]
        for folder in (None, tmp_path / "cache" / "indexes"):
            splits = split_samples(table, files, fraction, folder)
            assert splits["test"].tolist() == np.flatnonzero(in_test).tolist()
            assert splits["train"].tolist() == np.flatnonzero(np.logical_not(in_test)).tolist()
    assert len(indexes(tmp_path)) == 2
    for _ in range(2):
        sources = [
            open_source(f"webdataset:{tmp_path}/[0-3].tar", split, test_fraction=0.6) for split in ("train", "test")
        ]
        names = [
            [source.item_name(item).rpartition("tar/")[2] for item in range(source.num_items)] for source in sources
        ]
        assert names[1] == [table.name(sample) for sample in np.flatnonzero(in_test)]
        assert sorted(names[0] + names[1]) == sorted(map(table.name, range(len(table))))


def test_blocks_are_the_shards_also_of_a_share_of_the_samples(shards, tmp_path):
    for fraction in (0.0, 0.4):
        source = open_source(f"webdataset:{tmp_path}/[0-3].tar", test_fraction=fraction)
        of = [source.item_name(item).partition(".tar/")[0].rpartition("/")[2] for item in range(source.num_items)]
        for shard, (first, end) in enumerate(zip(source.blocks, source.blocks[1:], strict=False)):
            assert of[first:end] == [str(shard)] * of.count(str(shard))
        assert source.blocks[-1] == source.num_items


def test_shards_without_images_say_what_they_have(shards, tmp_path):
    with pytest.raises(DataError, match=r"no images in the 1 shards of .*2\.tar; they have 1 \.txt"):
        open_source(f"webdataset:{tmp_path}/2.tar")
