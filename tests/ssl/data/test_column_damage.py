"""Unpacked copies of parquet columns that are damaged: noticed when a cell is read, and made again from the parquet file."""

import errno
import io
import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source, shared_copy
from wildfern.ssl.data.checked_copy import DamagedCopy
from wildfern.ssl.data.column_copy import index_size
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.unpacked_rows import UnpackedRows

ROWS = 12
ORDER = np.random.default_rng(0).permutation(ROWS)


def bmp(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (value, value, value)).save(buffer, "BMP")
    return buffer.getvalue()


BMP = [bmp(value) for value in range(ROWS)]
SIZE = len(BMP[0])


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    parquet.write_table(pa.table({"image": BMP}), tmp_path / "train.parquet", row_group_size=3)
    return tmp_path / "train.parquet"


def unpacked(table: Path, disk: float = 2**30) -> UnpackedRows:
    """The rows, read from a copy."""
    rows = UnpackedRows([table], [ImageColumn("image")], 0, None, disk)
    rows.prepare(random_order=True)
    return rows


def read(rows: UnpackedRows) -> list[bytes]:
    return [bytes(rows[int(row)]) for row in ORDER]


EXPECTED = [BMP[row] for row in ORDER]


def overwrite(copy: Path, place: int, content: bytes) -> None:
    with open(copy, "r+b") as file:
        file.seek(place)
        file.write(content)


def cell(row: int) -> int:
    """Where it begins."""
    return index_size(ROWS) + SIZE * row


DAMAGES = {
    "a pixel": lambda copy: overwrite(copy, cell(5) + 600, b"\xff"),
    "cells of zeros": lambda copy: overwrite(copy, cell(7), bytes(2 * SIZE)),
    "an entry": lambda copy: overwrite(copy, index_size(3) - 8, b"\x05"),
    "an index of zeros": lambda copy: overwrite(copy, 0, bytes(index_size(6))),
    "a lost end": lambda copy: os.truncate(copy, cell(9)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("new_start", [False, True])
def test_images_are_right_after_a_damage(table, damage, new_start):
    source = open_source(f"parquet:{table}", memory_gb=0, value_range=(0, 255))
    source._probed = True  # nothing is kept decoded
    with warnings.catch_warnings(action="error", category=UserWarning):
        source.read(ORDER)
    path, size = source._rows._copy.path, source._rows._copy.size
    DAMAGES[damage](path)
    if new_start:
        source = open_source(f"parquet:{table}", memory_gb=0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        images = source.read(ORDER)
    assert (images.pixels == ORDER[:, None, None, None]).all()
    assert not source.skipped
    words = f"{path}, the copy of column image of {table}, is damaged: making it again"
    unusable = new_start and damage == "a lost end"  # seen when it is opened
    assert [str(message.message) for message in told if message.category is UserWarning] == (
        [] if unusable else [words]
    )
    assert (source._rows._copy.path, source._rows._copy.size, path.stat().st_size) == (path, size, size)
    with warnings.catch_warnings(action="error", category=UserWarning):  # the next start
        assert read(unpacked(table)) == EXPECTED


def test_a_copy_of_the_earlier_form_is_not_used(table, monkeypatch):
    rows = unpacked(table)
    new = rows._copy_name()
    monkeypatch.setattr("wildfern.ssl.data.unpacked_rows._FORM", 1)
    assert rows._copy_name() != new


def test_threads_make_it_again_once(table, monkeypatch):
    rows, written, write_copy = unpacked(table), [], shared_copy.write_copy
    monkeypatch.setattr(shared_copy, "write_copy", lambda *a: written.append(1) or write_copy(*a))
    overwrite(rows._copy.path, cell(0), bytes(SIZE * ROWS))
    with ThreadPoolExecutor(6) as pool, pytest.warns(UserWarning, match="is damaged") as told:
        assert [bytes(found) for found in pool.map(rows.__getitem__, range(ROWS))] == BMP
    assert (len(written), sum(message.category is UserWarning for message in told)) == (1, 1)


def test_processes_make_it_again_once(table, monkeypatch):
    """The second one finds the copy of the first."""
    first = unpacked(table)
    second = pickle.loads(pickle.dumps(first))
    second.prepare(random_order=False)
    overwrite(first._copy.path, cell(2) + 700, b"\xff")
    with pytest.warns(UserWarning, match="is damaged"):
        assert read(first) == EXPECTED
    monkeypatch.setattr(shared_copy, "write_copy", None)  # would be an error
    with pytest.warns(UserWarning, match="is damaged"):
        assert read(second) == EXPECTED
    assert second._copy.file_number == first._copy.file_number


def test_its_room_is_that_of_the_new_one(table):
    """Also where there is room for one only, and the damaged one is still open."""
    rows = unpacked(table)
    exact = rows._claimed + index_size(ROWS)
    assert rows._copy.size == SIZE * ROWS + index_size(ROWS) <= exact
    rows = unpacked(table, disk=exact)
    for damage in ("a pixel", "a lost end"):
        rows._renewed = False
        DAMAGES[damage](rows._copy.path)
        with pytest.warns(UserWarning, match="is damaged"):
            assert read(rows) == EXPECTED
        assert len(rows.notes) == 1


def test_a_disk_that_damages_again_is_named(table, monkeypatch):
    rows, write_copy = unpacked(table), shared_copy.write_copy
    path = rows._copy.path

    def write_damaged(*arguments):
        write_copy(*arguments)
        DAMAGES["a pixel"](path)

    monkeypatch.setattr(shared_copy, "write_copy", write_damaged)
    DAMAGES["a pixel"](path)
    words = (
        f"{path}, the copy of column image of {table}, is damaged, although it was made again: check the disk and the "
    )
    with pytest.warns(UserWarning, match="making it again"), pytest.raises(DamagedCopy) as caught:
        read(rows)
    assert str(caught.value).startswith(words)
    assert isinstance(caught.value, DataError)
    assert bytes(rows[4]) == BMP[4]


def test_without_room_for_another_the_parquet_file_is_read(table, monkeypatch):
    rows = unpacked(table)
    path = rows._copy.path
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    DAMAGES["cells of zeros"](path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert read(rows) == EXPECTED
    assert not path.exists()
    assert (rows._copy, len(rows.notes)) == (None, 2)
    assert "is slow to read in random order, as there is no unpacked copy: it takes" in rows.notes[1]


def test_a_changed_parquet_file_is_named(table):
    rows = unpacked(table)
    DAMAGES["a pixel"](rows._copy.path)
    os.utime(table, ns=(1, 1))
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(DataError, match=f"{table} has changed since it was opened"),
    ):
        read(rows)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the system has no pread")
def test_a_copy_that_cannot_be_read_is_left(table, monkeypatch):
    rows = unpacked(table)
    path = rows._copy.path

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    assert read(rows) == EXPECTED
    assert rows.notes[1:] == [f"{path}: Input/output error; the parquet files are read instead"]
