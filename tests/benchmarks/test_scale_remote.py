"""The benchmark of remote shards: its server, and that the user's cache folder is left alone."""

import os

import numpy as np
import pytest

from wildfern.benchmarks import scale_remote
from wildfern.ssl.data import open_source


def test_downloads_and_copies_are_compared_with_local_files(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "mine"))
    monkeypatch.setattr(scale_remote, "IN_A_SHARD", 8)
    rows = scale_remote.rows(tmp_path, 20, 0.0)
    assert [row["what"] for row in rows] == [scale_remote.LOCAL, scale_remote.FIRST, scale_remote.SECOND]
    assert [row["ratio"] is None for row in rows] == [True, False, False]
    assert len(list(tmp_path.glob("cache/remote/*.file"))) == 3
    assert os.environ["WILDFERN_CACHE"] == str(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    source = open_source(f"webdataset:{tmp_path}/shards/*.tar", labels="none")
    assert {image.shape for image in source.read(np.arange(20)).pixels} == {(80, 96, 3), (96, 80, 3)}
