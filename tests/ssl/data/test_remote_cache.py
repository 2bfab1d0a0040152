"""Copies of remote files: complete, shared, and no more of them than the limit allows."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
from filelock import FileLock
from range_server import served_to

from wildfern.ssl.data import DataError, remote, remote_cache, remote_download
from wildfern.ssl.data.copy_folder import NoCopy
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import remote_files

SIZE = 1000
CLOCK = 0.02  # s; times of files are told apart by less
CONTENTS = {f"/{name}.tar": (bytes(range(256)) * 4 + name.encode())[-SIZE:] for name in "abc"}


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setattr(remote_download, "PIECE", 300)
    monkeypatch.setattr(remote_cache, "_RECENT", -1.0)  # the time of every use is noted
    with served_to(tmp_path) as files:
        files.update(CONTENTS)
        yield files


def noted(files, most):
    return remote_files(f"{files.url}/{{a,b,c}}.tar", RemoteCache(most))


def one(files, name="a", most=10 * SIZE, tail=0):
    return remote_files(f"{files.url}/{name}.tar", RemoteCache(most, tail))[0]


def read(file) -> bytes:
    with file.open() as opened:
        return opened.read()


def copies(tmp_path) -> list[int]:
    return [path.stat().st_size for path in tmp_path.glob("remote/*.file")]


def test_a_file_is_downloaded_once(files, tmp_path):
    file = one(files)
    assert read(file) == CONTENTS["/a.tar"]
    assert files.gets("/a.tar") == 4  # pieces of 300 bytes
    assert read(file) == read(one(files)) == CONTENTS["/a.tar"]
    assert files.gets("/a.tar") == 4
    assert copies(tmp_path) == [SIZE]
    assert not list(tmp_path.glob("remote/.partial*"))


def test_those_not_used_for_longest_make_room(files, tmp_path):
    a, b, c = noted(files, most=2.5 * SIZE)
    for file in (a, b, a, c):  # b was not used for longest
        time.sleep(CLOCK)
        assert read(file) == CONTENTS[f"/{file.path[-5:]}"]
    assert copies(tmp_path) == [SIZE, SIZE]
    before = files.gets("/a.tar")
    assert read(a) == CONTENTS["/a.tar"]
    assert files.gets("/a.tar") == before
    assert read(b) == CONTENTS["/b.tar"]
    assert files.gets("/b.tar") == 8


def test_files_in_use_stay_and_others_wait_for_them(files, tmp_path):
    a, b, _ = noted(files, most=1.5 * SIZE)
    opened, done = a.open(), Event()
    thread = Thread(target=lambda: (read(b), done.set()))
    thread.start()
    assert not done.wait(0.3)
    assert opened.read() == CONTENTS["/a.tar"]
    opened.close()
    thread.join(10)
    assert done.is_set()
    assert copies(tmp_path) == [SIZE]


def test_a_file_that_does_not_fit_says_so(files, monkeypatch):
    with pytest.raises(DataError, match=r"a\.tar cannot be downloaded: it takes .* GiB, and cache_gb allows"):
        read(one(files, most=SIZE - 1))
    a, b, _ = noted(files, most=1.5 * SIZE)
    monkeypatch.setattr(remote_cache, "_WAIT", 0.0)
    with a.open(), pytest.raises(DataError, match=r"b\.tar cannot be downloaded: .* in use, and cache_gb allows"):
        read(b)


def test_a_folder_that_cannot_be_used_says_so(files, tmp_path):
    (tmp_path / "remote").write_text("a file")
    with pytest.raises(DataError, match=rf"a\.tar cannot be downloaded: {tmp_path}/remote"):
        read(one(files))


@pytest.mark.parametrize("cache_gb", [0, -1.0, float("nan")])
def test_the_limit_must_be_one(cache_gb):
    with pytest.raises(DataError, match="cache_gb must be a number of GiB of more than 0"):
        RemoteCache.of_gibibytes(cache_gb)


def test_a_download_goes_on_where_it_failed(files):
    file = one(files)
    files.failures["/a.tar"] = [0, 0, 503, 503]
    assert read(file) == CONTENTS["/a.tar"]
    assert files.gets("/a.tar") == 6


def test_an_incomplete_download_leaves_nothing(files, tmp_path):
    file = one(files)
    files.failures["/a.tar"] = [0, 0, 503, 503, 503]
    with pytest.raises(DataError, match=r"a\.tar cannot be read, after 3 tries"):
        read(file)
    assert copies(tmp_path) == []
    assert not list(tmp_path.glob("remote/.partial*"))
    assert read(file) == CONTENTS["/a.tar"]


def test_what_an_ended_process_left_is_no_copy_and_is_deleted(files, tmp_path):
    file = one(files, most=2 * SIZE)
    (tmp_path / "remote").mkdir()
    left = tmp_path / "remote/.partial_01234567_x.file"
    left.write_bytes(bytes(2 * SIZE))
    file.cache._path(file).write_bytes(bytes(SIZE // 2))  # of another length
    assert read(file) == CONTENTS["/a.tar"]
    assert not left.exists()
    assert copies(tmp_path) == [SIZE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(SIZE), "has changed since it was opened: it was written to; a run needs the same data to the end"),
        (bytes(SIZE + 10), "has changed since it was opened: it had 1,000 bytes, and has 1,010; a run needs"),
        (bytes(10), "has changed since it was opened: it had 1,000 bytes, and has 10; a run needs"),
        (None, "is gone: it was there when it was first opened; a run needs the same data to the end"),
    ],
)
def test_a_file_that_changes_is_an_error(files, tmp_path, content, message):
    file, other = one(files), one(files)
    if content is None:
        del files["/a.tar"]
    else:
        files["/a.tar"] = content
    with pytest.raises(DataError, match=message):
        read(file)
    assert copies(tmp_path) == []
    files["/a.tar"] = CONTENTS["/a.tar"]
    assert read(other) == CONTENTS["/a.tar"]
    files["/a.tar"] = bytes(SIZE)
    assert read(other) == CONTENTS["/a.tar"]  # the copy is of the file that was noted
    assert read(one(files)) == bytes(SIZE)  # and a new look sees the new one


def test_threads_that_need_one_file_share_one_download(files):
    file = one(files)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: read(file), range(16))) == {CONTENTS["/a.tar"]}
    assert files.gets("/a.tar") == 4


def test_downloads_at_once_keep_to_the_limit(files, tmp_path):
    """Seen by the sizes of complete and incomplete files after each piece."""
    noted_files, most, seen = noted(files, most=2 * SIZE), 2 * SIZE, []
    original = remote.Store.piece

    def piece(*arguments):
        content = original(*arguments)
        sizes = (path.stat().st_size for path in (tmp_path / "remote").iterdir() if path.name.endswith(".file"))
        seen.append(sum(sizes))
        return content

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(remote.Store, "piece", piece)
        assert list(pool.map(read, noted_files)) == list(CONTENTS.values())
    assert max(seen) <= most


def test_while_another_process_downloads_it_is_waited_for_or_not(files, tmp_path):
    file = one(files)
    path = file.cache._path(file)
    path.parent.mkdir()
    with FileLock(path.parent / f"{path.name[:3]}.lock"):
        with pytest.raises(NoCopy, match="waiting for another process that downloads"):
            file.cache.download(file, wait=False)
        thread = Thread(target=read, args=(file,))
        thread.start()
        path.write_bytes(CONTENTS["/a.tar"])  # by that process
    thread.join(10)
    assert not thread.is_alive()
    assert files.gets("/a.tar") == 0


def test_the_end_is_read_without_the_rest(files, tmp_path):
    file = one(files, tail=100)
    with file.open() as opened:
        assert opened.seek(-8, os.SEEK_END) == SIZE - 8
        assert opened.read(8) == CONTENTS["/a.tar"][-8:]
        opened.seek(SIZE - 100)
        assert (opened.read(60), opened.tell()) == (CONTENTS["/a.tar"][-100:-40], SIZE - 40)
        assert opened.read() == CONTENTS["/a.tar"][-40:]
        assert files.gets("/a.tar") == 1
        assert copies(tmp_path) == []
        opened.seek(SIZE - 101)
        assert opened.read() == CONTENTS["/a.tar"][-101:]
        assert copies(tmp_path) == [SIZE]
        opened.seek(0)
        assert opened.read() == CONTENTS["/a.tar"]
    assert files.gets("/a.tar") == 5
    assert read(one(files, "b", tail=126)) == CONTENTS["/b.tar"]  # more than an eighth of the file
