import pytest
import torch
from method_cases import batch, build
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from wildfern.ssl.losses.mask_contrast import mask_contrast
from wildfern.ssl.methods import METHODS
from wildfern.ssl.methods.pixel_samples import pixel_order
from wildfern.ssl.models import Backbone

STEPS = 10


def predictions(method, images):
    return method.decoder(method.backbone.maps(images), images.shape[-1])


def plain_parts(method, of):
    """The losses of a batch from their definitions, image by image."""
    images, masks, masked = of.views[0][0], of.masks[0][0], of.masked.tolist()
    logits = predictions(method, images)
    p, t = logits.sigmoid(), (masks > 0).double()
    product = predicted = wanted = 0.0
    entropies, confused, told = [], [], {True: [], False: []}
    for i, has_mask in enumerate(masked):
        if has_mask:
            product, predicted, wanted = product + (p[i] * t[i]).sum(), predicted + p[i].sum(), wanted + t[i].sum()
            each = -(t[i] * p[i].log() + 0.1 * (1 - t[i]) * (1 - p[i]).log())
            entropies.append(each.mean())
        judged = method.discriminator(p[i][None, None])
        label = torch.zeros_like(judged)
        if not has_mask:
            confused.append(binary_cross_entropy_with_logits(judged, label))
        told[has_mask].append(binary_cross_entropy_with_logits(judged, label if has_mask else label + 1))
    mean = {"source": sum(told[True]) / len(told[True]), "real": sum(told[False]) / len(told[False])}
    return {
        "dice_loss": 1 - (2 * product + 1e-5) / (predicted + wanted + 1e-5),
        "cross_entropy": sum(entropies) / len(entropies),
        "adversarial_loss": sum(confused) / len(confused),
        "discriminator_loss": mean["source"] + mean["real"],
        "contrast_loss": plain_contrast(method, of, logits),
    }


def plain_contrast(method, of, logits):
    """Pixels in order of their random numbers, image by image; negatives are the 30 lowest of each kind of image."""
    order = pixel_order(of, "contrast", 32, 32)
    near = method.near(method.decoder.features(method.backbone.maps(of.views[0][0]), 32))
    objects, ground = {True: [], False: []}, {True: [], False: []}
    for i, has_mask in enumerate(of.masked.tolist()):
        p, mask = logits[i].sigmoid().flatten(), of.masks[0][0][i].flatten()
        inside, outside = (mask > 0, mask == 0) if has_mask else (p > method.confident, p < 1 - method.confident)
        vectors = normalize(method.project(near[i].flatten(1).T), dim=1)
        for found, which, most in ((objects, inside, method.contrast_pixels), (ground, outside, method.negatives)):
            places = sorted(which.nonzero()[:, 0].tolist(), key=lambda place: order[i, place].item())
            count = min(most, -int(-(0.3 * len(places)) // 1)) if len(places) >= 5 else 0
            found[has_mask] += [(order[i, place].item(), vectors[place]) for place in places[:count]]
    queries, positives = ([v for _, v in objects[kind]] for kind in (True, False))
    pairs = min(len(queries), len(positives))
    negatives = [
        v for kind in (True, False) for _, v in sorted(ground[kind], key=lambda one: one[0])[: method.negatives]
    ]
    return mask_contrast(torch.stack(queries[:pairs]), torch.stack(positives[:pairs]), torch.stack(negatives), 0.1)


def test_the_loss_is_that_of_its_parts():
    method, of = build("freecos", STEPS).eval(), batch("freecos", 3)
    output, parts = method(of), plain_parts(method, of)
    for name, value in parts.items():
        torch.testing.assert_close(output.metrics[name], value, msg=lambda text, name=name: f"{name}: {text}")
    expected = parts["dice_loss"] + 0.1 * parts["cross_entropy"] + 0.25 * (1 - 3 / STEPS) * parts["adversarial_loss"]
    expected = expected + 0.125 * parts["discriminator_loss"] + 0.2 * parts["contrast_loss"]
    torch.testing.assert_close(output.loss, expected)


def test_the_discriminator_and_the_segmenter_learn_from_their_own_losses_alone():
    method, of = build("freecos", STEPS).eval(), batch("freecos", 0)
    method(of).loss.backward()
    own = {name: p.grad.clone() for name, p in method.named_parameters()}
    parts = plain_parts(method, of)
    segmenter = parts["dice_loss"] + 0.1 * parts["cross_entropy"] + 0.25 * parts["adversarial_loss"]
    segmenter = segmenter + 0.2 * parts["contrast_loss"]
    for loss, of_discriminator in ((segmenter, False), (0.125 * parts["discriminator_loss"], True)):
        method.zero_grad()
        loss.backward(retain_graph=True)
        for name, parameter in method.named_parameters():
            if name.startswith("discriminator.") == of_discriminator:
                torch.testing.assert_close(own[name], parameter.grad)


@pytest.mark.parametrize("kind", [True, False])
def test_a_batch_of_one_kind_of_images_has_a_finite_loss(kind):
    method, of = build("freecos", STEPS), batch("freecos", 0)
    of.masked[:] = kind
    if not kind:
        of.masks[0].zero_()
    output = method(of)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())
    unused = ("cross_entropy", "dice_loss") if not kind else ("adversarial_loss", "contrast_loss")
    assert all(output.metrics[name].item() == pytest.approx(0.0, abs=1e-9) for name in unused)


def test_the_alignment_fades_out():
    method, of = build("freecos", STEPS).eval(), batch("freecos", 0)
    weights = []
    for step in (0, 5, 10, 12):
        of.step = step
        output = method(of)
        rest = output.metrics["dice_loss"] + 0.1 * output.metrics["cross_entropy"]
        rest = rest + 0.125 * output.metrics["discriminator_loss"] + 0.2 * output.metrics["contrast_loss"]
        weights.append(((output.loss - rest) / output.metrics["adversarial_loss"]).item())
    assert weights == pytest.approx([0.25, 0.125, 0.0, 0.0], abs=1e-9)


def test_parts_that_are_off_have_no_parameters():
    backbone = Backbone("unet", widths=[4, 6])
    method = METHODS["freecos"](backbone, STEPS, adversarial=0.0, contrast=0.0)
    assert {name.partition(".")[0] for name, _ in method.named_parameters()} == {"backbone", "decoder"}
    assert len(method.parameter_groups()) == 1
    assert not method.needs.unmasked
    assert METHODS["freecos"](backbone, STEPS).needs.unmasked
    with pytest.raises(ValueError, match="nothing would learn the masks"):
        METHODS["freecos"](backbone, STEPS, dice=0.0, cross_entropy=0.0)
    with pytest.raises(ValueError, match="views of at least 32 px, got 16"):
        METHODS["freecos"](backbone, STEPS).needs.check_views([(1, 16)])
