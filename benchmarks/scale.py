"""A run of SEER's size, simulated on one machine: what an index, an order, ranks and checkpoints of that size take.

    python -m wildfern.benchmarks.scale --json benchmarks/results/scale.json

Nothing here is extrapolated: the index of a billion images is a file (sparse, so that it takes no disk), steps are located in it,
the slices of 512 ranks are joined and compared with the global batch, and one rank's share of the state of a RegNet of 10 billion
weights is copied, written, verified and read. Only the other 511 shares are counted, and not written.
"""

import argparse
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet

from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.data import Images, Mixture, Source
from wildfern.ssl.data.index_file import index_layout, map_index
from wildfern.ssl.data.permutation import permuted
from wildfern.ssl.tracking import environment
from wildfern.ssl.training import BatchReader
from wildfern.ssl.training.sharded_state import StateShard, write_shard
from wildfern.ssl.training.state_file import open_state, shard_name
from wildfern.ssl.training.state_layout import own_range

IMAGES, IN_A_SHARD, NAME_BYTES = 1_000_000_000, 10_000, 20
BUFFER = 100_000  # images that are shuffled together
RANKS, RANKS_ON_A_HOST = 512, 8
BATCH = 8192
# RegNet of SEER (Goyal et al., 2022, "Vision models are more robust and fair …"), by the parameters of its public code.
SEER = {"depth": 27, "w_0": 1744, "w_a": 620.83, "w_m": 2.52, "group_width": 1010, "se_ratio": 0.25}
GIB = 2**30

Figures = dict[str, float]


