"""Training with activation checkpointing: the same numbers and state as without, on one process and on two."""

import socket
import sys

import accumulation_ranks
import pytest
import torch
from accumulation_ranks import engine_of, train
from activation_ranks import NETWORKS, ON_RANKS, build, worker
from forked_runs import forked


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_losses_gradients_and_statistics_are_those_without_it(network, parts, dtype):
    plain, recomputed = (
        train(engine_of(build(network, recomputes, dtype), parts, probe=False), "simclr", parts, dtype)
        for recomputes in (False, True)
    )
    assert_equal(recomputed, plain)


@pytest.mark.parametrize("case", ["mae", "simmim", "dinov2", "moco_v3"])
def test_methods_with_masked_patches_and_teachers_train_the_same(case):
    plain = accumulation_ranks.build(case, drop_path_rate=0.3)
    recomputed = accumulation_ranks.build(case, drop_path_rate=0.3)
    recomputed.backbone.checkpoint_activations()
    states = [train(engine_of(method, 1, probe=False), case, 1) for method in (plain, recomputed)]
    assert_equal(*states)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_two_ranks_with_deepspeed_train_the_same(tmp_path):
    """Batch normalization over both ranks, sharded weights, and micro-batches that share a loss."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forked(worker, rank, 2, port, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for network, stage, _ in ON_RANKS:
            plain, recomputed = (found[f"{network} zero{stage} {recomputes}"] for recomputes in (False, True))
            assert_equal(recomputed, plain)
