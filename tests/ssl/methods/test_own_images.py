"""Two and three ranks that share the comparison of a batch have the loss and the gradient of one rank."""

from functools import partial

import pytest
import torch
from forked_runs import forked
from method_cases import CASES
from own_images_ranks import COMPARED, EVEN, UNEVEN, compared, worker

from wildfern.ssl.methods import METHODS, gather
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import OPTIMIZERS
from wildfern.ssl.training.footprint import step_footprint

each_case = pytest.mark.parametrize("case", COMPARED)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    processes = [forked(worker, rank, request.param, folder) for rank in range(request.param)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(request.param)]


@each_case
def test_loss_metrics_gradients_and_queue_equal_those_of_one_rank(case, ranks):
    expected = compared(case)
    assert expected["loss"].isfinite()
    assert UNEVEN % len(ranks)
    for found in ranks:
        assert found[case].keys() == expected.keys()
        for name, value in expected.items():
            relative = 1e-9 if value.dtype is torch.float64 else 1e-6  # `embedding_std` is in float32
            torch.testing.assert_close(
                found[case][name], value, rtol=relative, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
            )


@each_case
def test_with_accumulation_each_rank_has_the_gradient_of_its_embeddings(case, ranks):
    expected = compared(case, EVEN)
    seen = 0
    for rank in ranks:
        found = rank[f"{case}, accumulated"]
        torch.testing.assert_close(found.pop("loss"), expected["loss"], rtol=1e-9, atol=1e-12)
        for name, gradient in found.items():
            tensor, first, last = name.split(" of ")[0], *map(int, name.split(" of ")[1].split(" to "))
            wanted = expected[f"gradient of {tensor}"][:, first:last]
            torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
            seen += gradient.abs().sum() > 0
    assert seen >= 2 * len(ranks)


@pytest.mark.parametrize("images", [0, 1, 2, 6, 7, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 512])
def test_own_images_of_all_ranks_are_the_batch(images, world_size, monkeypatch):
    monkeypatch.setattr(gather, "world_size", lambda: world_size)
    found = []
    for rank in range(world_size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        own = gather.own_images(images)
        assert own.stop - own.start in {images // world_size, -(-images // world_size)}
        found += range(images)[own]
    assert found == list(range(images))


@pytest.mark.parametrize("parts", [1, 16])
@pytest.mark.parametrize("case", ["simclr", "cacr rbf", "cacr_momentum", "moco_v3", "nnclr"])
def test_the_dry_run_of_many_ranks_has_no_matrix_of_all_pairs(case, parts):
    images, adamw = 4096, partial(OPTIMIZERS["adamw"], learning_rate=1e-3)
    described = CASES[case]
    with torch.device("meta"):
        method = METHODS[described.method](
            Backbone(described.backbone[0], **described.backbone[1]), 10, **described.arguments
        )
    ranks = images // (8 * parts)
    foot = step_footprint(method, adamw, list(described.views), 8, precision="fp32", world_size=ranks, parts=parts)
    assert foot.peak < images**2  # bytes: a quarter of one matrix
