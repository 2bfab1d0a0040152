"""Indexes: what is written is mapped again, damaged files are made again, and one process builds for all."""

import mmap
import multiprocessing
import os
import struct
import threading
import time

import numpy as np
import pytest

from wildfern.ssl.data import index_file
from wildfern.ssl.data.index_file import lasting_index, map_index, write_index

ARRAYS = {
    "numbers": np.arange(7, dtype=np.int64) ** 5,
    "text": np.frombuffer(b"sea/a.jpg", np.uint8),
    "table": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1],
    "big": np.arange(3, dtype=">u2"),
    "flags": np.array([True, False]),
    "one": np.array(2.5),
    "none": np.zeros((0, 3), np.int32),
}


def always(arrays) -> bool:
    return True


def memory_of(array: np.ndarray) -> object:
    """What holds the numbers of an array."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_arrays_are_mapped_as_they_were_written(tmp_path):
    write_index(tmp_path / "a.index", ARRAYS)
    found = map_index(tmp_path / "a.index")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found[name], array)
        if array.size:
            assert isinstance(memory_of(found[name]), mmap.mmap)
            assert found[name].ctypes.data % 64 == 0
            assert not found[name].flags.writeable
    maps = {id(memory_of(found[name])) for name in ("numbers", "text", "table")}
    assert len(maps) == 1


def test_mapped_arrays_stay_when_the_file_is_replaced(tmp_path):
    write_index(tmp_path / "a.index", {"a": np.arange(5)})
    found = map_index(tmp_path / "a.index")
    write_index(tmp_path / "a.index", {"a": np.zeros(2)})
    assert found["a"].tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["a.index"]


def test_only_numbers_are_written(tmp_path):
    for wrong in (np.array([None]), np.array(["a"]), np.zeros(2, [("a", "i4")])):
        with pytest.raises(ValueError, match="array names of an index must be of numbers"):
            write_index(tmp_path / "a.index", {"names": wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_file_is_none(tmp_path):
    path = tmp_path / "a.index"
    write_index(path, ARRAYS)
    good = path.read_bytes()
    assert map_index(tmp_path / "gone.index") is None
    header = index_file._START.size
    for place in range(header + 40):  # any bit of the start and of the beginning of the header
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert map_index(path) is None, place
    for place in range(len(good) - 200, len(good), 7):  # of the arrays
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        assert map_index(path) is None, place
    for length in (0, 10, header, header + 20, len(good) - 1):
        path.write_bytes(good[:length])
        assert map_index(path) is None
    for other in (good + b"\0", b"\x80\x04K\x01.", os.urandom(500)):
        path.write_bytes(other)
        assert map_index(path) is None
    path.unlink()
    (tmp_path / "good.index").write_bytes(good)
    path.symlink_to(tmp_path / "good.index")
    assert map_index(path) is None


@pytest.mark.parametrize(
    "entries",
    [
        '[["a", "<i8", [1000000], 0]]',
        '[["a", "<i8", [4611686018427387904, 4], 0]]',
        '[["a", "<i8", [-1], 0]]',
        '[["a", "<i8", [1], -64]]',
        '[["a", "<i8", [1], 8]]',
        '[["a", "|O", [1], 0]]',
        '[["a", "<i8", [1.5], 0]]',
        '[["a", "<i8", "11", 0]]',
        '[["a", "<i8", [1]]]',
        '[[["a"], "<i8", [1], 0]]',
        '{"a": 1}',
        "7",
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path, entries):
    header = entries.encode()
    first = -(-(index_file._START.size + len(header)) // 64) * 64
    body = bytes(first + 64 - index_file._START.size - len(header))
    sums = [index_file.zlib.crc32(part) for part in (header, body)]
    start = struct.pack("<16sQQLL", index_file._MAGIC, first + 64, len(header), *sums)
    (tmp_path / "a.index").write_bytes((start + header).ljust(first + 64, b"\0"))
    assert map_index(tmp_path / "a.index") is None


def test_an_index_is_built_once_and_again_when_it_is_not_current(tmp_path):
    built = []

    def index(version: int) -> int:
        def build():
            built.append(version)
            return {"version": np.array([version])}

        current = lambda arrays: arrays["version"][0] == version  # noqa: E731
        return int(lasting_index("a", current, build, always, tmp_path / "new/indexes")["version"][0])

    assert [index(1), index(1), index(2), index(2), index(1)] == [1, 1, 2, 2, 1]
    assert built == [1, 2, 1]


def test_what_is_not_worth_keeping_is_not_written(tmp_path):
    arrays = {"a": np.arange(3)}
    for _ in range(2):
        assert lasting_index("a", always, lambda: arrays, lambda arrays: False, tmp_path) is arrays
    assert list(tmp_path.glob("*.index")) == []
    assert lasting_index("a", always, lambda: arrays, always, None) is arrays


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    arrays = {"a": np.arange(3)}
    (tmp_path / "file").touch()
    assert lasting_index("a", always, lambda: arrays, always, tmp_path / "file/indexes") is arrays

    def full(path, arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_file, "write_index", full)
    assert lasting_index("a", always, lambda: arrays, always, tmp_path) is arrays
    assert list(tmp_path.glob("*.index")) == []


def test_errors_of_the_build_are_raised_and_the_lock_is_released(tmp_path):
    def build():
        raise ValueError("no images")

    for _ in range(2):
        with pytest.raises(ValueError, match="no images"):
            lasting_index("a", always, build, always, tmp_path)


def test_a_process_that_waits_too_long_builds_for_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(index_file, "WAIT", 0.1)
    started, ended = threading.Event(), threading.Event()

    def slow():
        started.set()
        ended.wait(20)
        return {"a": np.array([1])}

    thread = threading.Thread(target=lasting_index, args=("a", always, slow, always, tmp_path))
    thread.start()
    started.wait(20)
    own = {"a": np.array([2])}
    assert lasting_index("a", always, lambda: own, always, tmp_path) is own
    ended.set()
    thread.join()
    assert map_index(tmp_path / "a.index")["a"].tolist() == [1]


def _build_in_a_process(folder, ready, results) -> None:
    def build():
        time.sleep(0.3)
        return {"process": np.array([os.getpid()])}

    ready.wait()
    results.put(int(lasting_index("a", always, build, always, folder)["process"][0]))


def test_of_two_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_build_in_a_process, args=(tmp_path, ready, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert found < {process.pid for process in processes}
