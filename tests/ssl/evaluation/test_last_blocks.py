import pytest
import timm
import torch

from wildfern.ssl.evaluation import LastBlocks, LinearProbe
from wildfern.ssl.models import Backbone


def test_class_tokens_of_the_last_blocks_are_those_of_a_plain_loop():
    torch.manual_seed(0)
    backbone = Backbone("test_vit", img_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    network = backbone.network
    tokens = network._pos_embed(network.patch_embed(x))
    tokens = network.norm_pre(network.patch_drop(tokens))
    found = []
    for block in network.blocks:
        tokens = block(tokens)
        found.append(network.norm(tokens)[:, 0])
    torch.testing.assert_close(LastBlocks(backbone, 3)(x), torch.cat(found[-3:], 1))


def test_stages_of_a_convolutional_network_are_averaged():
    torch.manual_seed(0)
    backbone = Backbone("resnet18").eval()
    x = torch.randn(2, 3, 64, 64)
    maps = timm.create_model("resnet18", features_only=True, pretrained=False).eval()
    maps.load_state_dict(backbone.network.state_dict(), strict=False)
    expected = torch.cat([one.mean((2, 3)) for one in maps(x)[-2:]], 1)
    torch.testing.assert_close(LastBlocks(backbone, 2)(x), expected)


def test_more_blocks_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="set layers"):
        LastBlocks(Backbone("test_vit"), 99)
    with pytest.raises(ValueError, match="99 stages are wanted"):
        LastBlocks(Backbone("resnet18").eval(), 99)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="at least 1"):
        LinearProbe(layers=0)
