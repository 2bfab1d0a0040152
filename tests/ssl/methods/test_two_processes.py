"""Two processes with half the pictures each have the loss and the gradient of one process with all of them."""

import pytest
import torch
from two_ranks import ARGUMENTS, SmallNet, step, worker

from wildfern.ssl.methods import METHODS


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, 2, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_equal_one_process(name, two_processes):
    alone = step(name, 0, 1)
    for found in two_processes:
        assert found[name].keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                found[name][key], value, rtol=1e-5, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("name", METHODS)
def test_every_part_that_is_optimized_gets_a_gradient(name):
    gradients = step(name, 0, 1)
    torch.manual_seed(0)
    method = METHODS[name](SmallNet(), 10, **ARGUMENTS[name])
    assert {f"gradient of {n}" for n, p in method.named_parameters() if p.requires_grad} <= gradients.keys()
    # biases before batch normalization have none, everything else must be moved by the loss
    still = {k for k, v in gradients.items() if k.startswith("gradient") and v.abs().max() < 1e-12}
    assert not {k for k in still if "weight" in k}
