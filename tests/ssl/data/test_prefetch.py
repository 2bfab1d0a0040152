"""Downloads in background threads before files are read."""

import pickle
import time

import pytest
from range_server import served

from wildfern.ssl.data import DataError, prefetch, remote, remote_cache
from wildfern.ssl.data.prefetch import Prefetch
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import remote_files

SIZE = 1000
CLOCK = 0.02  # s; times of files are told apart by less


@pytest.fixture
def files(monkeypatch, tmp_path):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path))
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    monkeypatch.setattr(remote_cache, "_RECENT", -1.0)  # the time of every use is noted
    with served() as files:
        files.update({f"/{number}.tar": bytes([number]) * SIZE for number in range(6)})
        yield files


def noted(files, most):
    cache = RemoteCache(most * SIZE)
    return Prefetch(cache), remote_files(f"{files.url}/{{0..5}}.tar", cache)


def held(all_files) -> list[int]:
    return [number for number, file in enumerate(all_files) if file.cache.holds(file)]


def test_what_is_wanted_is_read_without_a_request(files):
    ahead, all_files = noted(files, 10)
    assert ahead.want(all_files[1:5])
    ahead.wait()
    assert held(all_files) == [1, 2, 3, 4]
    before = len(files.requests)
    for number in range(1, 5):
        with all_files[number].open() as opened:
            assert opened.read() == bytes([number]) * SIZE
    assert ahead.want(all_files[1:5])
    ahead.wait()
    assert len(files.requests) == before


def test_no_more_than_fit_and_the_first_ones_first(files, monkeypatch):
    monkeypatch.setattr(prefetch, "THREADS", 1)
    ahead, all_files = noted(files, 3.5)
    assert not ahead.want([all_files[number] for number in (5, 0, 3, 1, 2)])
    ahead.wait()
    assert held(all_files) == [0, 3, 5]
    assert [path for method, path in files.requests if method == "GET"] == ["/5.tar", "/0.tar", "/3.tar"]


def test_files_that_are_needed_next_outlast_those_read_before(files):
    """0 and 1 are read while 2 and 3 are fetched; then 2 and 3 are read while 4 and 5 take the places of 0 and 1."""
    ahead, all_files = noted(files, 4)
    ahead.want(all_files[:4])
    ahead.wait()
    time.sleep(CLOCK)
    for file in all_files[:2]:
        file.open().close()
    time.sleep(CLOCK)
    ahead.want(all_files[2:])
    ahead.wait()
    assert held(all_files) == [2, 3, 4, 5]
    assert [files.gets(f"/{number}.tar") for number in range(6)] == [1] * 6


def test_errors_are_left_to_the_reader(files):
    ahead, all_files = noted(files, 10)
    del files["/1.tar"]
    ahead.want(all_files)
    ahead.wait()
    assert held(all_files) == [0, 2, 3, 4, 5]
    with pytest.raises(DataError, match="is gone"):
        all_files[1].open()


def test_a_pickled_copy_starts_anew(files):
    ahead, all_files = noted(files, 10)
    ahead.want(all_files[:1])
    copy, copied_files = pickle.loads(pickle.dumps((ahead, all_files)))
    assert copied_files == all_files
    copy.want(copied_files)
    copy.wait()
    ahead.wait()
    assert held(all_files) == [0, 1, 2, 3, 4, 5]
