"""Training of a backbone with a decoder: augmentation against loops, which weights change, and scores of single draws."""

import statistics

import numpy as np
import pytest
import torch
from masked_squares import PixelNetwork, Squares, masked, square_image, values
from torch import nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.augmentation import LocalIntensityOrder
from wildfern.ssl.evaluation import (
    HeldOut,
    Preprocessing,
    Segmentation,
    SegmentationFinetune,
    TransformedBackbone,
    evaluate_backbones,
)
from wildfern.ssl.evaluation.protocols.segmentation_finetune import WindowAugmentation
from wildfern.ssl.evaluation.protocols.segmentation_training import Windows
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.decoders import make_decoder
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
STILL = {"learning_rate": 1e-30, "weight_decay": 0.0}


def unet(seed=0, **options):
    torch.manual_seed(seed)
    backbone = Backbone("unet", widths=(4, 8), **options)
    for module in backbone.modules():  # as after training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return backbone.eval()


def segmenter(**options):
    backbone = unet(**options)
    settings = SegmentationSettings(16, (16, 16), threshold=0.4, chosen_on="rendered images")
    backbone.attach_decoder(make_decoder(backbone, "unet", 8).eval(), settings)
    return backbone


def splits(backbone, items=range(5), channels=3):
    plain = Preprocessing(16, "cpu", (0.5,) * channels, (0.25,) * channels)
    return [
        masked([square_image(item, channels=channels) for item in part], backbone, plain)
        for part in (items, range(20, 24))
    ]


