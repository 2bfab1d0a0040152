"""SimMIM against a plain loop over images and pixels."""

import pytest
import torch

from wildfern.ssl.methods import Batch, SimMIM
from wildfern.ssl.methods.patch_masks import cell_masks
from wildfern.ssl.models import Backbone

VIT = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 2}


def test_the_loss_equals_a_plain_loop_over_images():
    torch.manual_seed(0)
    method = SimMIM(Backbone("vit_tiny_patch16_224", **VIT), 10, mask_ratio=0.5, mask_size=8).double()
    batch = Batch.from_views([torch.randn(2, 3, 3, 16, 16, dtype=torch.float64)], seed=7, step=4)
    output, vit, errors = method(batch), method.backbone.network, []
    uniform = batch.uniform("simmim mask", 2, 4)
    for view in range(2):
        for image in range(3):
            x = batch.views[0][view, image]
            hidden = cell_masks(uniform[image, view][None], (4, 4), 2, 0.5)[0]
            assert hidden.sum() == 8
            tokens = vit.patch_embed(x[None]).clone()
            tokens[0, hidden] = method.mask_token
            tokens = torch.cat([vit.cls_token, tokens], dim=1) + vit.pos_embed
            predicted = method.predict(vit.norm(vit.blocks(tokens))[0, 1:])
            for patch in hidden.nonzero().flatten().tolist():
                row, column = 4 * (patch // 4), 4 * (patch % 4)
                for place in range(48):
                    y, pixel, channel = place // 12, place // 3 % 4, place % 3
                    errors.append((predicted[patch, place] - x[channel, row + y, column + pixel]).abs())
    torch.testing.assert_close(output.loss, torch.stack(errors).mean(), rtol=1e-12, atol=0)
    assert output.features.shape == (3, 24)


def test_hidden_pixels_are_used_only_as_targets():
    torch.manual_seed(0)
    method = SimMIM(Backbone("vit_tiny_patch16_224", **VIT), 10, mask_size=4)
    one, other = (Batch.from_views([torch.randn(1, 1, 3, 16, 16)], seed=7) for _ in range(2))
    hidden = cell_masks(one.uniform("simmim mask", 16), (4, 4), 1, 0.6)
    by_pixel = hidden.view(1, 1, 1, 4, 1, 4, 1).expand(1, 1, 3, 4, 4, 4, 4).reshape(1, 1, 3, 16, 16)
    mixed = Batch.from_views([torch.where(by_pixel, other.views[0], one.views[0])], seed=7)
    assert torch.equal(method(one).features, method(mixed).features)
    assert method(one).loss != method(mixed).loss


def test_cells_that_do_not_fit_are_refused():
    backbone = Backbone("vit_tiny_patch16_224", **VIT)
    for size in (6, 32):
        with pytest.raises(
            ValueError, match=rf"mask_size {size} must be a multiple of .* 4 px and divide .* 16 × 16 px"
        ):
            SimMIM(backbone, 10, mask_size=size)
    averaged = Backbone("vit_tiny_patch16_224", **VIT, global_pool="avg")
    with pytest.raises(ValueError, match=r"set model.arguments.fc_norm to false"):
        SimMIM(averaged, 10, mask_size=8)
