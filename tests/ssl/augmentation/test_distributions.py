"""The parameters of views have the distributions of torchvision's transforms, for every kind of view of the presets.

Two-sample tests of Kolmogorov and Smirnov (of numbers) and of χ² (of choices), each at SIGNIFICANCE; seeds are fixed. That such a
test sees a mistake is tested too, on settings that are slightly wrong.
"""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms

from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.augmentation.table import draw_table

N = 6000
SIGNIFICANCE = (
    1e-4  # of each of some 250 tests: together they would fail at one seed in forty, were the distributions the same
)
IMAGES = [(48, 48), (40, 56), (375, 500), (60, 21), (9, 230)]  # height, width; in the last no crop of much area fits
KINDS = {  # each kind of view once: simclr's, then those of byol and mocov3, dino and swav
    f"{name} {number}": settings
    for name in ("simclr", "byol", "mocov3", "dino", "swav")
    for number, settings in enumerate(
        dict.fromkeys(view for group in VIEWS[name](size=32).groups for view in group)  # equal views once
    )
}


@functools.cache
def drawn(settings, seed=5):
    """The parameters drawn in training, for the 64 positions of a batch, over views and steps."""
    tables = [draw_table([settings] * 2, seed, step, np.arange(64), 2) for step in range(-(-N // 128))]
    names = [field.name for field in dataclasses.fields(tables[0])]
    whole = {
        name: np.concatenate([getattr(t, name) for t in tables], axis=1)
        for name in names
        if not name.startswith(("crop_", "interpolation"))
    }
    return dataclasses.replace(tables[0], **whole)


def boxes_of(settings, height, width):
    table = drawn(settings)
    n = table.flip.shape[1]
    return table.boxes(np.full(n, height), np.full(n, width)).reshape(-1, 4)[:N].astype(float)


@functools.cache
def their_boxes(scale, ratio, height, width, n=N):
    torch.manual_seed(1)
    image = torch.empty(3, height, width)
    get = transforms.RandomResizedCrop.get_params
    return np.array([get(image, list(scale), list(ratio)) for _ in range(n)], float)


@functools.cache
def their_jitter(settings):
    jitter = transforms.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
    torch.manual_seed(2)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    return [jitter.get_params(*ranges) for _ in range(N)]


def looks_of(boxes, height, width):
    """A crop in the terms in which it is drawn; positions as shares of their range."""
    top, left, crop_height, crop_width = boxes.T
    return {
        "area": crop_height * crop_width,
        "log ratio": np.log(crop_width / crop_height),
        "height": crop_height,
        "width": crop_width,
        "top": top,
        "left": left,
        "share of top": top / np.maximum(height - crop_height, 1),
        "share of left": left / np.maximum(width - crop_width, 1),
    }


def same_distribution(ours, theirs):
    return stats.ks_2samp(ours, theirs, method="asymp").pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("height", "width"), IMAGES)
@pytest.mark.parametrize("kind", ["simclr 0", "dino 0", "dino 2", "swav 0", "swav 1"])  # byol and mocov3 crop as simclr
def test_crops(kind, height, width):
    settings = KINDS[kind]
    ours = looks_of(boxes_of(settings, height, width), height, width)
    theirs = looks_of(their_boxes(settings.crop_scale, settings.crop_ratio, height, width), height, width)
    for name in ours:
        assert same_distribution(ours[name], theirs[name]), name


def test_byol_and_mocov3_crop_like_simclr():
    crops = {(KINDS[kind].crop_scale, KINDS[kind].crop_ratio) for kind in KINDS if kind[:4] in ("simc", "byol", "moco")}
    assert crops == {((0.08, 1.0), (3 / 4, 4 / 3))}


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10), (7, 61), (1, 5), (5, 1)])
def test_the_central_crop_is_that_of_torchvision_if_none_fits(height, width):
    settings = dataclasses.replace(KINDS["simclr 0"], crop_scale=(0.98, 1.0))
    (expected,) = np.unique(their_boxes((0.98, 1.0), settings.crop_ratio, height, width, 20), axis=0)
    ours = boxes_of(settings, height, width)
    assert (ours == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_jitter(kind):
    settings, table = KINDS[kind], drawn(KINDS[kind])
    theirs = their_jitter(dataclasses.replace(KINDS["simclr 0"], **{n: getattr(settings, n) for n in FACTORS}))
    fired = (table.brightness != 1).ravel()
    for place, name in enumerate(FACTORS):
        ours = table.flat(name)[fired]
        assert same_distribution(ours, np.array([drawn[1 + place] for drawn in theirs])), name
        assert (table.flat(name)[~fired] == (0 if name == "hue" else 1)).all()


FACTORS = ("brightness", "contrast", "saturation", "hue")


@pytest.mark.parametrize("kind", ["simclr 0", "byol 1"])
def test_all_orders_of_jitter_are_equally_frequent(kind):
    orders = list(itertools.permutations(range(4)))
    ours = drawn(KINDS[kind]).flat("order")[:N]
    theirs = np.array([drawn[0].numpy() for drawn in their_jitter(KINDS[kind])])
    counts = [[(found == order).all(axis=1).sum() for order in orders] for found in (ours, theirs)]
    assert np.sum(counts) == 2 * N
    assert stats.chisquare(counts[0]).pvalue > SIGNIFICANCE
    assert stats.chi2_contingency(counts).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("kind", KINDS)
def test_blur(kind):
    settings, table = KINDS[kind], drawn(KINDS[kind])
    torch.manual_seed(3)
    theirs = [transforms.GaussianBlur.get_params(*settings.blur_sigma) for _ in range(N)]
    assert same_distribution(table.sigma[table.sigma > 0], np.array(theirs))


@pytest.mark.parametrize("kind", KINDS)
def test_operations_apply_with_their_probability_and_independently(kind):
    settings, table = KINDS[kind], drawn(KINDS[kind])
    happens = {
        "flip": table.flat("flip"),
        "jitter": table.flat("brightness") != 1,
        "gray": table.flat("gray"),
        "blur": table.flat("sigma") > 0,
        "solarize": table.flat("threshold") <= 1,
    }
    for name, fired in happens.items():
        probability = getattr(settings, name)
        assert stats.binomtest(int(fired.sum()), len(fired), probability).pvalue > SIGNIFICANCE, name
    random = [name for name in happens if 0 < getattr(settings, name) < 1]
    counts, expected = [], []
    for together in itertools.product((False, True), repeat=len(random)):
        fired = np.all([happens[name] == wanted for name, wanted in zip(random, together, strict=True)], axis=0)
        chances = [
            getattr(settings, name) if wanted else 1 - getattr(settings, name)
            for name, wanted in zip(random, together, strict=True)
        ]
        counts.append(fired.sum())
        expected.append(np.prod(chances) * len(fired))
    assert stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("kind", ["simclr 0", "dino 2"])
def test_quantities_are_drawn_independently(kind):
    """No pair of what is drawn for a view, and nothing drawn for it and for the next view of its image, moves together."""
    table = drawn(KINDS[kind])
    fired = (table.brightness != 1).all(axis=0) & (table.sigma > 0).all(axis=0)
    names = [*FACTORS, "sigma"]
    columns = [getattr(table, name)[view][fired] for view in range(2) for name in names]
    columns += [table.crop[view, fired, draw] for view in range(2) for draw in range(4)]
    correlations = stats.spearmanr(np.stack(columns, axis=1))
    apart = ~np.eye(len(columns), dtype=bool)
    assert correlations.pvalue[apart].min() > SIGNIFICANCE


def test_slightly_wrong_settings_are_detected():
    right = KINDS["simclr 0"]
    theirs = looks_of(their_boxes(right.crop_scale, right.crop_ratio, 375, 500), 375, 500)

    def crops(**changed):
        return looks_of(boxes_of(dataclasses.replace(right, **changed), 375, 500), 375, 500)

    assert not same_distribution(crops(crop_scale=(0.15, 1.0))["area"], theirs["area"])
    assert not same_distribution(crops(crop_ratio=(0.7, 1.25))["log ratio"], theirs["log ratio"])
    rng = np.random.default_rng(0)  # a ratio that is uniform where its logarithm should be; no small crop is refused
    small = looks_of(their_boxes((0.05, 0.4), right.crop_ratio, 375, 500), 375, 500)
    assert not same_distribution(np.log(rng.uniform(3 / 4, 4 / 3, N)), small["log ratio"])
    hue = np.array([drawn[4] for drawn in their_jitter(right)])
    table = drawn(dataclasses.replace(right, hue=0.17))
    assert not same_distribution(table.hue[table.brightness != 1], hue)
    brightness = np.array([drawn[1] for drawn in their_jitter(right)])
    assert not same_distribution(rng.uniform(0.2, 1.6, N), brightness)
