"""A run on shards of a web server that goes down: it ends with a complete checkpoint, and resumes to the same bytes."""

import io

import numpy as np
import pytest
from PIL import Image
from range_server import served_to
from small_runs import TINY
from tar_bytes import member

from wildfern.launch import pretrain
from wildfern.ssl.data import DataError
from wildfern.ssl.training.checksums import check

SHARDS, EACH = 6, 8


def shard(number: int) -> bytes:
    """Images of several sizes, which are not kept decoded: later epochs need the shard too."""
    draw = np.random.default_rng(number)
    members = []
    for image in range(EACH):
        written = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (30 + image, 32, 3), np.uint8)).save(written, "PNG")
        members.append(member(b"%d.png" % image, written.getvalue()))
    return b"".join(members) + bytes(1024)


def test_a_run_whose_server_goes_down_resumes_to_the_same_bytes(monkeypatch, tmp_path):
    with served_to(tmp_path / "cache") as files:
        files.update({f"/{number}.tar": shard(number) for number in range(SHARDS)})
        size = max(map(len, files.values()))
        changes = [
            *(change for change in TINY if not change.startswith("data.")),
            f"data=webdataset:{files.url}/{{0..{SHARDS - 1}}}.tar",
            "data.order=blocks",
            f"data.buffer={EACH}",
            f"data.cache_gb={3.5 * size / 2**30}",
            "data.labels=none",
            "training.precision=fp32",
            "training.steps=24",
            "training.checkpoint_every=2",
        ]
        pretrain("quickstart", changes, run=tmp_path / "whole")
        enough = 2 * len(files.requests) // 3
        files.requests.clear()
        monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "another cache"))
        files.down_after = enough
        with pytest.raises(DataError, match=rf"{files.url}/\d\.tar cannot be read, after 3 tries: .*503.*--resume"):
            pretrain("quickstart", changes, run=tmp_path / "run")
        checkpoints = sorted((tmp_path / "run/checkpoints").glob("step_*"))
        for folder in checkpoints:
            check(folder)
        assert 0 < int(checkpoints[-1].name.removeprefix("step_")) < 24
        files.down_after = None
        pretrain("quickstart", changes, run=tmp_path / "run", resume=True)
        for name in ("metrics.jsonl", "backbone.safetensors"):
            assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
