"""Slow work on rank 0 may take longer than the timeout of collectives."""

import socket
import sys

import pytest
from forked_runs import forked
from patient_ranks import connect_and_die, wait_for_rank_0


def test_other_ranks_wait_for_rank_0_without_timeout(tmp_path):
    processes = [forked(wait_for_rank_0, rank, tmp_path) for rank in (0, 1)]
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_a_rank_that_dies_before_the_group_is_made_is_an_error(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forked(connect_and_die, rank, port, tmp_path) for rank in (0, 1)]
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert not (tmp_path / "1").exists()
