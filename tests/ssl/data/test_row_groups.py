"""Row groups that several threads read."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from wildfern.ssl.data import UnreadableImage
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.row_groups import RowGroups

WAIT = 30.0  # s, for threads that come together


@pytest.fixture
def rows(tmp_path) -> RowGroups:
    """Three row groups of two rows: 0, 1 | 2, 3 | 4, 5."""
    table = pa.table({"image": [bytes([row]) * 100 for row in range(6)]})
    parquet.write_table(table, tmp_path / "train.parquet", row_group_size=2, use_dictionary=False)
    return RowGroups([tmp_path / "train.parquet"], [ImageColumn("image")], 0)


def test_two_row_groups_are_decoded_at_the_same_time(rows, monkeypatch):
    together, read = threading.Barrier(2, timeout=WAIT), rows._read
    monkeypatch.setattr(rows, "_read", lambda *a: together.wait() >= 0 and read(*a))
    with ThreadPoolExecutor(2) as pool:
        assert [bytes(cell)[:1] for cell in pool.map(rows.__getitem__, (0, 5))] == [b"\0", b"\5"]


@pytest.mark.parametrize("damaged", [False, True])
def test_threads_that_need_one_row_group_decode_it_once(rows, monkeypatch, damaged):
    decoded, started, others_wait, decode = [], threading.Event(), threading.Event(), rows._decode

    def slow(group):
        decoded.append(group)
        started.set()
        assert others_wait.wait(WAIT)
        if damaged:
            raise UnreadableImage("row group 1 is damaged")
        return decode(group)

    monkeypatch.setattr(rows, "_decode", slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(rows.__getitem__, 2)
        assert started.wait(WAIT)
        shared, arrived = rows._decoding[1], threading.Semaphore(0)
        result = shared.result
        monkeypatch.setattr(shared, "result", lambda: arrived.release() or result(WAIT))
        waiting = [pool.submit(rows.__getitem__, row) for row in (3, 2, 3)]
        assert all(arrived.acquire(timeout=WAIT) for _ in waiting)
        others_wait.set()
        found = [future.exception(WAIT) or bytes(future.result())[0] for future in (first, *waiting)]
    if damaged:
        assert [str(error) for error in found] == ["row group 1 is damaged"] * 4
    else:
        assert found == [2, 3, 2, 3]
        assert decoded == [1]
    assert rows._decoding == {}


def test_row_groups_that_do_not_fit_into_memory_together_are_decoded_in_turn(rows, monkeypatch):
    rows._least = 2 * rows._sizes[0] - 1
    assert rows._sizes == [rows._sizes[0]] * 3
    inside, most, lock, read = [], [], threading.Lock(), rows._read

    def counting(*arguments):
        with lock:
            inside.append(1)
            most.append(len(inside))
        try:
            return read(*arguments)
        finally:
            with lock:
                inside.pop()

    monkeypatch.setattr(rows, "_read", counting)
    with ThreadPoolExecutor(3) as pool:
        order = [0, 2, 4] * 20
        assert [bytes(cell)[0] for cell in pool.map(rows.__getitem__, order)] == order
    assert max(most) == 1
    rows._least = rows._sizes[0] - 1
    assert bytes(rows[0])[:1] == b"\0"


def test_rows_are_located_in_files_of_any_number_of_rows(tmp_path):
    paths, places = [], []
    for number, count in enumerate((0, 3, 0, 0, 2, 5, 0)):
        paths.append(tmp_path / f"{number}.parquet")
        parquet.write_table(pa.table({"image": pa.array([b"x"] * count, pa.binary())}), paths[-1], row_group_size=2)
        places += [(paths[-1], row) for row in range(count)]
    rows = RowGroups(paths, [ImageColumn("image")] * len(paths), 0)
    assert [rows.locate(row) for row in range(len(rows))] == places
