import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock

from wildfern.ssl.evaluation.report.class_attention import with_class_attention
from wildfern.ssl.models import Backbone


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_vit", {}),
        ("test_vit", {"qk_norm": True, "reg_tokens": 4, "global_pool": "avg", "num_heads": 4}),
        ("test_vit", {"block_fn": ResPostBlock, "class_token": True, "init_values": 0.1}),
        ("deit_tiny_distilled_patch16_224", {"depth": 2, "embed_dim": 24, "num_heads": 3}),
    ],
)
def test_attention_is_the_softmax_of_timm_over_all_tokens(name, arguments):
    torch.manual_seed(0)
    backbone = Backbone(name, img_size=32, patch_size=8, **arguments).eval()
    for parameter in backbone.parameters():  # else attention of a new network is nearly uniform
        parameter.data += 0.2 * torch.randn_like(parameter)
    with torch.no_grad():
        tokens, found = with_class_attention(backbone.network, lambda: backbone.tokens(images()))
        attention = backbone.network.blocks[-1].attn
        attention.fused_attn = False
        seen = []
        handle = attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        expected = backbone.tokens(images())
        handle.remove()
    torch.testing.assert_close(tokens.patches, expected.patches)
    prefix = backbone.network.num_prefix_tokens
    torch.testing.assert_close(found, seen[0][:, :, 0, prefix:].mean(1))
    torch.testing.assert_close(found.sum(1), 1 - seen[0][:, :, 0, :prefix].mean(1).sum(1))
    assert found.std() > 0.01
    assert not attention.q_norm._forward_hooks
    assert not attention.k_norm._forward_hooks


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_vit", {"img_size": 32, "class_token": False, "global_pool": "avg"}),
        ("test_vit", {"img_size": 32, "attn_layer": "diff"}),
        ("test_vit", {"img_size": 32, "block_fn": ParallelScalingBlock}),
        ("resnet14t", {}),
    ],
)
def test_other_networks_have_no_attention(name, arguments):
    backbone = Backbone(name, **arguments).eval()
    found = with_class_attention(backbone.network, lambda: "ran")
    assert found == ("ran", None)


def test_hooks_are_removed_after_an_error():
    backbone = Backbone("test_vit", img_size=32)
    with pytest.raises(ValueError, match="stop"):
        with_class_attention(backbone.network, lambda: (_ for _ in ()).throw(ValueError("stop")))
    assert not backbone.network.blocks[-1].attn.q_norm._forward_hooks
