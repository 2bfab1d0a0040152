"""Slow work on rank 0 may take longer than the timeout of collectives."""

import os
import socket
import sys
from unittest.mock import patch

import pytest
from forked_runs import FORKS, SURROUNDINGS
from patient_ranks import connect_and_die, wait_for_rank_0


def test_other_ranks_wait_for_rank_0_without_timeout(tmp_path):
    with patch.dict(os.environ, SURROUNDINGS):
        processes = [FORKS.Process(target=wait_for_rank_0, args=(rank, tmp_path), daemon=True) for rank in (0, 1)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_a_rank_that_dies_before_the_group_is_made_is_an_error(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with patch.dict(os.environ, SURROUNDINGS):
        processes = [FORKS.Process(target=connect_and_die, args=(rank, port, tmp_path), daemon=True) for rank in (0, 1)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert not (tmp_path / "1").exists()
