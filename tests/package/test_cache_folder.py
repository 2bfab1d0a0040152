"""Where things are kept that can be made again."""

from pathlib import Path

from wildfern.cache_folder import cache_folder


def test_the_own_variable_goes_before_the_users_folder_and_that_before_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.delenv("WILDFERN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("indexes") == Path("/home/anna/.cache/wildfern/indexes")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder("features") == Path("/fast/wildfern/features")
    monkeypatch.setenv("WILDFERN_CACHE", "/mine")
    assert cache_folder("features") == Path("/mine/features")
