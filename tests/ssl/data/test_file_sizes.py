"""Sizes of the files of a folder, against os.stat of each."""

import os
import stat

import pytest

from wildfern.ssl.data.file_sizes import file_sizes, has_statx


def plain_size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


@pytest.mark.skipif(not has_statx(), reason="the system has no statx")
def test_sizes_are_those_of_stat(tmp_path):
    names = ["a", "näh.png", "b\udcff.jpg", "new\nline", "empty", "x" * 255]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(1000 * number if name != "empty" else 0))
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(5 * 2**32 + 7)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.symlink("a", tmp_path / "link")
    os.symlink("folder", tmp_path / "link to a folder")
    os.symlink("self", tmp_path / "self")
    os.symlink("gone", tmp_path / "dangling")
    names += ["huge", "folder", "pipe", "link", "link to a folder", "self", "dangling", "missing", "y" * 300, "a/b"]
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        assert file_sizes(handle, names).tolist() == [plain_size(os.path.join(tmp_path, name)) for name in names]
        assert file_sizes(handle, ["huge"]).tolist() == [5 * 2**32 + 7]
    finally:
        os.close(handle)
