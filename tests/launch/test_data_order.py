"""The keys `order` and `buffer` of `data`, from the recipe to the images of a run."""

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from small_runs import TINY
from tar_bytes import member, png

from wildfern.launch import pretrain
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
    with pytest.raises(DataError, match=r"order: blocks is for .* but those of this source are not"):
        open_mixture(read_recipe("quickstart", ["data=digits", "data.order=blocks"]))


SHARDS, SHARD, GROUP, BUFFER = 12, 10, 8, 20
CLASS_1 = {value for value in range(SHARDS * SHARD) if value % 3 and value // SHARD != 5}  # shard 5 is of class 0 alone


@pytest.fixture
def mixed(tmp_path) -> list[str]:
    """Changes for shards with fewer images of class 0, three quarters of all, and rows of parquet; both by blocks."""
    for shard in range(SHARDS):
        values = range(SHARD * shard, SHARD * (shard + 1))
        parts = (member(b"%d.png" % v, png(v)) + member(b"%d.cls" % v, b"%d" % (v in CLASS_1)) for v in values)
        (tmp_path / f"{shard:02}.tar").write_bytes(b"".join(parts))
    rows = pa.table({"image": [png(200 + value) for value in range(40)]})
    parquet.write_table(rows, tmp_path / "train.parquet", row_group_size=GROUP)
    imbalance = "imbalance: {kind: step, ratio: 7}"
    shards = f"{{source: 'webdataset:{tmp_path}/*.tar', weight: 3, order: blocks, buffer: {BUFFER}, {imbalance}}}"
    table = f"{{source: 'parquet:{tmp_path}/train.parquet', order: blocks, buffer: 16, memory_gb: 0}}"
    return [f"data=[{shards}, {table}]", "evaluation.online_probe=null"]


def test_a_mixture_of_an_imbalanced_source_by_blocks_gives_every_image_its_share(mixed):
    mixture = open_mixture(read_recipe("quickstart", mixed))
    count = 5 * 1024
    images = mixture.read(np.arange(count))
    reds = np.array([image[0, 0, 0] for image in images.pixels])
    for block in images.source.reshape(-1, 1024):
        assert np.bincount(block).tolist() == [768, 256]
    of_shards, of_table = reds[images.source == 0], reds[images.source == 1]
    kept = set(of_shards.tolist())
    zeros = SHARDS * SHARD - len(CLASS_1)
    assert len(kept & CLASS_1) == len(CLASS_1)
    assert len(kept - CLASS_1) == max(zeros, len(CLASS_1)) // 7
    for found, images_of, size, opened in (
        (of_shards, kept, SHARD, SHARDS),
        (of_table, set(range(200, 240)), GROUP, 5),
    ):
        for start in range(0, len(found) - len(images_of), len(images_of)):
            assert sorted(found[start : start + len(images_of)].tolist()) == sorted(images_of)  # each once in an epoch
        blocks = Counter(len(set((found[start : start + 8] // size).tolist())) for start in range(0, len(found), 8))
        assert max(blocks) < opened
    again = open_mixture(read_recipe("quickstart", mixed))
    scattered = np.random.default_rng(0).permutation(count)[:300]
    assert [int(image[0, 0, 0]) for image in again.read(scattered).pixels] == reds[scattered].tolist()


def test_a_window_of_an_imbalanced_source_has_few_shards(mixed):
    mixture = open_mixture(read_recipe("quickstart", mixed))
    components, epochs, items = mixture.locate(np.arange(3 * 1024))
    own, source = items[components == 0], mixture.sources[0]
    shards = np.searchsorted(source.source.blocks, source.items[own], side="right") - 1
    fewest = np.diff(source.blocks).min()
    assert len(source.blocks) == SHARDS + 1
    for epoch in range(int(epochs[components == 0].max())):
        of_epoch = shards[epochs[components == 0] == epoch]
        windows = [of_epoch[start : start + BUFFER] for start in range(0, len(of_epoch), BUFFER)]
        assert max(len(set(window.tolist())) for window in windows) <= -(-BUFFER // fewest) + 1


def test_a_run_on_an_imbalanced_mixture_by_blocks_resumes_exactly(mixed, tmp_path):
    tiny = [change for change in TINY if not change.startswith("data.")]
    changes = [*tiny, *mixed, "training.steps=6", "training.checkpoint_every=3", "training.keep_checkpoints=9"]
    whole = pretrain("quickstart", changes, run=tmp_path / "whole")
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints/step_00000006")
    (part / "backbone.safetensors").unlink()
    pretrain(part / "recipe.yaml", run=part, resume=True)
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()
