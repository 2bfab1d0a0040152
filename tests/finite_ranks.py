"""Run by `test_finite`: two processes, the second of which has a NaN loss."""

import json
import os

import numpy as np
import torch

from wildfern.ssl.training import NotFinite
from wildfern.ssl.training.finite import FiniteWatch


class TwoProcesses:
    world_size = 2

    def __init__(self, rank):
        self.rank = rank

    def any(self, flag):
        printed = torch.tensor([float(flag)])
        torch.distributed.all_reduce(printed)
        return bool(printed)


def watch_two(rank, folder):
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    rows = []
    watch = FiniteWatch(TwoProcesses(rank), 0, lambda step, part: 1000 * rank + 10 * step + np.arange(2), rows.extend)
    watch.note(3, [torch.tensor(float("nan") if rank == 1 else 1.0)], torch.tensor(float("nan")))
    try:
        watch.check()
    except NotFinite as error:
        (folder / f"{rank}.json").write_text(json.dumps({"error": str(error), "rows": rows}))
    os._exit(0)
