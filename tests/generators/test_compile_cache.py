"""The compile cache: never needed, never loaded damaged, not shared with strangers."""

import errno
import importlib.util
import itertools
import os
import sys

import numba
import pytest

from wildfern.generators import compile_cache

MODULE = """
from wildfern.generators.compiling import kernel

@kernel("squares")
def square(sources):
    def square(x):
        _ = sources
        return x * x
    return square
"""
_names = itertools.count()


@pytest.fixture
def square(tmp_path, monkeypatch, capfd):
    """`square(folder)`: (7², standard error) of a kernel that is loaded anew, with its cache in `folder`."""
    (tmp_path / "squares.py").write_text(MODULE)
    compile_cache.warn.cache_clear()

    def run(folder):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
        name = f"squares_{next(_names)}"
        monkeypatch.setitem(sys.modules, name, None)
        spec = importlib.util.spec_from_file_location(name, tmp_path / "squares.py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capfd.readouterr()
        return module.square(7.0), capfd.readouterr().err

    return run


def cached(folder, ending):
    return sorted(folder.rglob(f"*.{ending}"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_cache_that_cannot_be_written_is_said_and_not_needed(number, square, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patch:
        patch.setattr(compile_cache._CheckedFiles, "_open_for_write", full)
        value, words = square(tmp_path / "cache")
    assert value == 49
    assert words.count("cannot be written") == 1
    assert f"the compile cache {tmp_path / 'cache'}" in words
    assert f"({os.strerror(number)}): kernels are compiled again by each process" in words
    assert square(tmp_path / "cache")[0] == 49
    assert square(tmp_path / "cache") == (49, "")


def test_a_cache_folder_that_vanishes_is_made_again_or_not_needed(square, tmp_path, monkeypatch):
    save = compile_cache._CheckedFiles.save

    def vanished(self, key, data):
        for path in cached(tmp_path / "cache", "lock"):
            path.unlink()
            path.parent.rmdir()
        save(self, key, data)

    monkeypatch.setattr(compile_cache._CheckedFiles, "save", vanished)
    value, words = square(tmp_path / "cache")
    assert value == 49
    assert "cannot be written (No such file or directory)" in words


def test_code_of_former_sources_is_not_loaded_after_a_failed_save(square, tmp_path, monkeypatch):
    """The data file has the same name, so an index that was written before it would name former code."""
    square(tmp_path / "cache")
    (tmp_path / "squares.py").write_text(MODULE.replace("x * x", "x * x * x "))
    opened = compile_cache._CheckedFiles._open_for_write

    def full(self, path):
        if path.endswith("nbc"):
            raise OSError(errno.ENOSPC, "full", path)
        return opened(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(compile_cache._CheckedFiles, "_open_for_write", full)
        assert square(tmp_path / "cache")[0] == 343
    value, words = square(tmp_path / "cache")
    assert value == 343
    assert "compiling" in words


@pytest.mark.parametrize("place", [0, 2000, -70, -1])
def test_a_damaged_byte_is_noticed(place, square, tmp_path):
    square(tmp_path / "cache")
    (data,) = cached(tmp_path / "cache", "nbc")
    content = bytearray(data.read_bytes())
    content[place] ^= 1
    data.write_bytes(content)
    assert "compiling squares" in square(tmp_path / "cache")[1]
    assert square(tmp_path / "cache") == (49, "")


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("where", ["inside", "above"])
def test_a_folder_that_every_user_can_write_to_is_not_used(where, square, tmp_path):
    folder = tmp_path / "above" / "cache"
    square(folder)
    (data,) = cached(folder, "nbc")
    shared = data.parent if where == "inside" else folder.parent
    shared.chmod(0o777)
    value, words = square(folder)
    assert value == 49
    assert f"every user can write to {shared} (chmod o-w)" in words
    assert "not used" in square(folder)[1] or "compiling squares for this machine (not cached)" in square(folder)[1]
    shared.chmod(0o755)
    assert square(folder) == (49, "")


def test_a_folder_of_another_user_is_not_used(square, tmp_path, monkeypatch):
    square(tmp_path / "cache")
    assert compile_cache.distrusted(str(tmp_path / "cache")) is None
    owner = (tmp_path / "cache").stat().st_uid
    monkeypatch.setattr(compile_cache, "trusted_users", lambda: {owner + 1})
    assert f"it belongs to another user (number {owner})" in square(tmp_path / "cache")[1]


def test_a_link_in_the_place_of_the_lock_is_not_followed(square, tmp_path):
    square(tmp_path / "cache")
    (lock,) = cached(tmp_path / "cache", "lock")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    lock.unlink()
    lock.symlink_to(precious)
    assert square(tmp_path / "cache") == (49, "")
    assert precious.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_cache_that_is_made_without_a_umask_is_not_for_every_user(square, tmp_path):
    folder = tmp_path / "above" / "cache"
    before = os.umask(0)
    try:
        square(folder)
        assert square(folder) == (49, "")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    made = [folder.parent, *folder.parent.rglob("*")]
    assert not [path for path in made if path.stat().st_mode & 0o002 and path.name != "wildfern.lock"]
    (index,) = cached(folder, "nbi")
    index.chmod(0o666)
    assert "compiling squares" in square(folder)[1]
    assert not cached(folder, "nbi")[0].stat().st_mode & 0o002
