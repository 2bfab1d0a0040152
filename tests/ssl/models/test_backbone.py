"""Backbones: measured width, and tokens and maps against the network's own modules."""

import pytest
import torch
from torch import nn

from wildfern.ssl.models import Backbone
from wildfern.ssl.models.networks import unknown_network
from wildfern.ssl.models.width import measure_width, meta_copy

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
# `test_network_families` checks the width of other timm modules on values; these are what it leaves out, and some of each design.
WIDTHS: dict[str, dict] = {
    "resnet10t": {}, "vgg11": {}, "mobilenetv3_small_050": {}, "test_vit": {}, "efficientvit_m0": {}, "test_efficientnet": {},
    "test_mambaout": {}, "test_nfnet": {}, "regnetx_002": {}, "rexnet_100": {}, "starnet_s050": {}, "levit_128s": {},
    "pvt_v2_b0": {}, "hardcorenas_a": {}, "inception_v3": {}, "inception_v4": {}, "sequencer2d_s": {"layers": (1, 1, 1, 1)},
    "mobilevit_s": {}, "vit_tiny_r_s16_p8_224": {}, "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "torchvision/vgg11": {}, "torchvision/squeezenet1_1": {}, "torchvision/mobilenet_v3_small": {}, "torchvision/googlenet": {},
    "torchvision/inception_v3": {}, "torchvision/vit_b_32": {}, "torchvision/swin_t": {},
}  # fmt: skip


@pytest.mark.parametrize("name", WIDTHS)
def test_the_width_equals_that_of_the_output(name):
    with torch.device("meta"):
        backbone = Backbone(name, **WIDTHS[name]).eval()
        result = backbone(torch.zeros(3, 3, backbone.size, backbone.size))
    assert result.shape == (3, backbone.width)


@pytest.mark.parametrize("name", ["vgg11", "mobilenetv3_small_050"])
def test_timms_num_features_would_be_wrong(name):
    with torch.device("meta"):
        backbone = Backbone(name)
    assert backbone.width != backbone.network.num_features


def test_torchvisions_regnets_cannot_be_built_without_values():
    assert Backbone("torchvision/regnet_x_400mf").width == 400


