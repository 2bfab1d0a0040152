"""Copies of remote files that were damaged on the disk: seen by their checksums, and downloaded again once."""

import io
import os
import pickle
import time
import warnings
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from range_server import served_to
from tar_bytes import member, png

from wildfern.ssl.data import DataError, checked_copy, open_source, remote_cache
from wildfern.ssl.data.checked_copy import Checksums, DamagedCopy
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import remote_files

PIECE = 100
CONTENT = bytes(range(250)) * 4  # 1000 bytes


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setattr(checked_copy, "PIECE", PIECE)
    with served_to(tmp_path) as files:
        files["/a.tar"] = CONTENT
        yield files


def one(files):
    return remote_files(f"{files.url}/a.tar", RemoteCache(1e9))[0]


def read(file, start=0, count=-1) -> bytes:
    with file.open() as opened:
        opened.seek(start)
        return opened.read(count)


def another_process() -> None:
    checked_copy._known.clear()


def flip(path, place) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
@pytest.mark.parametrize("step", [1, 33, 100, 1000])
def test_checksums_are_those_of_the_pieces(monkeypatch, size, step):
    monkeypatch.setattr(checked_copy, "PIECE", PIECE)
    sums = Checksums()
    for start in range(0, size, step):
        sums.add(CONTENT[:size][start : start + step])
    expected = b"".join(zlib.crc32(CONTENT[:size][i : i + PIECE]).to_bytes(4, "little") for i in range(0, size, PIECE))
    assert sums.encoded() == expected + zlib.crc32(expected).to_bytes(4, "little")


@pytest.mark.parametrize("place", [0, 99, 100, 555, 999])
def test_a_damaged_copy_is_downloaded_again(files, place):
    file = one(files)
    assert read(file) == CONTENT
    flip(file.cache._path(file), place)
    another_process()
    with pytest.warns(
        UserWarning, match=r"remote/.*\.file, the copy of http.*/a\.tar, is damaged: downloading it again"
    ):
        assert read(file, max(0, place - 5), 10) == CONTENT[max(0, place - 5) :][:10]
    assert files.gets("/a.tar") == 2
    assert read(file) == CONTENT
    another_process()
    assert read(file) == CONTENT
    assert files.gets("/a.tar") == 2


def test_only_pieces_that_are_read_are_compared(files):
    file = one(files)
    read(file)
    flip(file.cache._path(file), 950)
    another_process()
    with warnings.catch_warnings(action="error"):
        with file.open() as opened:
            assert opened.raw.readinto(found := bytearray(10)) == 10
        assert found == CONTENT[:10]
    assert files.gets("/a.tar") == 1


def test_a_file_of_checksums_that_is_damaged_is_no_proof(files):
    file = one(files)
    read(file)
    path = file.cache._path(file).with_suffix(".sums")
    for content in (path.read_bytes()[:-1], bytes(len(path.read_bytes()))):
        path.write_bytes(content)
        another_process()
        with pytest.warns(UserWarning, match="is damaged"):
            assert read(file) == CONTENT
        assert len(path.read_bytes()) == 44


def test_a_copy_of_another_length_is_downloaded_again(files):
    file = one(files)
    read(file)
    os.truncate(file.cache._path(file), 500)
    assert read(file) == CONTENT
    assert files.gets("/a.tar") == 2


def test_a_disk_that_damages_again_is_named_with_the_address(files, monkeypatch):
    """The bytes that are downloaded are right, and those that are read are not."""
    file = one(files)
    read(file)
    path = file.cache._path(file)
    monkeypatch.setattr(remote_cache, "forget", lambda path: (another_process(), flip(path, 3)))
    flip(path, 3)
    another_process()
    message = rf"{path}, the copy of {file.path}, is damaged, although it was downloaded again: check the disk"
    with pytest.raises(DataError, match=message), pytest.warns(UserWarning, match="is damaged"):
        read(file)
    assert files.gets("/a.tar") == 2


def test_a_copy_that_cannot_be_had_again_is_named_with_the_address(files):
    file = one(files)
    read(file)
    flip(path := file.cache._path(file), 3)
    another_process()
    files.failures["/a.tar"] = [503] * 20
    message = rf"{path}, the copy of {file.path}, is damaged: {file.path} cannot be read, after 3 tries: .*503"
    with pytest.raises(DamagedCopy, match=message) as caught, pytest.warns(UserWarning, match="is damaged"):
        read(file)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_checksums_without_a_copy_are_deleted(files, monkeypatch):
    file = one(files)
    read(file)
    path = file.cache._path(file)
    path.unlink()
    other = path.with_name("0123.sums")
    other.write_bytes(b"")
    kept = path.with_name("4567.sums")
    kept.write_bytes(b"")
    os.utime(other, (0, time.time() - 4000))
    read(file)
    assert (other.exists(), kept.exists(), path.with_suffix(".sums").exists()) == (False, True, True)


def table(values) -> bytes:
    written = io.BytesIO()
    images = {"image": [png(v) + os.urandom(300) for v in values], "label": [v % 3 for v in values]}
    parquet.write_table(pa.table(images), written, 2, compression="none")
    return written.getvalue()


SETS = {
    "webdataset": lambda: b"".join(member(b"%04d.png" % v, png(v)) for v in range(8)) + bytes(1024),
    "parquet": lambda: table(range(8)),
}


@pytest.mark.parametrize("kind", SETS)
def test_images_of_a_damaged_copy_are_right(files, tmp_path, kind):
    """At each place of the copy in turn: no image is passed over, and none is replaced by another."""
    files["/x.any.parquet"] = content = SETS[kind]()
    arguments = {"parquet": {"memory_gb": 0, "disk_gb": 0}, "webdataset": {"labels": "none", "index": False}}[kind]
    address = f"{kind}:{files.url}/x.any.parquet"
    open_source(address, **arguments).read([0])
    (path,) = tmp_path.glob("remote/*.file")
    for place in range(0, len(content), len(content) // 12):
        flip(path, place)
        another_process()
        with warnings.catch_warnings(action="ignore"):
            source = open_source(address, **arguments)
            assert [int(image[0, 0, 0]) for image in source.read(np.arange(8)).pixels] == list(range(8))
        assert source.skipped == {}
        if path.read_bytes() != content:  # not read: between images
            flip(path, place)


def test_a_damaged_copy_of_parquet_without_its_server_is_an_error(files, tmp_path):
    """And no row groups that are passed over."""
    files["/x.parquet"] = content = SETS["parquet"]()
    address, arguments = f"parquet:{files.url}/x.parquet", {"memory_gb": 0, "disk_gb": 0, "label_column": None}
    open_source(address, **arguments).read([0])
    (path,) = tmp_path.glob("remote/*.file")
    for place in range(0, len(content) // 2, 150):
        source = open_source(address, **arguments)
        flip(path, place)
        another_process()
        files.failures["/x.parquet"] = [503] * 100
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(DataError, match=r"x\.parquet, is damaged|cannot be read"),
        ):
            source.read(np.arange(8))
        assert source.skipped == {}
        files.failures.clear()
        with warnings.catch_warnings(action="ignore"):
            source.read(np.arange(8))
