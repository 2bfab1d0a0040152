"""Two ranks as processes, for workers that leave their results in `rankN.pt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forked_runs import forked


def two_ranks_of(worker: Callable[[int, int, Path], None], folder: Path) -> list[dict[str, Any]]:
    """Run `worker(rank, world_size, folder)` on both ranks, and load what each of them saved."""
    processes = [forked(worker, rank, 2, folder) for rank in range(2)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
