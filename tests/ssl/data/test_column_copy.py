"""The file of an unpacked column."""

import os
import struct
import zlib

import numpy as np
import pytest

from wildfern.ssl.data.column_copy import (
    ENCODED,
    NAME,
    NOT_COPIED,
    NULL,
    Cell,
    DamagedCell,
    TooLong,
    open_copy,
    write_copy,
)

GROUPS = [
    [Cell(ENCODED, b"abc"), Cell(NULL)],
    [],
    [Cell(NAME, memoryview(b"x.png")), Cell(NOT_COPIED), Cell(ENCODED, b"")],
]
CELLS = [cell for group in GROUPS for cell in group]


@pytest.fixture
def path(tmp_path):
    write_copy(tmp_path / "a.column", GROUPS, 5, 1000, 1000)
    return tmp_path / "a.column"


def test_the_bytes_of_the_file(path):
    content = path.read_bytes()
    before, cells = 0, [b"abc", b"", b"x.png", b"", b""]
    for row, (entry, cell) in enumerate(zip([3 * 4 + 1, 3 * 4, 8 * 4 + 2, 8 * 4 + 3, 8 * 4 + 1], cells, strict=True)):
        checksum = zlib.crc32(struct.pack("<qqq", row, before, entry) + cell)
        assert struct.unpack_from("<qIq", content, 12 * row) == (before, checksum, entry)
        before = entry
    assert content[68:] == b"abcx.png"


@pytest.mark.parametrize("positioned", [True, False])
def test_cells_are_read_in_any_order(path, positioned, monkeypatch):
    if not positioned:  # Windows
        monkeypatch.delattr(os, "pread")
    copy = open_copy(path, 5)
    assert copy.size == 76
    for row in (3, 0, 4, 2, 1):
        assert copy[row] == CELLS[row]


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the system has no pread")
def test_cells_that_the_system_reads_in_parts(path, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, place: pread(file, min(count, 3), place))
    copy = open_copy(path, 5)
    assert [copy[row] for row in range(5)] == CELLS
    os.truncate(path, 75)
    with pytest.raises(DamagedCell, match="ends within the 5 bytes at byte 71"):
        copy[2]


@pytest.mark.parametrize("rows", [4, 6, 100])
def test_a_file_of_other_rows_is_none(path, rows):
    assert open_copy(path, rows) is None


def test_a_missing_file_a_link_and_a_folder_are_none(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert [open_copy(tmp_path / name, 5) for name in ("gone", "link", ".")] == [None] * 3


@pytest.mark.parametrize("entry", [-1, -4, 2**62, 9 * 4])
def test_entries_outside_of_the_file_are_an_error(path, entry):
    copy = open_copy(path, 5)
    with open(path, "r+b") as file:
        file.seek(24)
        file.write(np.array([entry], "<i8").tobytes())
    with pytest.raises(DamagedCell, match="row 1 is damaged"):
        copy[1]
    assert copy[4] == CELLS[4]


def test_each_changed_bit_is_noticed(path):
    """In the cells, and in all of the index: no row is another one than was written."""
    copy, content = open_copy(path, 5), path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        noticed = 0
        for row in range(5):
            try:
                assert copy[row] == CELLS[row]
            except DamagedCell:
                noticed += 1
        assert noticed, bit


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 68), (8, 20), (8, 68), (20, 32), (44, 68), (68, 71), (68, 76), (71, 76)]
)
def test_zeros_are_noticed(path, start, stop):
    copy = open_copy(path, 5)
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(bytes(stop - start))
    with pytest.raises(DamagedCell):
        assert [copy[row] for row in range(5)] == CELLS


def test_a_file_that_would_be_too_long_is_not_written(tmp_path):
    with pytest.raises(TooLong):
        write_copy(tmp_path / "a.column", GROUPS, 5, 1000, 75)
    assert list(tmp_path.iterdir()) == []
    write_copy(tmp_path / "a.column", GROUPS, 5, 0, 76)
    assert open_copy(tmp_path / "a.column", 5)[2] == CELLS[2]


def test_an_error_of_the_cells_leaves_the_former_file(path):
    def failing():
        yield [Cell(ENCODED, b"new")]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_copy(path, failing(), 5, 0, 1000)
    assert open_copy(path, 5)[0] == CELLS[0]
    assert [file.name for file in path.parent.iterdir()] == ["a.column"]
