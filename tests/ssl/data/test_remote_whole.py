"""Web servers that send whole files only, and those that fail on the way."""

import os
import shutil

import numpy as np
import pytest
from range_server import served_to
from tar_bytes import member, png

from wildfern.ssl.data import DataError, open_source, remote, remote_download
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import remote_files

LARGE = 2**24 + 2**23 + 5  # bytes: more than a request for a range, and than fsspec's blocks of 5 MiB


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setattr(remote_download, "WITHOUT_RANGES", set())
    monkeypatch.setattr("wildfern.ssl.data.remote_cache.WITHOUT_RANGES", remote_download.WITHOUT_RANGES)
    with served_to(tmp_path) as files:
        files.ranges = False
        yield files


def read(files, name="a", tail=0) -> bytes:
    with remote_files(f"{files.url}/{name}.tar", RemoteCache(1e9, tail))[0].open() as opened:
        return opened.read()


@pytest.mark.parametrize("tells", [True, False])
def test_large_files_are_read_in_one_request(files, tells):
    files.tells = tells
    content = {name: os.urandom(LARGE) for name in "ab"}
    files.update({f"/{name}.tar": bytes_ for name, bytes_ in content.items()})
    assert read(files) == content["a"]
    before = len(files.requests)
    assert read(files, "b") == content["b"]  # what the server cannot is known then
    assert files.requests[before:].count(("GET", "/b.tar")) == 1


def test_shards_are_those_of_a_server_with_ranges(files):
    noise = os.urandom(LARGE)
    files["/a.tar"] = b"".join(
        [member(b"0.png", png(3)), member(b"0.txt", noise), member(b"1.png", png(4)), bytes(1024)]
    )
    source = open_source(f"webdataset:{files.url}/a.tar", labels="none")
    assert [int(image[0, 0, 0]) for image in source.read(np.arange(2)).pixels] == [3, 4]


def test_the_end_of_a_file_takes_the_whole(files, monkeypatch):
    content = os.urandom(LARGE)
    files["/a.tar"] = content
    with remote_files(f"{files.url}/a.tar", RemoteCache(1e9, tail=2**20))[0].open() as opened:
        opened.seek(-100, os.SEEK_END)
        assert opened.read() == content[-100:]
        opened.seek(0)
        assert opened.read() == content


def test_a_download_that_breaks_off_starts_again(files):
    content = os.urandom(3 * 2**20)
    files["/a.tar"] = content
    remote_download.WITHOUT_RANGES.add(files.url.partition("://")[2])
    files.cut["/a.tar"] = [2**20 + 17, 0]
    assert read(files) == content
    assert files.gets("/a.tar") == 3


def test_a_download_that_breaks_off_each_time_names_the_address(files, tmp_path):
    files["/a.tar"] = os.urandom(3 * 2**20)
    remote_download.WITHOUT_RANGES.add(files.url.partition("://")[2])
    files.cut["/a.tar"] = [2**20] * 9
    with pytest.raises(DataError, match=rf"{files.url}/a\.tar cannot be read, after 3 tries: .*goes on with --resume"):
        read(files)
    assert files.gets("/a.tar") == 3
    assert not list(tmp_path.glob("remote/*.file"))
    assert not list(tmp_path.glob("remote/.partial*"))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is gone"), (bytes(2**20), "has changed"), (bytes(4 * 2**20), "has changed")]
)
def test_a_file_that_changes_is_an_error(files, content, message):
    files["/a.tar"] = os.urandom(3 * 2**20)
    remote_download.WITHOUT_RANGES.add(files.url.partition("://")[2])
    (file,) = remote_files(f"{files.url}/a.tar", RemoteCache(1e9))
    if content is None:
        del files["/a.tar"]
    else:
        files["/a.tar"] = content
    with pytest.raises(DataError, match=rf"a\.tar {message}"):
        file.open()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_falls_silent_is_named(files, monkeypatch, ranges):
    monkeypatch.setattr(remote, "_SILENCE", 0.2)
    remote._file_system.cache_clear()
    try:
        files["/a.tar"], files.ranges = os.urandom(1000), ranges
        if not ranges:
            remote_download.WITHOUT_RANGES.add(files.url.partition("://")[2])
        (file,) = remote_files(f"{files.url}/a.tar", RemoteCache(1e9))
        files.silence = 1.0
        with pytest.raises(
            DataError, match=rf"{files.url}/a\.tar cannot be read, after 3 tries: .*[Tt]imeout.*--resume"
        ):
            file.open()
        files.silence = 0.0
        with file.open() as opened:
            assert opened.read() == files["/a.tar"]
    finally:
        remote._file_system.cache_clear()


@pytest.mark.parametrize("fault", ["gone", "server"])
def test_a_shard_that_vanishes_later_is_named(files, tmp_path, fault):
    files.ranges = True
    for number in range(3):
        files[f"/{number}.tar"] = member(b"0.png", png(number)) + bytes(1024)
    source = open_source(f"webdataset:{files.url}/{{0..2}}.tar", labels="none")
    shutil.rmtree(tmp_path / "remote")
    if fault == "gone":
        del files["/1.tar"]
        message = rf"{files.url}/1\.tar is gone: it was there when it was first opened; .*continue with --resume"
    else:
        files.failures["/1.tar"] = [503] * 20
        message = rf"{files.url}/1\.tar cannot be read, after 3 tries: .*503.*goes on with --resume"
    with pytest.raises(DataError, match=message):
        source.read([0, 1, 2])
    assert source.skipped == {}
