"""The linear probe of pixels, against layers on concatenated maps, the minimum of its loss, and counted reads."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masked_squares import PixelNetwork, Squares, masked, noisy_image, square_image, values

from wildfern.ssl.augmentation import LocalIntensityOrder
from wildfern.ssl.evaluation import (
    HeldOut,
    Preprocessing,
    SegmentationProbe,
    TransformedBackbone,
    evaluate_backbones,
)
from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.preprocessing import normalized
from wildfern.ssl.evaluation.protocols.segmentation_probe import PixelProbe, last_maps, measured, upsampled
from wildfern.ssl.evaluation.protocols.segmentation_training import segmentation_loss
from wildfern.ssl.models import Backbone

SHALLOW = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}


def network(name="resnet18", **options):
    torch.manual_seed(0)
    return Backbone(name, **(SHALLOW if name == "resnet18" else {}), **options).eval()


def training_of(backbone, images, **options):
    evaluator = SegmentationProbe(batch_size=8, **options)
    return evaluator.training(masked(images, backbone), images, 0)


@pytest.mark.parametrize("shape", [(3, 3), (5, 8), (16, 16)])
@pytest.mark.parametrize("side", [16, 17, 64])
def test_upsampling_is_bilinear_interpolation(shape, side):
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x[:, None], (side, side), mode="bilinear")[:, 0]
    torch.testing.assert_close(upsampled(x, side), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("vit_tiny_patch16_224", VIT)])
@pytest.mark.parametrize("layers", [1, 3])
def test_logits_are_a_linear_layer_on_upsampled_concatenated_maps(name, options, layers):
    backbone, generator = network(name, **options), torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    maps = backbone.maps(images)[-layers:]
    means, factors = ([torch.rand(one.shape[1], generator=generator) for one in maps] for _ in range(2))
    probe = PixelProbe(backbone, means, factors)
    assert torch.equal(probe.segment(images), torch.zeros(2, 32, 32))
    weights = [torch.randn(layer.weight.shape, generator=generator) for layer in probe.linear]
    with torch.no_grad():
        for layer, weight in zip(probe.linear, weights, strict=True):
            layer.weight.copy_(weight)
        probe.linear[0].bias.fill_(0.5)
    side = max(one.shape[-1] for one in maps)
    assert side == {"resnet18": 1 if layers == 1 else 4, "vit_tiny_patch16_224": 4}[name]
    standardized = [(x - m[:, None, None]) * f[:, None, None] for x, m, f in zip(maps, means, factors, strict=True)]
    whole = torch.cat([F.interpolate(one, (side, side), mode="bilinear") for one in standardized], dim=1)
    logits = F.conv2d(whole, torch.cat(weights, dim=1), torch.tensor([0.5]))
    expected = F.interpolate(logits, (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(probe.segment(images), expected, rtol=1e-4, atol=1e-4)
    assert sum(layer.bias is not None for layer in probe.linear) == 1


def test_channels_are_measured_on_windows_that_training_does_not_see():
    class Maps(PixelNetwork):
        def maps(self, x):
            self.seen.append(x)
            return [x, torch.cat([1e3 + x[:, :1], torch.full_like(x[:, :1], 0.1), 0 * x[:, :1]], 1)[:, :, ::2, ::2]]

    backbone = Maps()
    training = training_of(backbone, [noisy_image(item) for item in range(4)], steps=5)
    means, factors = measured(backbone, training, 2)
    windows = torch.cat([training.normalized(training.batch(step)) for step in range(5, 13)]).double()
    assert torch.equal(torch.cat(backbone.seen).double(), windows)
    assert len(windows) == 64
    red = windows[:, 0, ::2, ::2]
    torch.testing.assert_close(means[0].double(), windows.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(1 / factors[0].double(), windows.std((0, 2, 3), correction=0), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        means[1].double(), torch.stack([1e3 + red.mean(), red.new_tensor(0.1), red[0, 0, 0] * 0])
    )
    torch.testing.assert_close(1 / factors[1][0].double(), red.std(correction=0), rtol=1e-3, atol=0)
    assert factors[1][1:].tolist() == [0, 0]  # constant
    with pytest.raises(ValueError, match="maps of the backbone contain NaN or infinity"):
        SegmentationProbe()(masked([noisy_image(0)], nan_maps()), HeldOut(masked([noisy_image(1)])))


def nan_maps():
    backbone = PixelNetwork()
    backbone.maps = lambda x: [x * float("nan")]
    return backbone


def test_the_probe_reaches_the_minimum_of_its_loss():
    """Each window is the whole image, so that all steps have the same loss, whose minimum L-BFGS finds."""
    rng = np.random.default_rng(0)
    image = noisy_image(0, (16, 16))
    red = image.pixels[..., 0] + rng.normal(0, 60, (16, 16)) > 150
    image = MaskedImage(image.pixels, red, None, 0)
    train = masked([image])
    evaluator = SegmentationProbe(steps=800, batch_size=1, learning_rate=0.05, weight_decay=0.0)
    probe, _ = evaluator.fit(train, [image], 0, "")
    x = (torch.from_numpy(image.pixels).permute(2, 0, 1)[None].double() / 255 - 0.5) / 0.25
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True, correction=0)
    target = torch.from_numpy(image.mask)[None].double()
    weight, bias = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        logits = torch.einsum("nchw,c->nhw", x, weight) + bias
        found = segmentation_loss(logits, target, torch.ones_like(target))
        found.backward()
        return found

    optimizer.step(loss)
    (layer,) = probe.linear
    torch.testing.assert_close(layer.weight.flatten().double(), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.bias[0].double(), bias, rtol=1e-3, atol=1e-3)


def test_linearly_separable_pixels_are_segmented():
    """The mask is where red is brighter than green, at least by 20."""

    def image(item):
        pixels = noisy_image(item).pixels
        mask = pixels[..., 0] > pixels[..., 1].astype(int)
        pixels = pixels.clip(0, 235)
        pixels[..., 0] += 20 * mask.astype(np.uint8)
        return MaskedImage(pixels, mask, None, item)

    train, test = (masked([image(item) for item in items]) for items in (range(3), range(10, 14)))
    found = SegmentationProbe(steps=300, learning_rate=0.1)(train, HeldOut(test))
    assert values(found)["dice"] > 0.98
    assert values(found)["roc_auc"] > 0.999
    assert values(SegmentationProbe(steps=1)(train, HeldOut(test)))["dice"] < 0.98


class Watched(HeldOut):
    """Knows how many windows the network had seen when test was read."""

    def read(self):
        self.before = len(self.network.seen)
        return super().read()


def test_the_learning_rate_is_chosen_on_train_and_test_changes_nothing():
    images = [square_image(item) for item in range(6)]
    evaluator = SegmentationProbe(steps=40, batch_size=4, learning_rate=(0.3, 1e-7), holdout=0.3, shots=5)
    train = masked(images)
    test = Watched(masked([square_image(item) for item in range(20, 23)], train.backbone))
    test.network = train.backbone
    found = evaluator(train, test)
    assert "learning rate 0.3 chosen: Dice on 2 of 5 train images held out " in found[0].detail
    assert "% with 1e-07, " in found[0].detail
    # Windows of 16 px of three images of 20 × 24 px: one batch each, and no other pass after test was read.
    assert len(train.backbone.seen) == test.before + 3
    inverted = masked([image._replace(mask=~image.mask) for image in (square_image(20), square_image(21))])
    other = evaluator(masked(images), HeldOut(inverted))
    assert other[0].detail.partition("; threshold")[0] == found[0].detail.partition("; threshold")[0]

    single = SegmentationProbe(steps=40, batch_size=4, learning_rate=0.3, shots=5)  # trained on the same five images
    alone = single(masked(images), HeldOut(masked([square_image(item) for item in range(20, 23)])))
    assert values(alone) == values(found)


def test_choosing_needs_two_images():
    with pytest.raises(ValueError, match="learning_rate: give one, as of one train image"):
        SegmentationProbe(learning_rate=(0.1, 0.2), shots=1)
    with pytest.raises(ValueError, match="learning_rate: give one, as train has one image"):
        SegmentationProbe(learning_rate=(0.1, 0.2))(masked([square_image(0)]), HeldOut(masked([square_image(1)])))


def test_the_held_out_images_train_no_probe_that_is_judged(monkeypatch):
    images, fitted = [square_image(item) for item in range(6)], []
    evaluator = SegmentationProbe(steps=2, batch_size=4, learning_rate=(0.1, 0.2), holdout=0.5)
    whole = SegmentationProbe.training

    def training(self, train, images, seed):
        fitted.append([image.item for image in images])
        return whole(self, train, images, seed)

    judged = []
    segmented = SegmentationProbe.segmented

    def seen(self, probe, images, train):
        judged.append([image.item for image in images])
        return segmented(self, probe, images, train)

    monkeypatch.setattr(SegmentationProbe, "training", training)
    monkeypatch.setattr(SegmentationProbe, "segmented", seen)
    evaluator(masked(images), HeldOut(masked([square_image(9)])))
    assert fitted[1] == list(range(6))
    assert judged[0] == judged[1]  # of the two rates
    assert sorted(fitted[0] + judged[0]) == list(range(6))
    assert judged[2] == list(range(6))  # the threshold


def test_two_calls_are_equal_bit_for_bit_and_change_nothing():
    backbone = network().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    train, test = (masked([square_image(item) for item in items], backbone) for items in (range(4), range(10, 13)))
    evaluator = SegmentationProbe(layers=4, steps=5, shots=2, seeds=2, learning_rate=(1e-2, 1e-1))
    state = torch.random.get_rng_state()
    found = evaluator(train, HeldOut(test))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(9)
    again = evaluator(train, HeldOut(test))
    assert again == found
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.per_image, other.per_image)
        assert one.per_draw == other.per_draw
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    third = SegmentationProbe(layers=4, steps=5, shots=2, seeds=2, learning_rate=(1e-2, 1e-1), seed=7)
    assert values(third(train, HeldOut(test))) != values(found)


def test_windows_of_another_size_are_used_for_training_and_test():
    train, test = (masked([square_image(item)]) for item in (0, 1))
    SegmentationProbe(size=8, steps=2, batch_size=3, overlap=0)(train, HeldOut(test))
    assert {shape[1:] for shape in train.backbone.seen} == {(3, 8, 8)}


def test_images_of_any_number_of_channels_and_transforms_of_them():
    five = Preprocessing(16, "cpu", (0.5,) * 5, (0.25,) * 5)
    train, test = (
        masked([square_image(item, channels=5) for item in items], PixelNetwork((1.0,) * 5), five)
        for items in (range(3), range(10, 12))
    )
    assert values(SegmentationProbe(steps=100, learning_rate=0.1)(train, HeldOut(test)))["dice"] > 0.95
    plain = Preprocessing(16, "cpu", (0.0,) * 3, (1.0,) * 3)
    backbone = TransformedBackbone(LocalIntensityOrder(), network("unet", in_chans=4, widths=(4, 8)))
    train, test = (
        masked([square_image(item) for item in items], backbone, plain) for items in (range(3), range(10, 12))
    )
    found = SegmentationProbe(layers=2, steps=5)(train, HeldOut(test))
    assert found[0].n == 2
    x = normalized(torch.rand(1, 3, 16, 16), plain.mean, plain.std)
    expected = backbone.backbone.maps(LocalIntensityOrder()(x))
    for one, other in zip(last_maps(backbone, x, 2), expected, strict=True):
        assert torch.equal(one, other)


def test_a_diverged_probe_is_refused():
    train, test = (masked([square_image(item)]) for item in (0, 1))
    for rate in (1e6, (1e5, 1e6)):
        with pytest.raises(ValueError, match="the probe diverged"):
            SegmentationProbe(steps=5, learning_rate=rate, weight_decay=1e38)(
                masked([square_image(0), square_image(2)]), HeldOut(test)
            )
    assert len(train.backbone.seen) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layers": 0}, "layers is a number of maps of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate holds numbers above 0"),
        ({"learning_rate": ()}, "learning_rate holds numbers above 0"),
        ({"holdout": 0.6}, "holdout is a share of the drawn train images"),
    ],
)
def test_impossible_settings_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        SegmentationProbe(**given)


def test_networks_are_checked_before_images_are_read():
    with pytest.raises(ValueError, match="the last 6 maps are wanted, and this network has 5"):
        SegmentationProbe(layers=6).check_network(network(), 32)
    SegmentationProbe(layers=5).check_network(network(), 32)
    vit = network("vit_tiny_patch16_224", **VIT)
    SegmentationProbe().check_network(vit, 32)
    with pytest.raises(ValueError, match="cannot segment windows of 48 px"):
        SegmentationProbe(size=48).check_network(vit, 32)


def test_backbones_are_compared_on_the_same_draws():
    backbones = {"random": network(), "pretrained": network("unet", widths=(4, 8))}
    evaluators = {"probe": SegmentationProbe(layers=2, steps=20, shots=2, seeds=3)}
    settings = {"dataset": "squares", "preprocessing": Preprocessing(32, "cpu"), "evaluators": evaluators}
    result = evaluate_backbones(backbones, Squares(range(5)), Squares(range(10, 14)), **settings)
    rows = {(row["backbone"], row["metric"]): row for row in result.rows}
    assert rows["pretrained", "dice"]["difference_low"] is not None
    assert rows["random", "dice"]["difference_low"] is None
    assert "draws: " in rows["random", "dice"]["detail"]
    assert result.protocols["probe"] == evaluators["probe"].describe()
