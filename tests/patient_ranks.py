"""Run by `test_long_timeout_group`: two processes, one of them slow, with a short timeout of the default group."""

import os
import signal
import time
from datetime import timedelta

import pytest
import torch

from wildfern.launch.cluster.distributed import DistributedContext

SHORT, LONG = 2.0, 4.0  # seconds


def wait_for_rank_0(rank, folder):
    from wildfern.ssl.training.long_timeout_group import make_long_timeout_group

    store = torch.distributed.FileStore(str(folder / "store"), 2)
    store.set(f"here {rank}", "")
    store.wait([f"here {1 - rank}"], timedelta(seconds=60))  # so that a short timeout suffices to connect
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=SHORT))
    make_long_timeout_group(timedelta(seconds=SHORT))
    processes = DistributedContext(rank, 2, torch.device("cpu"))

    def work():
        time.sleep(LONG)
        return "found"

    assert processes.broadcast_from_main(work) == "found"
    if rank == 1:
        time.sleep(LONG)
    processes.barrier()
    if rank == 1:  # longer than the timeout of the default group
        with pytest.raises(RuntimeError, match=r"(?i)timed out"):
            torch.distributed.barrier()
    else:
        time.sleep(LONG)
    (folder / f"{rank}").touch()
    os._exit(0)


def connect_and_die(rank, port, folder):
    """Rank 1 is killed after it has connected to rank 0, before it creates the group."""
    from wildfern.ssl.training import deepspeed_engine

    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    if rank == 1:
        deepspeed_engine.make_long_timeout_group = lambda meeting: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(
        ValueError, match=r"rank 0 on host .* could not connect to all 2 processes .* within 0\.1 minutes"
    ):
        deepspeed_engine.start_processes("cpu", 0.1)
    (folder / f"{rank}").touch()
    os._exit(0)
