"""Views in bfloat16 leave a step under autocast bit-identical if the backbone's first layer is a convolution."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.augmentation import multicrop, simclr
from wildfern.ssl.methods import DINO, Batch, Method, Needs, SimCLR
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import TorchEngine
from wildfern.ssl.training.input_precision import input_dtype, rounds_its_input

RESNET = ("resnet18", "cifar", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
VIT = (
    "vit_tiny_patch16_224",
    "standard",
    {"depth": 2, "embed_dim": 48, "patch_size": 8, "dynamic_img_size": True, "img_size": 32},
)
ALEXNET = ("small_alexnet", "standard", {})


class CentersFirst(nn.Module):
    """Subtracts the mean of its images before its convolution, so that rounded images change the result."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.convolution(images - images.mean(dim=(1, 2, 3), keepdim=True)).mean(dim=(2, 3))


def method_on(backbone, needs=SimCLR.needs):
    method = Method()
    method.backbone, method.needs = backbone, needs
    return method


def backbone_of(name, stem, arguments):
    torch.manual_seed(0)
    return Backbone(name, stem=stem, **arguments)


@pytest.mark.parametrize("named", [RESNET, VIT, ALEXNET], ids=lambda named: named[0])
def test_the_first_layer_rounds_its_input_under_autocast(named):
    backbone = backbone_of(*named)
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    random_state = torch.get_rng_state()
    assert rounds_its_input(backbone, [32])
    assert backbone.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_a_backbone_that_computes_with_its_input_first_gets_float32():
    assert not rounds_its_input(CentersFirst(), [16])
    views = simclr(size=16)
    assert input_dtype(method_on(CentersFirst()), "bf16", views) == torch.float32
    assert input_dtype(method_on(backbone_of(*RESNET)), "bf16", views) == torch.bfloat16
    assert input_dtype(method_on(backbone_of(*RESNET)), "fp32", views) == torch.float32
    four_channels = simclr(size=16, local_intensity_order=True)
    assert input_dtype(method_on(nn.Conv2d(4, 2, 3)), "bf16", four_channels) == torch.bfloat16


def test_a_method_whose_loss_reads_the_views_gets_them_in_float32():
    assert Method.needs.float32_views  # the default
    assert input_dtype(method_on(backbone_of(*RESNET), Needs()), "bf16", simclr(size=16)) == torch.float32
    assert not any(method.needs.float32_views for method in (SimCLR, DINO))


@pytest.mark.parametrize(("named", "make"), [(RESNET, SimCLR), (VIT, DINO)], ids=["simclr", "dino"])
def test_training_steps_are_bit_identical(named, make):
    views = multicrop(size=32, local_size=16, local_count=0 if make is SimCLR else 2)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 40, 48, 3), np.uint8)
    torch.manual_seed(0)
    method = make(backbone_of(*named), 10)
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        views.dtype = dtype
        engine = TorchEngine(
            *(copy.deepcopy(method), lambda groups: torch.optim.AdamW(groups, lr=1e-3), 0.05),
            **{"device": torch.device("cpu"), "precision": "bf16"},
        )
        losses = []
        for step in range(3):
            made = views(views.prepare(pixels, 0, step, np.arange(8)))
            assert {group.dtype for group in made} == {dtype}
            torch.manual_seed(step)
            loss = engine(Batch.from_views(made, step=step)).loss
            engine.backward(loss)
            engine.step(1e-3, 0.05)
            engine.method.after_step(step)
            losses.append(loss.item())
        ends.append((losses, engine.method.state_dict()))
    assert ends[0][0] == ends[1][0]
    assert len(set(ends[0][0])) == 3
    assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())
