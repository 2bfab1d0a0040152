"""The depth of each parameter, against the formula of BEiT and MAE, and the groups made of it."""

import pytest
import torch

from wildfern.ssl.methods import Method
from wildfern.ssl.methods.layer_decay import layer_decay_groups
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.layer_depth import layer_depths, layer_factors
from wildfern.ssl.training.parameter_groups import method_optimizer

VIT = {"img_size": 16, "patch_size": 4, "depth": 3, "embed_dim": 24, "num_heads": 2}


@pytest.mark.parametrize(
    "options", [{"reg_tokens": 2, "pre_norm": True}, {"global_pool": "avg"}, {"global_pool": "avg", "fc_norm": False}]
)
def test_depths_of_a_vision_transformer(options):
    backbone = Backbone("vit_tiny_patch16_224", **VIT, **options)
    depths, head = layer_depths(backbone)
    assert head == 4
    assert set(depths) == {name for name, _ in backbone.named_parameters()}
    for name, depth in depths.items():
        parts = name.split(".")[1:]
        expected = int(parts[1]) + 1 if parts[0] == "blocks" else 4 if parts[0] in ("norm", "fc_norm") else 0
        assert depth == expected, name
    assert layer_depths(backbone.network)[0] == {name.removeprefix("network."): depth for name, depth in depths.items()}


def test_factors_are_powers_and_groups_hold_every_parameter_once():
    backbone = Backbone("vit_tiny_patch16_224", **VIT)
    factors = layer_factors(backbone, 0.75)
    assert factors["network.norm.weight"] == 1
    assert factors["network.blocks.2.mlp.fc1.weight"] == 0.75
    assert factors["network.pos_embed"] == 0.75**4

    class Decayed(Method):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

        def parameter_groups(self):
            return layer_decay_groups(backbone, 0.75)

    method = Decayed()
    optimizer = method_optimizer(method, lambda groups: torch.optim.AdamW(groups, lr=1.0), 0.1)
    of_parameter = {
        id(p): group["lr_factor"] for group in optimizer.param_groups for p in group["params"] if "lr_factor" in group
    }
    for name, parameter in backbone.named_parameters():
        assert of_parameter.get(id(parameter), 1) == factors[name]
    assert [group.name for group in method.parameter_groups()][::4] == ["backbone, layer 0", "backbone, layer 4"]


def test_resnets_have_depths_and_networks_without_layers_are_refused():
    depths, head = layer_depths(Backbone("resnet10t"))
    assert head == max(depths.values()) + 1
    assert (
        depths["network.conv1.0.weight"]
        == 0
        < depths["network.layer1.0.conv1.weight"]
        < depths["network.layer4.0.conv1.weight"]
    )
    with pytest.raises(ValueError, match="torchvision/resnet18 has no order of layers"):
        layer_depths(Backbone("torchvision/resnet18"))
