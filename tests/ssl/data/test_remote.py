"""Addresses of files in object stores and on web servers: what is there, what is refused, and failures."""

import sys

import pytest
from range_server import served

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data import remote as remote_module
from wildfern.ssl.data.remote import Denied, Missing, Store, check_address, is_remote, masked


@pytest.fixture
def files(monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote_module, "PAUSE", 0.001)
    with served() as files:
        yield files


def test_addresses_are_told_from_paths(tmp_path, monkeypatch):
    assert all(map(is_remote, ("s3://b/x.tar", "gs://b/{0..9}.tar", "https://h/x", "HTTP://h/x")))
    assert not any(map(is_remote, ("/data/x.tar", "s3:/b/x.tar", "hdfs://h/x", "C:/x", "x")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:/b").mkdir(parents=True)
    (tmp_path / "s3:/b/x.tar").touch()
    assert not is_remote("s3://b/x.tar")  # a file of this name


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hunter2@host/x.tar",
        "s3://me:hunter2@bucket/x-{0..9}.tar",
        "https://hunter2@host/x.parquet",
        "s3://AK:hun/hunter2@bucket/x.tar",
    ],
)
@pytest.mark.parametrize("scheme", ["webdataset", "parquet", "folder"])
def test_passwords_are_refused_and_not_repeated(scheme, address):
    for split in ("train", "test"):
        with pytest.raises(DataError, match="leave out what is before @") as caught:
            open_source(f"{scheme}:{address}", split)
        assert "hunter2" not in str(caught.value)


def test_signatures_are_refused_and_not_repeated():
    with pytest.raises(DataError, match=r"https://host/x.tar\?…: an address with \?") as caught:
        check_address("https://host/x.tar?X-Amz-Signature=hunter2")
    assert "hunter2" not in str(caught.value)
    for address in ("s3://bucket/shard-?.tar", "s3://bucket/a@b.tar", "http://host:80/a@b.tar"):
        check_address(address)
    assert masked("GET https://a:b@h/x?sig=c failed, then ftp://d@h") == "GET https://…@h/x?… failed, then ftp://…@h"


@pytest.mark.parametrize("address", ["s3://bucket/images", "gs://bucket/images", "https://host/images"])
def test_folders_stay_local_and_say_what_is_read(address):
    with pytest.raises(DataError, match="webdataset:ADDRESS, parquet:ADDRESS"):
        open_source(f"folder:{address}")


@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_without_the_packages_the_message_says_how_to_install_them(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DataError, match=r'pip install "wildfern\[remote\]"'):
        open_source("webdataset:s3://bucket/x.tar")


def test_facts_change_with_the_content(files):
    files["/x.tar"] = b"abc"
    store = Store(files.url)
    before = store.facts(f"{files.url}/x.tar")
    assert before[0] == 3
    assert store.facts(f"{files.url}/x.tar") == before
    files["/x.tar"] = b"xyz"
    assert store.facts(f"{files.url}/x.tar") != before
    assert 0 <= before[1] < 2**60


def test_pieces_are_those_of_the_content(files):
    files["/x.tar"] = bytes(range(200))
    store, address = Store(files.url), f"{files.url}/x.tar"
    for start, stop in ((0, 200), (0, 1), (50, 120), (199, 200)):
        assert store.piece(address, start, stop) == bytes(range(start, stop))
    with pytest.raises(DataError, match=r"x\.tar: 10 bytes came instead of the 20 at byte 190"):
        store.piece(address, 190, 210)


def test_a_server_without_ranges_is_named(files):
    files["/x.tar"], files.ranges = bytes(200), False
    with pytest.raises(DataError, match=r"x\.tar cannot be read, after 3 tries: .*range requests"):
        Store(files.url).piece(f"{files.url}/x.tar", 100, 150)


def test_failures_that_pass_are_tried_again(files):
    files["/x.tar"] = b"abc"
    files.failures["/x.tar"] = [503, 500]
    assert Store(files.url).piece(f"{files.url}/x.tar", 0, 3) == b"abc"
    assert files.gets("/x.tar") == 3


def test_failures_that_stay_name_the_file_and_the_answer(files):
    files["/x.tar"] = b"abc"
    files.failures["/x.tar"] = [503] * 10
    with pytest.raises(DataError, match=rf"{files.url}/x\.tar cannot be read, after 3 tries: .*503"):
        Store(files.url).piece(f"{files.url}/x.tar", 0, 3)
    assert files.gets("/x.tar") == 3
    with pytest.raises(DataError, match=r"x\.tar cannot be read, after 3 tries: .*503"):
        Store(files.url).facts(f"{files.url}/x.tar")


def test_what_is_missing_or_denied_is_not_tried_again(files):
    store, address = Store(files.url), f"{files.url}/x.tar"
    with pytest.raises(Missing):
        store.piece(address, 0, 3)
    assert files.gets("/x.tar") == 1
    files["/x.tar"] = b"abc"
    files.failures["/x.tar"] = [403]
    with pytest.raises(Denied, match=r"x\.tar: access is denied: .*403"):
        store.piece(address, 0, 3)
    assert files.gets("/x.tar") == 2


def test_a_server_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote_module, "PAUSE", 0.001)
    with served() as files:
        url = files.url
    with pytest.raises(DataError, match=rf"{url}/x\.tar cannot be read, after 3 tries: Client"):
        open_source(f"webdataset:{url}/x.tar")
