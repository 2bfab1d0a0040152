"""Slow work of the first process outlasts what a collective of the others may take."""

import os
import time
from datetime import timedelta
from unittest.mock import patch

import pytest
import torch
from forked_runs import FORKS, SURROUNDINGS

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


def test_the_others_wait_for_the_first_process_as_long_as_it_takes(tmp_path):
    with patch.dict(os.environ, SURROUNDINGS):
        processes = [FORKS.Process(target=wait_for_the_lead, args=(rank, tmp_path), daemon=True) for rank in (0, 1)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
