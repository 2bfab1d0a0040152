"""Two processes, one of them slow, whose default group has little patience: what `test_patience` runs."""

import os
import time
from datetime import timedelta

import pytest
import torch

from wildfern.launch.assembling import Processes

SHORT, LONG = 2.0, 4.0  # seconds


def wait_for_the_lead(rank, folder):
    from wildfern.ssl.training.patience import make_patient_group

    store = torch.distributed.FileStore(str(folder / "store"), 2)
    store.set(f"here {rank}", "")
    store.wait([f"here {1 - rank}"], timedelta(seconds=60))  # so that a moment is enough to meet
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=SHORT))
    make_patient_group()
    processes = Processes(rank, 2, torch.device("cpu"))

    def work():
        time.sleep(LONG)
        return "found"

    assert processes.from_lead(work) == "found"
    if rank == 1:
        time.sleep(LONG)
    processes.meet()
    if rank == 1:  # the default group would not wait so long
        with pytest.raises(RuntimeError, match=r"(?i)timed out"):
            torch.distributed.barrier()
    else:
        time.sleep(LONG)
    (folder / f"{rank}").touch()
    os._exit(0)
