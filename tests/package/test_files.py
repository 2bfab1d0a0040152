"""Files are replaced as a whole, and links, FIFOs and devices are refused."""

import errno
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wildfern import files
from wildfern.files import (
    UnsafeFile,
    check_folder,
    is_regular,
    open_appending,
    open_reading,
    read_bytes,
    read_lines,
    remove_partial_files,
    replacing,
    set_aside,
    updating,
    write_text,
)


def link(path, victim):
    path.symlink_to(victim)


def dangling(path, victim):
    path.symlink_to(path.parent / "nowhere")


def fifo(path, victim):
    os.mkfifo(path)


def device(path, victim):
    path.symlink_to("/dev/zero")


def bound(path, victim):
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def folder(path, victim):
    path.mkdir()


PLANTED = [link, dangling, fifo, device, bound, folder]


@pytest.fixture
def victim(tmp_path):
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("use", [open_reading, open_appending, lambda path: read_bytes(path, 10)])
def test_only_regular_files_are_opened(tmp_path, victim, plant, use):
    path = tmp_path / "planted"
    plant(path, victim)
    with pytest.raises(UnsafeFile) as caught:
        use(path)
    assert caught.value.filename == str(path)
    assert victim.read_text() == "precious"
    assert not is_regular(path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("plant", [fifo, bound, folder])
def test_what_is_neither_a_file_nor_a_link_is_not_replaced(tmp_path, plant):
    path = tmp_path / "planted"
    plant(path, None)
    with pytest.raises(UnsafeFile, match="not a regular file"):
        write_text(path, "new")
    assert os.listdir(tmp_path) == ["planted"]
    assert not is_regular(path)


@pytest.mark.parametrize("plant", [link, dangling, device])
def test_a_link_is_replaced_and_not_followed(tmp_path, victim, plant):
    path = tmp_path / "planted"
    plant(path, victim)
    write_text(path, "new")
    assert is_regular(path)
    assert path.read_text() == "new"
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_an_error_leaves_the_file_as_it_was_and_names_it(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")

    def fill_the_disk():
        with replacing(path) as beside:
            beside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fill_the_disk()
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"]


def test_files_of_a_killed_process_are_removed_and_no_others(tmp_path):
    (tmp_path / ".partial_0123abcd_views.png").write_text("half")
    (tmp_path / ".partial_0123abcd_folder").mkdir()
    (tmp_path / "kept").write_text("whole")
    (tmp_path / ".partial_89abcdef_link").symlink_to(tmp_path / "kept")
    remove_partial_files(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".partial_0123abcd_folder", "kept"]


@pytest.mark.parametrize("name", ["a[1].index", "x" * 60 + ".index"])
def test_only_those_of_one_file_are_removed(tmp_path, name):
    with replacing(tmp_path / name, sync=False) as beside:
        beside.write_text("half")
        os.link(beside, tmp_path / "left")
    os.rename(tmp_path / "left", beside)  # as if the process was killed
    (tmp_path / ".partial_0123abcd_a1.index").write_text("half")
    remove_partial_files(tmp_path, of="other")
    assert len(os.listdir(tmp_path)) == 3
    remove_partial_files(tmp_path, of=name)
    assert sorted(os.listdir(tmp_path)) == sorted([".partial_0123abcd_a1.index", name])


def test_a_file_with_two_names_is_not_appended_to(tmp_path, victim):
    os.link(victim, tmp_path / "second")
    with pytest.raises(UnsafeFile, match="hard link"):
        open_appending(tmp_path / "second")


def test_a_file_over_the_limit_is_refused(tmp_path, victim):
    assert read_bytes(victim, 8) == b"precious"
    with pytest.raises(UnsafeFile, match="larger than 7 bytes"):
        read_bytes(victim, 7)


def test_a_folder_behind_a_link_is_refused(tmp_path, victim):
    check_folder(tmp_path)
    check_folder(tmp_path / "missing")
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "link", victim):
        with pytest.raises(UnsafeFile):
            check_folder(path)


def test_a_new_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_lines_over_the_limit_are_not_kept(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"ab\n" + b"x" * 1000 + b"\nabc\n" + b"abcd\n" + b"x" * 9)
    assert list(read_lines(path, 4)) == [b"ab\n", None, b"abc\n", None, None]
    path.write_bytes(b"abcd\nabcde")
    assert list(read_lines(path, 5)) == [b"abcd\n", b"abcde"]


def test_what_is_set_aside_keeps_its_bytes_and_replaces_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for number, name in enumerate(("metrics.jsonl.damaged", "metrics.jsonl.damaged-1", "metrics.jsonl.damaged-2")):
        path.write_text(f"{number}")
        assert set_aside(path) == tmp_path / name
        assert not path.exists()
    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["0", "1", "2"]
    path.symlink_to("/etc/passwd")
    assert set_aside(path).is_symlink()


def test_two_that_update_a_file_at_once_both_keep_their_change(tmp_path):
    file = tmp_path / "count"
    file.write_text("0")

    def add(times: int) -> None:
        for _ in range(times):
            with updating(tmp_path):
                value = int(file.read_text())
                time.sleep(0.001)
                write_text(file, str(value + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, [10] * 4))
    assert file.read_text() == "40"


def test_a_lock_that_a_stranger_holds_delays_an_update_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WAIT", 0.2)
    began = time.monotonic()
    with updating(tmp_path), updating(tmp_path):
        assert 0.2 <= time.monotonic() - began < 5