def tuned(backbone=None, **options):
    """The trained network, and that which was given."""
    backbone = backbone or unet()
    train, _ = splits(backbone)
    options = {"steps": 4, "batch_size": 3, "decoder_width": 8, **options}
    return SegmentationFinetune(**options).fit(train, list(train), 0, "")[0], backbone


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    """The names of weights and statistics that are not as before."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def windows(n=24, size=5):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, size, size, generator=generator)
    return Windows(images, images[:, 0].clone(), images[:, 1].clone())


def test_windows_are_mirrored_and_turned_with_their_masks():
    given = windows()
    found = WindowAugmentation(brightness=0, contrast=0)(given, 3, 7)
    torch.testing.assert_close(found.images[:, 0], found.target, rtol=0, atol=0)
    torch.testing.assert_close(found.images[:, 1], found.inside, rtol=0, atol=0)
    draws = uniform(fold(np.uint64(key("segmentation augmentation", 3, 7)), np.arange(24)), 4)
    kinds = set()
    for image, before, (flip, turn, *_) in zip(found.images, given.images, draws, strict=True):
        expected = before.numpy()
        if flip < 0.5:
            expected = expected[:, :, ::-1]
        for _ in range(int(4 * turn)):
            expected = expected.swapaxes(1, 2)[:, ::-1]  # a quarter to the left: columns become rows, upside down
        np.testing.assert_array_equal(image.numpy(), expected)
        kinds.add((flip < 0.5, int(4 * turn)))
    assert len(kinds) == 8


def test_contrast_is_about_the_mean_of_each_channel_and_brightness_follows():
    given = windows()
    found = WindowAugmentation(flip=False, rotate=False, brightness=0.3, contrast=0.6)(given, 1, 2)
    draws = uniform(fold(np.uint64(key("segmentation augmentation", 1, 2)), np.arange(24)), 4)
    clipped = 0
    for image, before, (*_, bright, strong) in zip(found.images, given.images, draws, strict=True):
        pixels = before.double().numpy()
        mean = pixels.mean((1, 2), keepdims=True)
        changed = ((pixels - mean) * (0.4 + 1.2 * strong) + mean) * (0.7 + 0.6 * bright)
        np.testing.assert_allclose(image.numpy(), changed.clip(0, 1), rtol=0, atol=1e-6)
        clipped += (changed != changed.clip(0, 1)).sum()
    assert clipped > 10
    assert torch.equal(found.target, given.target)


def test_augmentation_is_the_same_for_any_split_of_a_batch_and_may_be_off():
    augment, given = WindowAugmentation(), windows()
    whole = augment(given, 0, 1)
    parts = [augment(Windows(*(layer[a:b] for layer in given)), 0, 1, a) for a, b in ((0, 5), (5, 6), (6, 24))]
    for layer, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(layer, torch.cat(pieces))
    assert not torch.equal(augment(given, 0, 2).images, whole.images)
    assert not torch.equal(augment(given, 1, 1).images, whole.images)
    off = WindowAugmentation(False, False, 0.0, 0.0)
    assert all(torch.equal(one, other) for one, other in zip(off(given, 0, 1), given, strict=True))
    assert off.describe() == "no augmentation"


def test_the_given_backbone_is_not_changed():
    for backbone in (unet().train(), segmenter(), unet().requires_grad_(False)):
        before, decoder, settings = state(backbone), backbone.decoder, backbone.segmentation
        modes = [module.training for module in backbone.modules()]
        needed = [parameter.requires_grad for parameter in backbone.parameters()]
        network, _ = tuned(backbone)
        assert changed(backbone, before) == set()
        assert (backbone.decoder, backbone.segmentation) == (decoder, settings)
        assert [module.training for module in backbone.modules()] == modes
        assert [parameter.requires_grad for parameter in backbone.parameters()] == needed
        weights = {name for name, _ in network.network.named_parameters()}
        assert weights <= changed(network.network, state(backbone.network))


def test_the_decoder_of_a_run_is_the_start_unless_a_new_one_is_wanted():
    backbone = segmenter()
    train, test = splits(backbone)
    evaluator = SegmentationFinetune(steps=1, batch_size=2, freeze_batch_norm=True, **STILL)
    found = values(evaluator(train, HeldOut(test)))
    own = values(Segmentation()(train, HeldOut(test)))
    del found["dice_validation_threshold"], own["dice_validation_threshold"]  # at other thresholds
    assert found == own
    new = SegmentationFinetune(steps=1, batch_size=2, freeze_batch_norm=True, keep_decoder=False, **STILL)
    scores = new(train, HeldOut(test))
    assert values(scores)["average_precision"] != own["average_precision"]
    assert scores[0].detail.startswith("new decoder unet; mean train loss")
    assert evaluator(train, HeldOut(test))[0].detail.startswith("mean train loss")


def test_only_the_decoder_is_trained_on_a_frozen_backbone():
    network, backbone = tuned(freeze=True)
    assert changed(network.network, state(backbone.network)) == set()
    torch.manual_seed(key("segmentation finetune", 0) >> 1)
    start = state(make_decoder(backbone, "unet", 8))
    assert set(start) == changed(network.decoder, start)
    network, backbone = tuned(segmenter(), freeze=True)
    assert set(state(backbone.decoder)) == changed(network.decoder, state(backbone.decoder))


def test_frozen_statistics_are_those_of_the_backbone_and_of_a_kept_decoder():
    statistics_of = {"running_mean", "running_var", "num_batches_tracked"}

    def kinds(names):
        return {name.rpartition(".")[2] for name in names} & statistics_of

    network, backbone = tuned(segmenter(), freeze_batch_norm=True)
    for part in ("network", "decoder"):
        found = changed(getattr(network, part), state(getattr(backbone, part)))
        assert kinds(found) == set()
        assert found == {name for name, _ in getattr(network, part).named_parameters()}
    network, backbone = tuned(freeze_batch_norm=True)
    assert kinds(changed(network.network, state(backbone.network))) == set()
    torch.manual_seed(key("segmentation finetune", 0) >> 1)
    assert kinds(changed(network.decoder, state(make_decoder(backbone, "unet", 8)))) == statistics_of
    network, backbone = tuned(segmenter())
    assert kinds(changed(network.network, state(backbone.network))) == statistics_of
    assert kinds(changed(network.decoder, state(backbone.decoder))) == statistics_of


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "learning_rate": 0.1}, {"decoder": "fpn"}])
def test_bright_squares_are_learned(options):
    train, test = splits(unet())
    options = {"steps": 150, "batch_size": 4, "decoder_width": 8, "learning_rate": 0.01, **options}
    found = SegmentationFinetune(brightness=0, contrast=0, **options)(train, HeldOut(test))
    assert values(found)["dice"] > 0.9
    assert values(found)["dice_validation_threshold"] > 0.9


def test_weight_decay_is_for_kernels_only():
    network, backbone = unet(), unet()
    groups = SegmentationFinetune(weight_decay=0.3)._optimizer(network).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
    assert decayed == {id(p) for p in network.parameters() if p.ndim == 4}
    assert sum(len(group["params"]) for group in groups) == len([*backbone.parameters()])


def test_scores_of_several_draws_are_those_of_each():
    train, test = splits(unet())
    options = {"steps": 3, "batch_size": 3, "decoder_width": 8, "shots": 2}
    found = SegmentationFinetune(seeds=3, seed=1, **options)(train, HeldOut(test))
    alone = [SegmentationFinetune(seed=seed, **options)(train, HeldOut(test)) for seed in (1, 2, 3)]
    for score, each in zip(found, zip(*alone, strict=True), strict=True):
        assert score.per_draw == tuple(one.value for one in each)
        assert score.value == pytest.approx(statistics.fmean(score.per_draw))
        assert score.n == 4
    assert found[0].metric == "dice"
    assert len(set(found[0].per_draw)) == 3


def test_two_calls_are_equal_bit_for_bit_and_leave_random_numbers_alone():
    torch.manual_seed(0)
    dropping = Backbone("vit_tiny_patch16_224", proj_drop_rate=0.5, drop_path_rate=0.5, **VIT)
    for backbone in (unet(), dropping):
        train, test = splits(backbone)
        evaluator = SegmentationFinetune(steps=3, batch_size=3, decoder_width=8, shots=2)
        before = torch.random.get_rng_state()
        found = evaluator(train, HeldOut(test))
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(77)
        again = evaluator(train, HeldOut(test))
        assert again == found
        for one, other in zip(found, again, strict=True):
            np.testing.assert_array_equal(one.per_image, other.per_image)


def test_images_of_other_channels_and_backbones_behind_a_transform():
    train, test = splits(unet(in_chans=5), channels=5)
    options = {"steps": 150, "batch_size": 4, "decoder_width": 8, "learning_rate": 0.01}
    found = SegmentationFinetune(brightness=0, contrast=0, **options)(train, HeldOut(test))
    assert values(found)["dice"] > 0.9
    backbone = TransformedBackbone(LocalIntensityOrder(), segmenter(in_chans=4))
    plain = Preprocessing(16, "cpu", (0.0,) * 3, (1.0,) * 3)
    train, test = (masked(list(split), backbone, plain) for split in splits(backbone))
    before = state(backbone)
    found = values(SegmentationFinetune(steps=1, freeze_batch_norm=True, **STILL)(train, HeldOut(test)))
    own = values(Segmentation()(train, HeldOut(test)))
    assert found["dice"] == own["dice"]
    network, _ = SegmentationFinetune(steps=2).fit(train, list(train), 0, "")
    assert changed(backbone, before) == set()
    assert {name for name, _ in network.named_parameters()} <= changed(network, before)


def test_a_batch_of_one_needs_more_than_one_position():
    torch.manual_seed(0)
    backbone = Backbone("resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    options = {"batch_size": 1, "steps": 1, "decoder_width": 8}
    with pytest.raises(ValueError, match="batch_size: 1 is too small to train this network"):
        tuned(backbone, **options)
    network, _ = tuned(backbone, freeze_batch_norm=True, freeze=True, decoder="fpn", **options)
    assert network.decoder is not None


def test_a_diverged_training_is_refused():
    train, test = splits(unet())
    with pytest.raises(ValueError, match=r"fine-tuning diverged: .*; lower learning_rate"):
        SegmentationFinetune(steps=3, optimizer="sgd", learning_rate=1e30)(train, HeldOut(test))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"decoder": "mlp"}, "decoder is one of unet, fpn, got 'mlp'"),
        ({"decoder_width": 0}, "decoder_width is a number of channels"),
        ({"optimizer": "lars"}, "optimizer is adamw or sgd"),
        ({"learning_rate": 0.0}, "learning_rate is a number above 0"),
        ({"brightness": 1.0}, "brightness x draws factors"),
        ({"contrast": -0.1}, "contrast x draws factors"),
    ],
)
def test_impossible_settings_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        SegmentationFinetune(**given)


def test_networks_are_checked_before_images_are_read():
    with pytest.raises(ValueError, match="a decoder needs a Backbone to be attached to, got PixelNetwork"):
        SegmentationFinetune().check_network(PixelNetwork(), 16)
    with pytest.raises(ValueError, match="small_alexnet has no feature maps"):
        SegmentationFinetune().check_network(Backbone("small_alexnet"), 32)
    vit = Backbone("vit_tiny_patch16_224", **VIT)
    SegmentationFinetune().check_network(vit, 16)
    with pytest.raises(ValueError, match="cannot segment windows of 20 px"):
        SegmentationFinetune(size=20).check_network(vit, 16)
    SegmentationFinetune().check_network(TransformedBackbone(LocalIntensityOrder(), unet(in_chans=4)), 16)


def test_runs_and_random_networks_are_compared_on_the_same_draws():
    backbones = {"random": segmenter(seed=1), "pretrained": segmenter(seed=0)}
    evaluators = {"few": SegmentationFinetune(steps=3, batch_size=2, shots=1, seeds=3), "own": Segmentation()}
    settings = {"dataset": "squares", "preprocessing": Preprocessing(16, "cpu"), "evaluators": evaluators}
    result = evaluate_backbones(backbones, Squares(range(5)), Squares(range(10, 13)), **settings)
    rows = {(row["protocol"], row["backbone"], row["metric"]): row for row in result.rows}
    assert rows["few", "pretrained", "dice"]["difference_low"] is not None
    assert rows["few", "pretrained", "dice"]["n"] == 3
    assert {row["backbone"] for row in result.main_rows()} == {"random", "pretrained"}
    assert result.protocols["few"].startswith("backbone and decoder trained, decoder unet (that of a run")
