import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wildfern.ssl.models import Backbone, FPNDecoder, UNetDecoder, UNetEncoder, make_decoder
from wildfern.ssl.models.decoders import measure_maps
from wildfern.ssl.models.discriminator import Discriminator

NETWORKS = {
    "unet": ("unet", {"in_chans": 4, "widths": [4, 6, 8]}, 32),
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 64),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, 64),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 6, "embed_dim": 24, "num_heads": 2}, 32),
}


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_logit_for_each_pixel(name, decoder):
    network, arguments, size = NETWORKS[name]
    backbone = Backbone(network, **arguments).eval()
    made = make_decoder(backbone, decoder, 16).eval()
    images = torch.randn(2, backbone.in_chans, size, size)
    maps = backbone.maps(images)
    logits = made(maps, size)
    assert logits.shape == (2, size, size)
    assert made.features(maps, size).shape == (2, made.features_width, size, size)
    assert all(p.grad is not None for p in made.parameters() if logits.sum().backward(retain_graph=True) is None)


def test_measured_maps_are_those_of_a_forward_pass():
    for network, arguments, size in NETWORKS.values():
        backbone = Backbone(network, **arguments).eval()
        found = backbone.maps(torch.zeros(1, backbone.in_chans, backbone.size, backbone.size))
        assert measure_maps(backbone) == [(one.shape[1], one.shape[-1]) for one in found]
        assert size


def test_maps_of_one_size_are_taken_evenly_and_others_by_their_last():
    maps = [(24, 4)] * 12
    assert UNetDecoder(maps, 32).levels == [[2, 5, 8, 11]]
    assert UNetDecoder([(8, 16), (8, 8), (16, 8), (16, 4)], 16).levels == [[0], [2], [3]]


def test_the_u_net_decoder_is_the_published_one():
    """Upsample to the nearest pixel, convolve, concatenate the skipped map first, convolve twice (Shi et al.'s U-Net)."""
    torch.manual_seed(0)
    encoder = UNetEncoder(in_chans=1, widths=[3, 4, 5]).eval()
    decoder = UNetDecoder([(3, 8), (4, 4), (5, 2)], 8).eval()
    maps = encoder.forward_intermediates(torch.randn(2, 1, 8, 8))

    def convolved(x, layers):
        for layer in layers:
            x = layer(x)
        return x

    x = maps[2]
    for up, join, skip in zip(decoder.ups, decoder.joins, (maps[1], maps[0]), strict=True):
        larger = convolved(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), up)
        x = convolved(torch.cat([skip, larger], dim=1), join)
    expected = F.conv2d(x, decoder.classify.weight, decoder.classify.bias)[:, 0]
    torch.testing.assert_close(decoder(maps, 8), expected)


def test_the_feature_pyramid_adds_projected_maps():
    torch.manual_seed(0)
    decoder = FPNDecoder([(3, 8), (4, 4)], 8, width=6).eval()
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)]
    top = decoder.lateral[1](maps[1]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = decoder.classify(decoder.smooth(decoder.lateral[0](maps[0]) + top))[:, 0]
    torch.testing.assert_close(decoder(maps, 8), expected)


def test_the_encoder_pools_between_levels():
    torch.manual_seed(0)
    encoder = UNetEncoder(in_chans=2, widths=[3, 5]).eval()
    x = torch.randn(2, 2, 8, 8)
    first = encoder.levels[0](x)
    second = encoder.levels[1](F.max_pool2d(first, 2))
    assert [torch.equal(a, b) for a, b in zip(encoder.forward_intermediates(x), (first, second), strict=True)] == [
        True,
        True,
    ]
    torch.testing.assert_close(encoder(x), second.mean(dim=(2, 3)))
    assert sum(isinstance(m, nn.Conv2d) for m in encoder.modules()) == 4
    for wrong in ([8], [8, 0], [8, 2.0]):
        with pytest.raises(ValueError, match="at least two whole numbers"):
            UNetEncoder(widths=wrong)


def test_networks_without_maps_are_refused():
    with pytest.raises(ValueError, match="has no feature maps"):
        make_decoder(Backbone("small_alexnet"))
    with pytest.raises(ValueError, match="has no decoder"):
        Backbone("unet", widths=[4, 8]).segment(torch.zeros(1, 3, 32, 32))


def test_a_frozen_discriminator_passes_the_gradient_to_its_input_alone():
    torch.manual_seed(0)
    discriminator = Discriminator(4)
    x = torch.rand(2, 1, 64, 64, requires_grad=True)
    discriminator(x, frozen=True).sum().backward()
    assert all(p.grad is None for p in discriminator.parameters())
    frozen, x.grad = x.grad, None
    discriminator(x).sum().backward()
    assert torch.equal(x.grad, frozen)
    assert all(p.grad is not None for p in discriminator.parameters())
    assert discriminator(x).shape == (2, 1, 2, 2)