def run(images: int = IMAGES, ranks: int = RANKS, regnet: dict | None = None) -> Figures:
    """All figures by name; the unit is the last word of each name."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index_figures(folder, images, found)
        order_figures(images, ranks, found)
        state_figures(folder, ranks, regnet or SEER, found)
    return found


def index_figures(folder: Path, images: int, found: Figures) -> None:
    """Open time and memory of an index of shards, in a process of its own."""
    shards = -(-images // IN_A_SHARD)
    shapes = {
        "starts": ("<i8", [shards + 1]),
        "offsets": ("<u4", [images]),
        "sizes": ("<u4", [images]),
        "ends": ("<u4", [images + shards]),
        "text": ("|u1", [NAME_BYTES * images]),
    }
    path = folder / "billion.index"
    start, total, places = index_layout(shapes)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(total)
        file.seek(places["starts"])
        file.write(np.minimum(np.arange(shards + 1) * IN_A_SHARD, images).astype("<i8").data)
    found["index: size GB"] = total / 1e9
    found["index: bytes an image B"] = total / images
    found["index: disk that the sparse file takes GB"] = path.stat().st_blocks * 512 / 1e9
    child = subprocess.run(
        [sys.executable, "-m", "wildfern.benchmarks.scale", "--open", str(path)],
        capture_output=True,
        check=True,
        text=True,
    )
    found |= {f"index: {key}": value for key, value in json.loads(child.stdout).items()}


def opened(path: Path) -> Figures:
    """Of this process: time to map an index and to look up a thousand random images, and the memory that it then has more."""
    before = _resident()
    began = time.perf_counter()
    index = map_index(path)
    assert index is not None
    took = time.perf_counter() - began
    images = len(index["offsets"])
    began = time.perf_counter()
    for item in permuted(np.arange(1000), images, 0)[1].tolist():
        shard = int(np.searchsorted(index["starts"], item, side="right")) - 1
        int(index["offsets"][item]), int(index["sizes"][item]), index["ends"][item + shard]
    return {
        "open ms": 1e3 * took,
        "look up an image µs": 1e3 * (time.perf_counter() - began),
        "memory of a process after 1,000 images MB": (_resident() - before) / 1e6,
    }


class Numbered(Source):
    """A number of images that cannot be read, in shards."""

    def __init__(self, images: int, in_a_shard: int = IN_A_SHARD) -> None:
        super().__init__()
        self.num_items = images
        self._blocks = np.minimum(np.arange(-(-images // in_a_shard) + 1) * in_a_shard, images)

    @property
    def blocks(self) -> NDArray[np.int64]:
        return self._blocks

    def read(self, items: ArrayLike) -> Images:
        raise NotImplementedError("these images are only counted")


def order_figures(images: int, ranks: int, found: Figures) -> None:
    """Items of any step, and whether the ranks' slices are the global batch, with each image of an epoch once."""
    views = VIEWS["simclr"](size=32)
    for name, buffer in (("random", None), ("blocks", BUFFER)):
        began = time.perf_counter()
        mixture = Mixture([(Numbered(images), 1.0)], seed=0, buffers=[buffer])
        mixture.locate([0])
        found[f"order: {name}, first image ms"] = 1e3 * (time.perf_counter() - began)
        readers = [
            BatchReader(mixture, views, seed=0, batch_size=BATCH, rank=rank, world_size=ranks) for rank in range(ranks)
        ]
        for step in (0, 10**6, 10**9):
            whole = mixture.locate(step * BATCH + np.arange(BATCH))[2]
            parts = [mixture.locate(reader.indices(step, 0))[2] for reader in readers]
            assert np.array_equal(whole, np.concatenate(parts)), "the slices of the ranks are not the global batch"
            took = _seconds(partial(mixture.locate, readers[-1].indices(step, 0)))
            found[f"order: {name}, images of a rank in step {step:,} ms"] = 1e3 * took
            found[f"order: {name}, shards of a rank in step {step:,}"] = len(np.unique(parts[-1] // IN_A_SHARD))
        # Coverage, in a set small enough to look at all of an epoch, which ends within a step.
        few = Mixture([(Numbered(50 * BATCH + 77, 1000), 1.0)], seed=1, buffers=[buffer and 5000])
        every = [few.locate(reader.indices(step, 0))[1:] for step in range(51) for reader in readers]
        epochs, items = (np.concatenate(part) for part in zip(*every, strict=True))
        seen = np.sort(items[epochs == 0])
        assert np.array_equal(seen, np.arange(few.num_items)), "an epoch does not have every image once"
        found[f"order: {name}, images of an epoch that the ranks' slices cover %"] = 100.0


def state_figures(folder: Path, ranks: int, regnet: dict, found: Figures) -> None:
    """Bytes of the state of a network that is too large for this machine, and one rank's share of it for real."""
    blocks = BlockParams.from_init_params(**regnet)
    with torch.device("meta"):
        network: nn.Module = RegNet(blocks, num_classes=1)
    shapes = {name: weight.shape for name, weight in network.named_parameters() if not name.startswith("fc.")}
    weights = sum(map(torch.Size.numel, shapes.values()))
    found["state: weights"] = weights
    tensors = {f"method/{name}": shape for name, shape in shapes.items()}
    tensors |= {f"optimizer/{name}/momentum_buffer": shape for name, shape in shapes.items()}
    found["state: float32 weights and momentum GB"] = 8 * weights / 1e9
    found["state: largest weight GB"] = 4 * max(map(torch.Size.numel, shapes.values())) / 1e9
    counted = 0
    for rank in range(ranks):
        counted += sum(own_range(shape.numel(), rank, ranks)[1] for shape in tensors.values())
    assert counted == 2 * weights, "the pieces of all ranks are not the state"
    rank = ranks // 2
    share = StateShard(rank, ranks)
    draw = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for name, shape in tensors.items():
        start, count = own_range(shape.numel(), rank, ranks)
        share.add(name, shape, start, torch.rand(count, generator=draw))
    found["state: share of a rank GB"] = share.nbytes / 1e9
    found["state: peak of rank 0 if it joined all GB"] = 8 * weights / 1e9
    found["state: copy of a share s"] = time.perf_counter() - began
    checkpoint = folder / "step"
    checkpoint.mkdir()
    path, took = _timed(lambda: write_shard(share, checkpoint))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    found["state: write a share s"] = took
    with path.open("rb") as file:
        _, took = _timed(lambda: hashlib.file_digest(file, "sha256").hexdigest())
    found["state: SHA-256 of a share s"] = took
    # Rank 0 lists all tensors; the other files are empty, as this rank reads nothing from them.
    first = StateShard(0, ranks)
    first.tensors = {name: (shape, torch.float32) for name, shape in tensors.items()}
    write_shard(first, checkpoint)
    for other in range(1, ranks):
        if other != rank:
            write_shard(StateShard(other, ranks), checkpoint)
    found["state: list of all tensors MB"] = (checkpoint / shard_name(0, ranks)).stat().st_size / 1e6
    found["state: files of a checkpoint"] = len(list(checkpoint.iterdir()))
    began = time.perf_counter()
    with open_state(checkpoint, rank, ranks) as state:
        for name, shape in tensors.items():
            start, count = own_range(shape.numel(), rank, ranks)
            if count:
                assert torch.equal(state.piece(name, start, count), share.pieces[f"{name}@{start}"]), name
    found["state: read and compare a share s"] = time.perf_counter() - began


def _seconds(call: Callable[[], object]) -> float:
    """The best of three calls."""
    return min(_timed(call)[1] for _ in range(3))


def _timed(call: Callable[[], Path | object]):  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def _resident() -> int:
    """Bytes of this process in memory, without what it has mapped and not looked at."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        print(json.dumps(opened(given.open)))
        return
    found = run()
    table = Table("part", "figure", "", title="a run of SEER's size, simulated", title_justify="left")
    for name, value in found.items():
        part, _, what = name.partition(": ")
        words, _, unit = what.rpartition(" ")
        digits = f"{value:,.0f}" if value >= 1000 or value == math.floor(value) else f"{value:.3g}"
        table.add_row(part, f"{words} ({unit})" if unit in UNITS else what, digits)
    Console().print(table)
    if given.json:
        content = {"benchmark": "scale", "figures": found, "environment": environment()}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


UNITS = ("GB", "MB", "B", "ms", "µs", "s", "%")

if __name__ == "__main__":
    main()
