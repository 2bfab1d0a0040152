"""Draws of train images, windows of the networks, and scores over draws."""

import statistics

import numpy as np
import pytest
import torch
from masked_squares import PLAIN, PixelNetwork, masked, noisy_image, square_image, values
from scipy import stats
from torch import nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.augmentation import LocalIntensityOrder
from wildfern.ssl.evaluation import HeldOut, Preprocessing, Score, SegmentationProbe, TransformedBackbone
from wildfern.ssl.evaluation.protocols import trained_segmentation
from wildfern.ssl.evaluation.protocols.trained_segmentation import (
    TrainedSegmentation,
    drawn_images,
    in_memory,
    maps_of_window,
    over_draws,
    window_settings,
)
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}


def test_a_draw_has_so_many_different_images_which_are_the_first_by_a_draw_of_their_numbers():
    images, passes = [noisy_image(item, (3, 3)) for item in range(9)], []
    images.pop(4)  # an image that could not be read

    def read():
        passes.append(1)
        yield from images

    draws = drawn_images(read(), 3, [5, 6, 7])
    assert len(passes) == 1
    for seed, drawn in zip([5, 6, 7], draws, strict=True):
        order = sorted(
            images, key=lambda image: uniform(fold(np.uint64(key("segmentation shots", seed)), image.item), 1)[0, 0]
        )
        assert [image.item for image in drawn] == sorted(image.item for image in order[:3])
        assert len({image.item for image in drawn}) == 3
        more = drawn_images(read(), 5, [seed])[0]
        assert {image.item for image in drawn} < {image.item for image in more}
    assert len({tuple(image.item for image in drawn) for drawn in draws}) > 1
    for shots in (None, 8, 20):
        assert [[image.item for image in drawn] for drawn in drawn_images(read(), shots, [0, 1])] == [
            [0, 1, 2, 3, 5, 6, 7, 8]
        ] * 2


def test_no_images_and_too_many_are_refused(monkeypatch):
    for shots in (None, 2):
        with pytest.raises(ValueError, match="the train split has no images with masks"):
            drawn_images([], shots, [0])
    images = [noisy_image(item, (10, 10), region=True) for item in range(3)]
    monkeypatch.setattr(trained_segmentation, "MOST_BYTES", 3 * 500)  # each has 3 + 1 + 1 bytes for a pixel
    assert in_memory(images) == images
    monkeypatch.setattr(trained_segmentation, "MOST_BYTES", 3 * 500 - 1)
    with pytest.raises(ValueError, match="set shots for train"):
        drawn_images(images, None, [0])
    assert len(drawn_images(images, 2, [0])[0]) == 2


@pytest.mark.parametrize(
    "trained",
    [
        SegmentationSettings(96, (48, 96), threshold=0.4, chosen_on="x"),
        SegmentationSettings(96, None, (0.1, 0.3)),
    ],
)
@pytest.mark.parametrize("size", [96, 64, 200])
def test_the_scale_of_a_run_is_that_of_its_training_for_windows_of_any_size(trained, size):
    network = PixelNetwork(settings=trained)
    for backbone in (network, TransformedBackbone(nn.Identity(), network)):
        found = window_settings(backbone, size, None)
        assert found.size == size
        assert found.threshold is None
        for shape in [(300, 400), (565, 584)]:
            assert found.scale(*shape) == pytest.approx(trained.scale(*shape))
        assert window_settings(backbone, size, 0.7).scale(300, 400) == pytest.approx(0.7)


def test_images_of_other_networks_are_not_resized():
    assert window_settings(Backbone("resnet18"), 33, None).scale(20, 30) == 1
    assert window_settings(Backbone("resnet18"), 33, 1.5).scale(20, 30) == 1.5


def test_networks_without_maps_or_with_images_of_another_size_are_refused():
    assert [one.shape[-1] for one in maps_of_window(Backbone("resnet18"), 64)] == [32, 16, 8, 4, 2]
    vit = Backbone("vit_tiny_patch16_224", **VIT)
    assert len(maps_of_window(vit, 32)) == 3
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 cannot segment windows of 40 px: .*; set size"):
        maps_of_window(vit, 40)
    with pytest.raises(ValueError, match="Linear has no method maps"):
        maps_of_window(nn.Linear(2, 2), 8)
    with pytest.raises(ValueError, match="small_alexnet has no feature maps"):
        maps_of_window(Backbone("small_alexnet"), 32)
    with pytest.raises(ValueError, match="no method maps"):
        maps_of_window(TransformedBackbone(nn.Identity(), nn.Linear(2, 2)), 8)


