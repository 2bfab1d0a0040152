"""Room for unpacked copies: which are deleted for one more."""

import os
import shutil
from types import SimpleNamespace

import pytest

from wildfern.ssl.data import copy_folder
from wildfern.ssl.data.column_copy import ENCODED, Cell, open_copy, write_copy
from wildfern.ssl.data.copy_folder import SPARE, NoCopy, make_room, mark_in_use


@pytest.fixture
def folder(tmp_path):
    """Copies a, b and c of 100 bytes each, used in this order, and a file that is none."""
    for second, name in enumerate("abc"):
        (tmp_path / f"{name}.column").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.column", (second, second))
    (tmp_path / "other").write_bytes(bytes(1000))
    return tmp_path


def left(folder) -> str:
    return "".join(sorted(path.stem for path in folder.glob("*.column")))


@pytest.mark.parametrize(("most", "stay"), [(400, "abc"), (399, "bc"), (300, "bc"), (299, "c"), (199, ""), (100, "")])
def test_those_not_used_for_longest_are_deleted(folder, most, stay):
    assert make_room(folder, 100, most) == most - 100 * len(stay)
    assert left(folder) == stay
    assert (folder / "other").exists()


def test_those_in_use_stay(folder):
    with open(folder / "a.column", "rb") as file:
        mark_in_use(file)
        assert make_room(folder, 100, 200) == 100
        assert left(folder) == "a"
        with pytest.raises(NoCopy, match=r"beside .* GiB in use, and disk_gb allows 1.7e-07 GiB"):
            make_room(folder, 100, 182)
    assert make_room(folder, 100, 182) == 182
    assert left(folder) == ""


def test_what_an_ended_process_left_goes_first(folder):
    (folder / ".partial_01234567_d.column").write_bytes(bytes(100))
    make_room(folder, 100, 450)
    assert left(folder) == "abc"
    assert list(folder.glob(".partial*")) == []


def test_nothing_is_deleted_in_vain(folder, monkeypatch):
    with pytest.raises(NoCopy, match="and disk_gb allows"):
        make_room(folder, 500, 400)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SPARE + 50))
    with pytest.raises(NoCopy, match=f"{folder} has room for"):
        make_room(folder, 351, 1000)
    assert left(folder) == "abc"


def test_copies_make_room_on_the_disk(folder, monkeypatch):
    sizes = {path: 100 for path in folder.glob("*.column")}

    def usage(_):
        return SimpleNamespace(free=SPARE + 350 - sum(size for path, size in sizes.items() if path.exists()))

    monkeypatch.setattr(copy_folder.shutil, "disk_usage", usage)
    assert make_room(folder, 200, 10_000) == 250
    assert left(folder) == "c"


def test_links_are_not_followed(folder):
    (folder / "d.column").symlink_to(folder / "other")
    os.utime(folder / "d.column", (0, 0), follow_symlinks=False)
    with pytest.raises(NoCopy):
        make_room(folder, 100, 100)
    assert (folder / "other").exists()


def test_a_copy_in_use_outlasts_another_that_is_written(tmp_path):
    """As seen by a second process: locks belong to open files."""
    path = tmp_path / "a.column"
    write_copy(path, [[Cell(ENCODED, b"abc")]], 1, 23, 100)
    copy = open_copy(path, 1)
    with pytest.raises(NoCopy):
        make_room(tmp_path, 90, 100)
    assert copy[0] == (ENCODED, b"abc")
    del copy
    assert make_room(tmp_path, 90, 100) == 100
