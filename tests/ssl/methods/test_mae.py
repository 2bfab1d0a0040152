"""MAE against a plain loop over images and patches, and its random masks."""

import pytest
import torch

from wildfern.ssl.methods import MAE, Batch
from wildfern.ssl.methods.patches import patchify
from wildfern.ssl.models import Backbone

VIT = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 2}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def mae(**arguments):
    torch.manual_seed(0)
    return MAE(Backbone("vit_tiny_patch16_224", **VIT), 10, **DECODER, **arguments).double()


def batch(views=2, n=3, step=4):
    torch.manual_seed(1)
    return Batch.from_views([torch.randn(views, n, 3, 16, 16, dtype=torch.float64)], seed=7, step=step)


def test_patches_are_the_pixels_row_by_row():
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float64).view(2, 3, 8, 12)
    patches = patchify(images, 4)
    for n in range(2):
        for row in range(2):
            for column in range(3):
                pixels = [images[n, :, 4 * row + y, 4 * column + x].tolist() for y in range(4) for x in range(4)]
                assert patches[n, 3 * row + column].tolist() == [value for pixel in pixels for value in pixel]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_equals_a_plain_loop_over_images(normalize):
    method, given = mae(normalize_pixels=normalize, mask_ratio=0.6), batch()
    loss = method(given).loss
    vit, errors = method.backbone.network, []
    noise = given.uniform("mae mask", 2, 16)
    for view in range(2):
        for image in range(3):
            x = given.views[0][view, image][None]
            order = noise[image, view].argsort().tolist()
            keep, hidden = order[:6], order[6:]
            tokens = vit.patch_embed(x) + vit.pos_embed[:, 1:]
            tokens = torch.cat([vit.cls_token + vit.pos_embed[:, :1], tokens[:, keep]], dim=1)
            tokens = method.embed(vit.norm(vit.blocks(tokens))[:, 1:])
            whole = method.mask_token.repeat(16, 1)
            whole[keep] = tokens[0]
            whole = (whole + method.position)[None]
            prediction = method.predict(method.blocks(whole))[0]
            target = patchify(x, 4)[0]
            for patch in hidden:
                pixels = target[patch]
                if normalize:
                    pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
                errors.append((prediction[patch] - pixels.float()).square().mean())
    torch.testing.assert_close(loss.double(), torch.stack(errors).mean(), rtol=1e-5, atol=0)


def test_hidden_patches_do_not_depend_on_the_rank():
    method, whole = mae(), batch(n=4)
    halves = [
        Batch.from_views([whole.views[0][:, part]], seed=7, step=4, positions=torch.arange(4)[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(method(whole).loss, torch.stack([method(half).loss for half in halves]).mean())
    later = Batch.from_views(whole.views, seed=7, step=5)
    assert not torch.equal(whole.uniform("mae mask", 2, 16), later.uniform("mae mask", 2, 16))


def test_hidden_pixels_are_used_only_as_targets():
    method, given = mae(normalize_pixels=False), batch(views=1)
    given.views[0].requires_grad_(True)
    features = method.backbone.tokens(
        given.views[0][0], given.uniform("mae mask", 1, 16)[:, 0].argsort()[:, :4]
    ).patches
    features.sum().backward()
    touched = patchify(given.views[0].grad[0], 4).abs().sum(-1) > 0
    assert touched.sum(dim=1).tolist() == [4, 4, 4]
    output = method(given)
    assert output.features.shape == (3, 24)
    assert not output.features.requires_grad


def test_invalid_arguments_and_views_are_refused():
    with pytest.raises(ValueError, match=r"needs a vision transformer.*resnet10t"):
        MAE(Backbone("resnet10t"), 10)
    with pytest.raises(ValueError, match="one size"):
        mae()(Batch.from_views([torch.zeros(1, 2, 3, 16, 16).double(), torch.zeros(1, 2, 3, 8, 8).double()]))
    with pytest.raises(ValueError, match="decoder_width 16 must be a multiple of decoder_heads 3"):
        MAE(Backbone("vit_tiny_patch16_224", **VIT), 10, decoder_width=16, decoder_heads=3)
    with pytest.raises(ValueError, match=r"views.size must be a multiple of 4, got 18"):
        mae()(Batch.from_views([torch.zeros(1, 2, 3, 18, 18).double()]))
    with pytest.raises(ValueError, match="the backbone has one patch"):
        MAE(Backbone("vit_tiny_patch16_224", **{**VIT, "img_size": 4}), 10)


def test_one_patch_is_hidden_and_one_is_seen_at_least():
    for ratio in (1e-6, 1 - 1e-6):
        output = mae(mask_ratio=ratio)(batch(3))
        assert torch.isfinite(output.loss)
