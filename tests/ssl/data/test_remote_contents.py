"""Files of which a web server tells neither ETag nor time: downloaded in each run, and told apart by their contents."""

import time
import warnings
from pathlib import Path

import pytest
from range_server import served_to

from wildfern.ssl.data import DataError, remote_cache
from wildfern.ssl.data.fingerprint import fingerprint
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import listed_remote, remote_files

OLD, NEW = b"a" * 1000, b"a" * 500 + b"b" + b"a" * 499  # of one size, with the same start and end


@pytest.fixture
def files(tmp_path):
    with served_to(tmp_path) as files:
        files.update({"/a.tar": OLD, "/b.tar": OLD})
        files.tells = False
        yield files


@pytest.fixture
def new_run(monkeypatch):
    """What was downloaded until now was so by earlier processes."""

    def begin() -> None:
        monkeypatch.setattr(remote_cache, "_began", time.time())

    begin()
    return begin


def noted(files, most=1e6, tail=0):
    with warnings.catch_warnings(action="ignore"):
        return remote_files(f"{files.url}/{{a,b}}.tar", RemoteCache(most, tail))


def contents(noted_files) -> list[bytes]:
    found = []
    for file in noted_files:
        with file.open() as opened:
            found.append(opened.read())
    return found


@pytest.mark.parametrize("tail", [0, 100])
def test_a_change_of_the_same_size_is_seen_by_the_next_run(files, new_run, tail):
    before = noted(files, tail=tail)
    assert contents(before) == [OLD, OLD]
    files["/b.tar"] = NEW
    new_run()
    after = noted(files, tail=tail)
    assert contents(after) == [OLD, NEW]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert contents(before) == [OLD, OLD]  # a run goes on with the copies that it has
    assert [fingerprint(listed_remote(found), contents=True) for found in (before, after)] == [
        fingerprint(listed_remote(found), contents=True) for found in (before, noted(files))
    ]
    assert fingerprint(listed_remote(before), contents=True) != fingerprint(listed_remote(after), contents=True)


def test_each_run_downloads_once(files, new_run):
    """However often the files are noted and read: by sources, splits, and the processes of a host."""
    for run in (1, 2):
        for _ in range(3):
            contents(noted(files))
        assert (files.gets("/a.tar"), files.gets("/b.tar")) == (run, run)
        new_run()


def test_a_message_says_so_once(files, new_run):
    with pytest.warns(
        UserWarning, match=r"neither ETag nor time of change of 2 of 2 files; .* 2 were downloaded"
    ) as told:
        remote_files(f"{files.url}/{{a,b}}.tar", RemoteCache(1e6))
    assert len(told) == 1
    with warnings.catch_warnings(action="error"):
        remote_files(f"{files.url}/{{a,b}}.tar", RemoteCache(1e6))
        files.tells = True
        remote_files(f"{files.url}/{{a,b}}.tar", RemoteCache(1e6))


def test_a_change_during_a_run_is_seen_by_another_download(files, new_run, tmp_path):
    found = noted(files, most=1500)  # one fits
    assert contents(found) == [OLD, OLD]
    files["/a.tar"] = NEW
    with pytest.raises(DataError, match=r"a\.tar has changed since it was opened: it was written to"):
        contents(found)
    assert not list(tmp_path.glob("remote/.partial*"))


def test_an_unfinished_download_is_none(files, new_run):
    files.failures["/a.tar"] = [0, 503, 503, 503]  # HEAD, then GET
    with pytest.raises(DataError, match=r"a\.tar cannot be read, after 3 tries"):
        noted(files)
    assert contents(noted(files)) == [OLD, OLD]


@pytest.mark.parametrize("damage", [b"", b"0" * 65, b"cut", "flip", "longer", "link"])
def test_a_damaged_digest_of_contents_is_written_again(files, new_run, tmp_path, damage):
    found = noted(files)
    expected = fingerprint(listed_remote(found), contents=True)
    path = Path(next(listed_remote(found)).path)
    content = path.read_bytes()
    if damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        forms = {"flip": content[:9] + bytes([content[9] ^ 1]) + content[10:], "longer": content + b"\n"}
        path.write_bytes(forms.get(damage, damage))
    assert fingerprint(listed_remote(found), contents=True) == expected
    assert path.read_bytes() == content
    written = path.stat().st_mtime_ns, path.stat().st_ino
    assert fingerprint(listed_remote(found), contents=True) == expected
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written  # a right one stays