def test_networks_of_other_channels_are_tried_with_their_images():
    unet = Backbone("unet", in_chans=4, widths=(4, 8))
    assert [tuple(one.shape) for one in maps_of_window(unet, 16)] == [(1, 4, 16, 16), (1, 8, 8, 8)]
    behind = TransformedBackbone(LocalIntensityOrder(), unet).train()
    assert [one.shape[1] for one in maps_of_window(behind, 16)] == [4, 8]
    assert behind.training
    assert unet.training


def test_means_over_draws_have_the_interval_of_scipy():
    def scores(dice, error):
        each = np.full(4, dice, np.float32)
        return [
            Score("dice", dice, 0.1, 0.9, 4, "one", per_image=each),
            Score("component_error", error, None, None, 4, "two", share=False, per_image=10 * each),
            Score("dice_validation_threshold", dice, None, None, 4, per_image=each),
            Score("dice_oracle_threshold", dice, None, None, 4, per_image=each),
        ]

    dices, errors = [0.6, 0.7, 0.65], [3.0, 8.0, 1.0]
    draws = [scores(*pair) for pair in zip(dices, errors, strict=True)]
    found = over_draws(draws, [0.25, 0.5, 0.75], "field_of_view")
    for score, given in zip(found, [dices, errors, dices, dices], strict=True):
        assert score.value == pytest.approx(statistics.fmean(given))
        interval = stats.t.interval(0.95, 2, loc=statistics.fmean(given), scale=stats.sem(given))
        assert (score.low, score.high) == pytest.approx((max(0, interval[0]), interval[1]))
        assert score.per_draw == tuple(given)
        assert score.n == 4
    assert found[1].high > 1  # not a share
    assert [score.share for score in found] == [True, False, True, True]
    assert found[1].per_image == pytest.approx(np.full(4, 6.5))
    assert found[0].detail.startswith(
        "threshold 0.5; inside the field of view; draws: 60.0, 70.0, 65.0 %; 95 % intervals"
    )
    assert found[2].detail.startswith("thresholds 0.25, 0.50, 0.75, chosen on the train images of each draw; inside")
    extreme = over_draws([scores(0.0, 1), scores(1.0, 1)], [0.5, 0.5], "all", same_images=True)
    assert (extreme[0].low, extreme[0].high) == (0, 1)
    assert (extreme[1].low, extreme[1].high) == (None, None)  # of equal values
    assert "all draws are all of train" in extreme[0].detail


class Fixed(TrainedSegmentation):
    """Fits nothing: the seed decides the weight of the first channel."""

    def fit(self, train, images, seed, what):
        self.fitted = [*getattr(self, "fitted", []), [image.item for image in images]]
        return PixelNetwork((1.0 + seed, 0.0, 0.0)), f"fitted {seed}"


def evaluator(shots=None, seeds=1, **options):
    settings = {"size": None, "scale": None, "region": "field_of_view", "overlap": 0.5, "seed": 0, **options}
    return Fixed(1, 1, 0.0, shots, seeds, **settings)


def splits(train_items=6, test_items=5):
    """Train, and test which fails the test if it is read before all draws are fitted."""
    return [
        masked([noisy_image(item) for item in range(first, first + n)])
        for first, n in ((0, train_items), (20, test_items))
    ]


def test_scores_over_draws_are_means_of_those_of_each_seed():
    train, test = splits()
    found = evaluator(shots=2, seeds=3, seed=4)(train, HeldOut(test))
    alone = [evaluator(shots=2, seed=seed)(train, HeldOut(test)) for seed in (4, 5, 6)]
    for score, each in zip(found, zip(*alone, strict=True), strict=True):
        assert score.metric == each[0].metric
        assert score.per_draw == tuple(one.value for one in each)
        assert score.value == pytest.approx(statistics.fmean(score.per_draw))
    assert alone[0][0].detail.startswith("fitted 4; threshold 0.5; inside the field of view; 95 % interval from 1000")
    assert "chosen on 2 train images" in next(s.detail for s in alone[0] if s.metric == "dice_validation_threshold")


