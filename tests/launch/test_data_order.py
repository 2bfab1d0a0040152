"""The keys `order` and `buffer` of `data`, from the recipe to the images of a run."""

import numpy as np
import pytest
from tar_bytes import member, png

from wildfern.launch.builders import open_mixture
from wildfern.launch.components import read_recipe
from wildfern.ssl.data import DataError


def test_a_run_reads_a_few_shards_at_a_time(tmp_path):
    for shard in range(6):
        content = b"".join(member(b"%d.png" % value, png(value)) for value in range(10 * shard, 10 * shard + 10))
        (tmp_path / f"{shard}.tar").write_bytes(content)
    shards = [f"data=webdataset:{tmp_path}/*.tar", "evaluation.online_probe=null"]
    mixture = open_mixture(read_recipe("quickstart", [*shards, "data.order=blocks", "data.buffer=10"]))
    reds = mixture.read(np.arange(180)).pixels[:, 0, 0, 0].reshape(3, 6, 10)
    for epoch in reds:
        assert sorted(epoch.ravel()) == list(range(60))
        assert sorted(window[0] // 10 for window in epoch) == list(range(6))
        assert all(len(set((window // 10).tolist())) == 1 for window in epoch)
    assert len({tuple(epoch.ravel().tolist()) for epoch in reds}) == 3
    random = open_mixture(read_recipe("quickstart", shards)).read(np.arange(60)).pixels[:, 0, 0, 0].reshape(6, 10)
    assert all(len(set((window // 10).tolist())) > 1 for window in random)


def test_sources_that_are_not_stored_in_blocks_are_refused():
    with pytest.raises(DataError, match=r"order: blocks is for .* but .*DigitsSource.* has none"):
        open_mixture(read_recipe("quickstart", ["data=digits", "data.order=blocks"]))
