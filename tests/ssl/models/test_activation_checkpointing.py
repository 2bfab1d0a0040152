"""Networks whose blocks are computed again in the backward pass: every path, batch statistics, networks that cannot."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wildfern.ssl.models import Backbone
from wildfern.ssl.models.activation_checkpointing import checkpoint_activations

KEEP = torch.tensor([[0, 3, 5], [1, 2, 15]])
MASKED = torch.arange(32).view(2, 16) % 3 == 0
PATHS = {
    "vectors": lambda backbone, x: backbone(x),
    "tokens": lambda backbone, x: backbone.tokens(x).patches,
    "maps": lambda backbone, x: backbone.maps(x)[-1],
    "kept patches": lambda backbone, x: backbone.tokens(x, keep=KEEP).patches,
    "masked patches": lambda backbone, x: backbone.tokens(x, masked=MASKED, mask_token=torch.ones(16)).patches,
}
OF_ALL = list(PATHS)[:3]


def vit() -> Backbone:
    arguments = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 16, "num_heads": 2, "drop_path_rate": 0.5}
    return Backbone("vit_tiny_patch16_224", **arguments)


def resnet() -> Backbone:
    return Backbone("resnet18", stem="cifar", layers=[1] * 4, channels=[8] * 4, drop_path_rate=0.5)


def calls_of(module: nn.Module) -> list[int]:
    """One entry for each forward pass of the module, from now on."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(("make", "path"), [(vit, path) for path in PATHS] + [(resnet, path) for path in OF_ALL])
def test_every_path_computes_blocks_twice_to_the_same_gradients_and_statistics(make, path):
    torch.manual_seed(0)
    plain, x = make(), torch.randn(2, 3, 16, 16)
    if make is resnet:
        plain.network.layer2[0].bn1.momentum = None  # the mean of all batches: follows num_batches_tracked
    recomputed = copy.deepcopy(plain)
    recomputed.checkpoint_activations()
    block = recomputed.network.blocks[0] if make is vit else recomputed.network.layer2[0]
    calls = calls_of(block)
    for backbone in (plain, recomputed):
        torch.manual_seed(1)
        for _ in range(2):
            PATHS[path](backbone, x).square().sum().backward()
    assert len(calls) == 4
    for (name, expected), found in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None), name
        assert expected.grad is None or torch.equal(expected.grad, found.grad), name
    for (name, expected), found in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(expected, found), name
    assert [key for key in vars(block) if "kept" in key] == []


def test_statistics_of_a_batch_that_is_not_finite_are_those_without_it():
    plain, x = resnet(), torch.randn(2, 3, 16, 16)
    x[0] = torch.inf
    recomputed = copy.deepcopy(plain)
    recomputed.checkpoint_activations()
    for backbone in (plain, recomputed):
        for images in (x, torch.ones_like(x)):
            torch.manual_seed(0)
            backbone(images).sum().backward()
    for expected, found in zip(plain.buffers(), recomputed.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


class NormalizedLast(nn.Module):
    """A block that ends with batch normalization, within which its recomputation ends."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As timm's networks."""

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False)


def test_statistics_stay_where_a_recomputation_ends_within_a_normalization():
    network, x = NormalizedLast(), torch.randn(7, 3)
    checkpoint_activations(network, "mine")
    network(x).square().sum().backward()
    norm = network.block[1]
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * network.block[0](x).mean(dim=0))
    assert "_kept_statistics" not in vars(norm)


@pytest.mark.parametrize("name", ["vgg11", "torchvision/resnet18", "small_alexnet"])
def test_networks_without_checkpointing_are_named(name):
    with torch.device("meta"):
        backbone = Backbone(name)
    with pytest.raises(ValueError, match=f"{name} cannot compute its activations again: choose a timm model"):
        backbone.checkpoint_activations()
    assert not backbone.recomputes