def test_the_threshold_is_the_best_on_the_drawn_train_images():
    train, test = splits()
    one = evaluator(shots=2)
    found = one(train, HeldOut(test))
    drawn = [image for image in train if image.item in one.fitted[0]]
    probability = [1 / (1 + np.exp(-(image.pixels[..., 0] / 255 - 0.5) / 0.25)) for image in drawn]

    def dice(threshold):
        each = []
        for p, image in zip(probability, drawn, strict=True):
            predicted = p >= threshold
            each.append(2 * (predicted & image.mask).sum() / (predicted.sum() + image.mask.sum()))
        return np.mean(each)

    best = max(np.arange(1, 100) / 100, key=dice)
    detail = next(score.detail for score in found if score.metric == "dice_validation_threshold")
    assert detail.startswith(f"threshold {best:.2f}, chosen on 2 train images; ")


def test_each_split_is_read_once_and_test_after_all_draws_are_fitted():
    train, test = splits()
    reads = []
    one = evaluator(shots=2, seeds=2)

    def watched(name, images):
        def read():
            reads.append((name, len(getattr(one, "fitted", []))))
            yield from images

        return type(train)(read, len(images), train.backbone, PLAIN)

    one(watched("train", list(train)), HeldOut(watched("test", list(test))))
    assert reads == [("train", 0), ("test", 2)]


def test_too_few_train_images_and_equal_draws_are_told():
    train, test = splits(train_items=2)
    assert "; train has only 2 images; threshold" in evaluator(shots=3)(train, HeldOut(test))[0].detail
    over = evaluator(shots=3, seeds=2)(train, HeldOut(test))[0].detail
    assert over.startswith("train has only 2 images; threshold 0.5")
    assert "all draws are all of train, with other windows" in over
    assert "all of train" not in evaluator(shots=1, seeds=2)(train, HeldOut(test))[0].detail


def test_windows_need_a_size_and_train_and_test_images():
    train, test = splits()
    unsized = Preprocessing(None, "cpu", PLAIN.mean, PLAIN.std)
    with pytest.raises(ValueError, match="windows need a size in pixels: set size"):
        evaluator()(masked(list(train), preprocessing=unsized), HeldOut(test))
    found = evaluator(size=16)(masked(list(train), preprocessing=unsized), HeldOut(test))
    assert values(found) == values(evaluator()(train, HeldOut(test)))
    with pytest.raises(ValueError, match="no images with masks to train on"):
        evaluator()(masked([]), HeldOut(test))
    with pytest.raises(ValueError, match="the test split has no images to score"):
        evaluator()(train, HeldOut(masked([])))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "steps is a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size is a whole"),
        ({"seeds": 0}, "seeds is a whole"),
        ({"size": 0}, "size is a whole"),
        ({"shots": 0}, "shots is at least 1 train image"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more"),
        ({"scale": 0.0}, "scale is a factor above 0"),
        ({"scale": float("inf")}, "scale is a factor above 0"),
        ({"overlap": 0.96}, "overlap is a share"),
        ({"region": "center"}, "region is one of field_of_view, all, got 'center'"),
        ({"steps": 0, "seeds": -1}, "steps .*; seeds .* got -1"),
    ],
)
def test_impossible_settings_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        SegmentationProbe(**given)


def test_a_field_of_view_limits_training_too():
    images = [square_image(item, region=True) for item in range(2)]
    train = masked(images)
    for region, share in (("field_of_view", 22 / 24), ("all", 1.0)):
        windows = evaluator(region=region).training(train, images, 0).windows
        assert np.mean([image.inside.mean() for image in windows.images]) == pytest.approx(share)


def test_train_and_test_have_the_scale_of_a_run_that_segments():
    settings = SegmentationSettings(16, (8, 8))
    network = PixelNetwork(settings=settings)
    train, test = (masked([square_image(item)], network) for item in (0, 1))
    one = evaluator(overlap=0)
    (image,) = one.training(train, list(train), 0).windows.images
    assert image.target.shape == (40, 48)
    fitted = PixelNetwork()
    one.fit = lambda *given: (fitted, "")
    one(train, HeldOut(test))
    assert fitted.seen == 2 * [(8, 3, 16, 16), (1, 3, 16, 16)]  # nine windows of the train and of the test image


def test_the_device_and_windows_of_a_training_are_those_of_the_split():
    train = masked([noisy_image(0)], preprocessing=Preprocessing(12, None, PLAIN.mean, PLAIN.std))
    training = evaluator(seed=3).training(train, list(train), 9)
    assert training.device == torch.device("cpu")
    assert (training.windows.size, training.windows.seed) == (12, 9)