class ReadsValues(nn.Module):
    """Cannot run on the meta device, and has other statistics and random numbers after a training pass."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        x = self.drop(self.norm(x)).mean(dim=(2, 3))
        return x if x.sum().item() > 1e9 else torch.cat([x, x], dim=1)


def test_a_network_that_reads_values_is_measured_on_the_cpu_and_not_changed():
    network, random = ReadsValues(), torch.get_rng_state()
    assert measure_width(network, (3, 8, 8), "this") == 6
    assert all(module.training for module in network.modules())
    assert network.norm.num_batches_tracked == 0
    assert torch.equal(random, torch.get_rng_state())


def test_a_meta_copy_takes_no_memory_and_shares_nothing():
    network = Backbone("resnet10t").network
    twin = meta_copy(network)
    assert all(value.is_meta for value in twin.state_dict().values())
    assert not any(value.is_meta for value in network.state_dict().values())


def test_measuring_draws_no_random_numbers():
    import timm

    for name, arguments in {"resnet10t": {}, "vit_tiny_patch16_224": VIT}.items():
        torch.manual_seed(3)
        expected, after = timm.create_model(name, num_classes=0, **arguments).state_dict(), torch.rand(3)
        torch.manual_seed(3)
        backbone = Backbone(name, **arguments)
        assert torch.equal(after, torch.rand(3))
        assert list(expected) == list(backbone.network.state_dict())
        assert all(torch.equal(expected[k], v) for k, v in backbone.network.state_dict().items())
        assert backbone.training


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet19", {}, "resnet18"),
        ("torchvision/resnet19", {}, "torchvision/resnet18"),
        ("vit_tiny_patch16_224", {"stem": "cifar"}, "ResNets"),
        ("small_alexnet", {"stem": "cifar"}, "already"),
        ("resnet18", {"stem": "small"}, "standard or cifar"),
        ("resnet18", {"colour": 1}, "colour"),
        ("resnet18", {"layers": [1, 0, 0, 0]}, r"cannot build .resnet18. with model\.arguments .*layers"),
        ("resnet18", {"layers": [1, -1]}, r"model\.arguments\.layers needs 4 numbers, one for each stage: \[1, -1\]"),
        ("resnet18", {"channels": [8, 8, 8, -8]}, r"cannot build .resnet18. with model\.arguments .*-8"),
        ("resnet18", {"output_stride": 7}, "cannot build .resnet18. with .*AssertionError"),
        ("resnet18", {"drop_rate": 2}, "drop_rate must be at least 0 and less than 1, got 2"),
        ("resnet18", {"pretrained": True}, "pretrained is not an argument here: set weights to timm or a file"),
        ("resnet18.a1", {}, "unknown tag 'a1' of resnet18; it has a1_in1k"),
        ("resnet18", {"stem_width": 33}, r"resnet18: model\.arguments\.stem_width must be an even number .*, got 33"),
        ("small_alexnet", {"in_chans": 4}, "3 channels"),
        ("resnet18", {"global_pool": ""}, r"resnet18 .*returns \[N, 512, 7, 7\].*global_pool"),
        ("vit_tiny_patch16_224", {"global_pool": "", **VIT}, r"returns \[N, 17, 24\]"),
        ("resnet18", {"features_only": True}, "returns a list of 5"),
    ],
)
def test_impossible_backbones_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        Backbone(name, **options)


def test_the_cifar_stem_keeps_the_resolution_and_timms_names():
    standard, cifar = Backbone("resnet18"), Backbone("resnet18", stem="cifar")
    assert standard.network.state_dict().keys() == cifar.network.state_dict().keys()
    assert cifar.network.conv1(torch.randn(1, 3, 32, 32)).shape[-1] == 32
    assert [m.shape[-1] for m in cifar.maps(torch.randn(2, 3, 32, 32))] == [32, 32, 16, 8, 4]


@pytest.mark.parametrize("stem", ["standard", "cifar"])
def test_a_stem_of_one_convolution_has_the_width_that_is_asked_for(stem):
    """timm makes it 64 channels wide whatever `stem_width` is, and takes it for stems of three convolutions only."""
    settings = {"layers": [1, 1, 1, 1], "channels": [32, 48, 64, 80], "in_chans": 2}
    wide, narrow = (Backbone("resnet18", stem=stem, stem_width=width, **settings) for width in (64, 32))
    timms = Backbone("resnet18", stem=stem, **settings)
    shapes = [{name: value.shape for name, value in one.network.state_dict().items()} for one in (wide, timms)]
    assert shapes[0] == shapes[1]
    assert narrow.network.conv1.weight.shape == (32, 2, *timms.network.conv1.kernel_size)
    assert narrow.network.conv1.stride == timms.network.conv1.stride
    assert narrow.network.layer1[0].downsample is None  # 32 channels come in and go out
    assert [m.shape[1] for m in narrow.maps(torch.randn(2, 2, 32, 32))] == [32, 32, 48, 64, 80]
    assert narrow.network.conv1.weight.std().item() == pytest.approx(
        (2 / (32 * narrow.network.conv1.kernel_size[0] ** 2)) ** 0.5, rel=0.05
    )
    deep = Backbone("resnet18", stem_width=16, stem_type="deep", **settings)
    assert isinstance(deep.network.conv1, torch.nn.Sequential)


@pytest.fixture(params=["plain", "dynamic size", "registers", "no class token", "class token without position"])
def vit(request):
    options = {
        "plain": {},
        "dynamic size": {"dynamic_img_size": True},
        "registers": {"reg_tokens": 3},
        "no class token": {"class_token": False, "global_pool": "avg"},
        "class token without position": {"no_embed_class": True, "pre_norm": True},
    }
    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", **VIT, **options[request.param]).eval()


def test_keeping_all_patches_equals_the_plain_forward_pass(vit):
    images = torch.randn(3, 3, 32, 32)
    whole = vit.tokens(images)
    kept = vit.tokens(images, torch.arange(16).expand(3, -1))
    torch.testing.assert_close(kept, whole)
    assert whole.patches.shape == (3, 16, 24)
    assert torch.equal(torch.cat([whole.prefix, whole.patches], dim=1), vit.network.forward_features(images))


def test_kept_patches_equal_a_plain_loop(vit):
    images, net = torch.randn(3, 3, 32, 32), vit.network
    keep = torch.stack([torch.randperm(16)[:5] for _ in range(3)])
    tokens = vit.tokens(images, keep)
    prefix = net.num_prefix_tokens
    for image, chosen, patches, others in zip(images, keep, tokens.patches, tokens.prefix, strict=True):
        embedded = net._pos_embed(net.patch_embed(image[None]))[0]  # positions first: He et al., section 3.1
        x = torch.stack([*embedded[:prefix], *(embedded[prefix + int(c)] for c in chosen)])[None]
        x = net.norm_pre(x)
        for block in net.blocks:
            x = block(x)
        torch.testing.assert_close(torch.cat([others, patches]), net.norm(x)[0])


def test_masked_patches_equal_a_plain_loop(vit):
    images, net, token = torch.randn(3, 3, 32, 32), vit.network, torch.randn(24)
    masked = torch.rand(3, 16) < torch.tensor([[0.0], [0.5], [1.1]])
    tokens = vit.tokens(images, masked=masked, mask_token=token)
    for image, hidden, patches, others in zip(images, masked, tokens.patches, tokens.prefix, strict=True):
        embedded = net.patch_embed(image[None]).view(16, 24)
        x = torch.stack([token if hide else patch for hide, patch in zip(hidden, embedded, strict=True)])
        x = net._pos_embed(x.view(1, 4, 4, 24) if net.dynamic_img_size else x[None])
        x = net.norm_pre(x)
        for block in net.blocks:
            x = block(x)
        torch.testing.assert_close(torch.cat([others, patches]), net.norm(x)[0])
    keep = torch.stack([torch.randperm(16) for _ in range(3)])
    both = vit.tokens(images, keep, masked, token).patches
    torch.testing.assert_close(both, torch.stack([p[k] for p, k in zip(tokens.patches, keep, strict=True)]))


def test_a_mask_without_its_token_is_refused(vit):
    with pytest.raises(ValueError, match="masked and mask_token together"):
        vit.tokens(torch.randn(1, 3, 32, 32), masked=torch.ones(1, 16, dtype=torch.bool))


def test_patches_are_kept_at_another_size():
    torch.manual_seed(0)
    backbone = Backbone("vit_tiny_patch16_224", dynamic_img_size=True, **VIT).eval()
    images = torch.randn(2, 3, 48, 40)
    order = torch.stack([torch.randperm(30) for _ in range(2)])
    kept, whole = backbone.tokens(images, order).patches, backbone.tokens(images).patches
    torch.testing.assert_close(kept, torch.stack([w[o] for w, o in zip(whole, order, strict=True)]))


def test_hooks_of_the_network_run_for_tokens_and_maps(vit):
    """ZeRO 3 gathers weights in them, also those of the network itself, such as class and position tokens."""
    calls = []
    vit.network.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    images = torch.randn(1, 3, 32, 32)
    before = vit(images)
    vit.tokens(images), vit.tokens(images, torch.zeros(1, 2, dtype=torch.int64)), vit.maps(images)
    vit.tokens(images, masked=torch.ones(1, 16, dtype=torch.bool), mask_token=torch.zeros(24))
    assert calls == [vit.network] * 5
    assert torch.equal(vit(images), before)


def test_patch_size_and_grid():
    backbone = Backbone("vit_tiny_patch16_224", **VIT)
    assert (backbone.size, backbone.patch_size, backbone.grid) == (32, 8, (4, 4))
    resnet = Backbone("resnet10t")
    assert (resnet.patch_size, resnet.grid) == (None, None)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_tokens_of_a_network_of_maps_are_its_last_map_row_by_row(name):
    backbone = Backbone(name).eval()
    images = torch.randn(1, 3, backbone.size, backbone.size)
    with torch.no_grad():
        patches, prefix = backbone.tokens(images)
        features = backbone.network.forward_features(images)
    by_place = features if features.shape[-1] == backbone.width else features.permute(0, 2, 3, 1)
    assert prefix.shape == (1, 0, backbone.width)
    assert torch.equal(patches[0], torch.stack([column for row in by_place[0] for column in row]))


@pytest.mark.parametrize(
    ("name", "options", "keep", "words"),
    [
        ("resnet10t", {}, True, "resnet10t cannot process part"),
        ("torchvision/resnet18", {}, False, "has no tokens"),
        ("vit_tiny_patch16_224", {**VIT, "patch_drop_rate": 0.5}, True, "patch_drop_rate"),
        ("pit_ti_224", {}, False, "only its class token"),
    ],
)
def test_networks_without_such_tokens_are_refused(name, options, keep, words):
    backbone = Backbone(name, **options)
    images = torch.zeros(1, 3, backbone.size, backbone.size)
    with pytest.raises(ValueError, match=words):
        backbone.tokens(images, torch.zeros(1, 1, dtype=torch.int64) if keep else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patches", "prefix"),
    [
        ("volo_d1_224", 196, 1),
        ("cait_xxs24_224", 196, 1),
        ("deit_tiny_distilled_patch16_224", 196, 2),
        ("eva02_tiny_patch14_224", 256, 1),
        ("levit_128s", 16, 0),
        ("hiera_tiny_224", 49, 0),
        ("gmlp_ti16_224", 196, 0),
    ],
)
def test_class_and_distillation_tokens_are_separated_from_patches(name, patches, prefix):
    with torch.device("meta"):
        backbone = Backbone(name).eval()
        tokens = backbone.tokens(torch.zeros(2, 3, backbone.size, backbone.size))
    assert (tokens.patches.shape[1], tokens.prefix.shape[1]) == (patches, prefix)


def test_maps_equal_those_of_timm_and_are_refused_if_there_are_none():
    backbone = Backbone("resnet10t").eval()
    images = torch.randn(1, 3, 64, 64)
    assert [m.shape[-1] for m in backbone.maps(images)] == [32, 16, 8, 4, 2]
    assert torch.equal(backbone.maps(images)[-1], backbone.network.forward_features(images))
    with pytest.raises(ValueError, match="torchvision/resnet18 has no feature maps"):
        Backbone("torchvision/resnet18").maps(images)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("test_vit", {"img_size": "32"}, "img_size is the text '32': write the number without quotes"),
        ("test_vit", {"img_size": [32, "32"]}, "img_size is the text '32'"),
        ("test_vit", {"img_size": 32.0}, "img_size must be a whole number of at least 1, got 32.0"),
        ("test_vit", {"in_chans": True}, "in_chans must be a whole number"),
        ("test_vit", {"drop_path_rate": 1.5}, "drop_path_rate must be at least 0 and less than 1, got 1.5"),
        ("torchvision/alexnet", {"dropout": -0.1}, "dropout must be at least 0"),
        ("test_vit", {"act_layer": "geluu"}, "'geluu' is not one of the names"),
    ],
)
def test_values_that_would_fail_later_or_unclearly_are_refused(name, arguments, words):
    with pytest.raises(ValueError, match=words):
        Backbone(name, **arguments)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hf-hub:timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("ResNet18", "resnet18"),
        ("torchvision.models.resnet18", "torchvision/resnet18"),
        ("torchvision:resnet18", "torchvision/resnet18"),
        ("facebook/dinov2-small", "vit_small_patch14_dinov2, vit_small_patch14_reg4_dinov2"),
        ("vit_small", "vit_small_patch8_224"),
    ],
)
def test_names_of_other_programs_are_suggested_as_timms(name, meant):
    assert f"did you mean {meant}" in unknown_network(name)
