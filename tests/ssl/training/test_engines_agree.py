"""TorchEngine and DeepSpeedEngine, at every ZeRO stage, with one process and two, train to the same numbers."""

import socket
import sys

import pytest
import torch
from engine_ranks import CASES, HANDED_OVER, HANDOVERS, RESUMED, advance, build, steps_of, worker
from forked_runs import forked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{(world size, rank): results of that process}; a pair and a single process run in parallel."""
    folder = tmp_path_factory.mktemp("engines")
    ports = {1: free_port(), 2: free_port()}
    places = [(0, 1), (0, 2), (1, 2)]
    processes = [forked(worker, r, w, ports[w], folder) for r, w in places]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    return {(w, r): torch.load(folder / f"{w}-{r}.pt", weights_only=True) for r, w in places}


@pytest.fixture(scope="module")
def torch_curves():
    return {case: advance(build(case, None), case, 0, steps_of(case)) for case in CASES}


# bfloat16 has 8 significant bits: activations have a relative error of up to 2⁻⁹, which differs if a batch is split. A
# temperature of 0.1 multiplies it by ten in the logits: 0.02.
RELATIVE = {"fp32": 1e-5, "bf16": 2e-2}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_same_curves_as_the_torch_engine(case, world_size, found, torch_curves):
    *_, precision, stages = CASES[case]
    expected = torch_curves[case]
    assert expected[-3:, 0].mean() < expected[:3, 0].mean()  # of the three batches
    for stage in stages:
        for rank in range(world_size):
            curve = found[world_size, rank]["curves"][f"{case} zero{stage}"]
            off = (curve / expected - 1).abs().max(dim=0).values
            assert off[0] < RELATIVE[precision], f"loss, stage {stage}, {world_size} processes"
            assert off[1] < 10 * RELATIVE[precision], f"gradient norm, stage {stage}, {world_size} processes"
            if precision == "fp32":
                assert torch.equal(curve[:, 2], expected[:, 2]), (
                    f"probe accuracy, stage {stage}, {world_size} processes"
                )


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("case", "stage"), RESUMED)
def test_resuming_with_the_same_engine_is_bit_exact(case, world_size, stage, found):
    for rank in range(world_size):
        resumed = found[world_size, rank]["resumed"]
        assert bool(resumed[f"{case}-zero{stage} snapshots"])
        assert torch.equal(resumed[f"{case}-zero{stage} resumed"], resumed[f"{case}-zero{stage} whole"])
        assert bool(resumed[f"{case}-zero{stage} shards"])
        assert torch.equal(resumed[f"{case}-zero{stage} resumed from shards"], resumed[f"{case}-zero{stage} whole"])


@pytest.mark.parametrize("case", HANDED_OVER)
def test_a_run_resumed_by_other_engines_keeps_its_curve(case, found, torch_curves):
    parts = [found[w, 0]["handed_over"][f"{case} {start}"] for w, _, start in HANDOVERS[:-1]]
    curve, expected = torch.cat(parts), torch_curves[case]
    torch.testing.assert_close(curve[:, 0], expected[:, 0], rtol=1e-5, atol=0)
    assert torch.equal(curve[:, 2], expected[:, 2])


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_with_a_nan_gradient_changes_nothing(world_size, stage, found):
    for rank in range(world_size):
        same, reported, goes_on = found[world_size, rank]["skipped"][f"zero{stage}"]
        assert same
        assert reported
        assert goes_on


def test_an_optimizer_that_counts_in_its_groups_is_refused_at_stage_3(found):
    assert all("set engine.zero_stage to 2 or less" in ranks["refused"] for ranks in found.values())
