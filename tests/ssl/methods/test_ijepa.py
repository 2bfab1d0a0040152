"""I-JEPA's blocks, and its loss against a plain loop over images and blocks."""

import pytest
import torch
from torch.nn import functional as F

from wildfern.ssl.methods import IJEPA, Batch
from wildfern.ssl.methods.multi_block_masks import block_sizes, draw_sizes, multi_block_draws, multi_block_masks
from wildfern.ssl.models import Backbone

VIT = {"img_size": 16, "patch_size": 2, "depth": 1, "embed_dim": 24, "num_heads": 2}
SCALES = ((0.15, 0.2), (0.75, 1.5), (0.85, 1.0))


def ijepa(**arguments):
    torch.manual_seed(0)
    predictor = {"predictor_width": 16, "predictor_depth": 2, "predictor_heads": 2}
    method = IJEPA(Backbone("vit_tiny_patch16_224", **VIT), 10, **predictor, **arguments).double()
    method.teacher.module.double()
    return method


@pytest.mark.parametrize("step", range(3))
def test_targets_are_blocks_and_the_context_is_outside_of_them(step):
    grid, n = (14, 14), 40
    sizes = draw_sizes(0, step, grid, 4, *SCALES)
    draws = torch.rand(n, multi_block_draws(grid, 4), generator=torch.Generator().manual_seed(step))
    context, targets = multi_block_masks(draws, grid, 4, sizes)
    height, width = sizes.target
    assert targets.shape == (n, 4, height * width)
    assert context.shape == (n, sizes.visible)
    for seen, blocks in zip(context.tolist(), targets.tolist(), strict=True):
        for block in blocks:
            top, left = divmod(block[0], 14)
            assert top + height <= 14
            assert left + width <= 14
            assert block == [14 * y + x for y in range(top, top + height) for x in range(left, left + width)]
        assert len(set(seen)) == sizes.visible
        assert not set(seen) & {patch for block in blocks for patch in block}
        rows, columns = {patch // 14 for patch in seen}, {patch % 14 for patch in seen}
        assert max(rows) - min(rows) < sizes.context[0]
        assert max(columns) - min(columns) < sizes.context[1]
    half = multi_block_masks(draws[n // 2 :], grid, 4, sizes)
    assert torch.equal(half.context, context[n // 2 :])
    assert torch.equal(half.targets, targets[n // 2 :])


def test_sizes_follow_the_scales_and_the_step():
    found = [draw_sizes(3, step, (14, 14), 4, *SCALES) for step in range(100)]
    assert len(set(found)) > 5
    assert found == [draw_sizes(3, step, (14, 14), 4, *SCALES) for step in range(100)]
    for sizes in found:
        (height, width), side = sizes.target, sizes.context
        assert 0.12 * 196 < height * width < 0.24 * 196
        assert 0.6 < height / width < 1.8
        assert side in ((13, 13), (14, 14))
    assert block_sizes((14, 14), 1, 0.15, 1.0, 1.0).visible == 196 - 25  # one block of 5 × 5 patches
    with pytest.raises(ValueError, match="4 target blocks of 4 × 4 patches often leave no context in a grid of 4 × 4"):
        block_sizes((4, 4), 4, 1.0, 1.0, 1.0)


def test_the_loss_equals_a_plain_loop_over_images_and_blocks():
    method = ijepa(targets=3)
    batch = Batch.from_views([torch.randn(2, 3, 3, 16, 16, dtype=torch.float64)], seed=7, step=4)
    output = method(batch)
    sizes = draw_sizes(7, 4, (8, 8), 3, *SCALES)
    uniform, predictor, errors = batch.uniform("ijepa blocks", 2, multi_block_draws((8, 8), 3)), method.predictor, []
    teacher = method.eval_backbone()
    assert teacher is not method.backbone
    for view in range(2):
        for image in range(3):
            x = batch.views[0][view, image][None]
            context, targets = multi_block_masks(uniform[image, view][None], (8, 8), 3, sizes)
            tokens = predictor.embed(method.backbone.tokens(x, context).patches[0]) + predictor.position[context[0]]
            wanted = F.layer_norm(teacher.network.forward_features(x)[0, 1:], (24,))
            for block in targets[0]:
                asked = predictor.mask_token + predictor.position[block]
                whole = predictor.norm(predictor.blocks(torch.cat([tokens, asked])[None]))[0, len(tokens) :]
                difference = (predictor.project(whole) - wanted[block]).abs()
                errors.append(torch.where(difference < 1, difference.square() / 2, difference - 0.5).mean())
    torch.testing.assert_close(output.loss, torch.stack(errors).mean(), rtol=1e-10, atol=0)
    torch.testing.assert_close(output.features, teacher.tokens(batch.views[0][0]).patches.mean(dim=1))
    assert not output.features.requires_grad


@torch.no_grad()
def test_the_teacher_moves_linearly_more_slowly():
    method = ijepa(momentum=0.5)
    student, teacher = (b.network.pos_embed for b in (method.backbone, method.eval_backbone()))
    for step, momentum in ((0, 0.5), (5, 0.75), (9, 0.95), (12, 0.95)):
        before = teacher.clone()
        student.data += 1
        method.after_step(step)
        torch.testing.assert_close(teacher, momentum * before + (1 - momentum) * student)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="predictor_width 16 must be a multiple of predictor_heads 3"):
        IJEPA(Backbone("vit_tiny_patch16_224", **VIT), 10, predictor_width=16, predictor_heads=3)
    with pytest.raises(ValueError, match=r"target_scale \[0.2, 0.1\] and context_scale \[1.0, 0.5\]: the first number"):
        ijepa(target_scale=(0.2, 0.1), context_scale=(1.0, 0.5))
    with pytest.raises(ValueError, match="often leave no context"):
        ijepa(target_scale=(0.8, 0.9))
