"""Fourier domain adaptation, PixMix and the local intensity order transform as view operations."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from wildfern.ssl.augmentation import (
    MEAN,
    STD,
    FourierAdaptationSettings,
    PixMixSettings,
    fourier_adaptation,
    multicrop,
    pixmix,
    simclr,
)
from wildfern.ssl.augmentation.fourier_adaptation import draw_adaptation, freecos_adaptation
from wildfern.ssl.augmentation.local_intensity_order import local_intensity_order
from wildfern.ssl.augmentation.pixmix import draw_pixmix
from wildfern.ssl.augmentation.reference_images import ReferenceImages, rows_to_change
from wildfern.ssl.data import Images, Mixture, Source, square

UNCHANGED = dict(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=0.0)


def photographs(n=6, height=24, width=24, seed=0):
    smooth = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 1)
    return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


class ImageArrays(Source):
    """Images, and a record of those that were read."""

    def __init__(self, images):
        super().__init__()
        self.images, self.num_items, self.reads = images, len(images), []

    def read(self, items):
        self.reads.append(np.asarray(items))
        return Images.gather([self.images[item] for item in items])


def pixels_of(views):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return views * std + mean


def as_float(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def test_the_reference_figures_of_fourier_adaptation(shared):
    figures = np.load(shared / "golden" / "freecos.npz")
    source, target = (
        figures[f"fda0_{name}"].round().astype(np.uint8).transpose(1, 2, 0) for name in ("source", "target")
    )
    settings = FourierAdaptationSettings(
        data=ImageArrays([target]), probability=1.0, ratio=float(figures["fda0_ratio"])
    )
    views = simclr(size=64, fourier_adaptation=settings, **UNCHANGED)
    out = pixels_of(views(views.prepare(source[None], 0, 0, np.arange(1)))[0]) * 255
    expected = torch.from_numpy(figures["fda0_result"]).clamp(0, 255).float()
    difference = (out - expected).abs()
    assert difference.mean() < 0.5  # images are rounded to 8 bits before
    assert difference.max() < 3
    exact = fourier_adaptation(*(as_float(image[None]).double() for image in (source, target)), settings.ratio)
    torch.testing.assert_close(out / 255, exact.clamp(0, 1).float().expand_as(out), rtol=0, atol=1e-5)


def test_the_reference_figures_of_the_intensity_order(shared):
    figures = np.load(shared / "golden" / "freecos.npz")
    views = simclr(size=64, local_intensity_order=True, **UNCHANGED)
    assert views.channels == 4
    for form in (np.asarray, list):
        out = views(views.prepare(form(figures["liot1_gray"][None]), 0, 0, np.arange(1)))[0]
        codes = figures["liot1_codes"] / 255
        expected = torch.from_numpy((codes - codes.mean()) / codes.std(ddof=1)).float()
        torch.testing.assert_close(out, expected.expand(2, 1, 4, 64, 64), rtol=0, atol=1e-5)


def test_adapted_views_match_the_function_with_their_parameters():
    x, second = photographs(8), photographs(5, seed=1)
    settings = FourierAdaptationSettings(
        data=ImageArrays(second), probability=0.6, ratio=0.3, blur_kernel=5, noise=0.02
    )
    plain, views = simclr(size=24), simclr(size=24, fourier_adaptation=settings)
    before, after = (pixels_of(v(v.prepare(x, 3, 5, np.arange(8)))[0]) for v in (plain, views))
    for view in range(2):
        rows = rows_to_change("fourier_adaptation", 0.6, 3, 5, view, np.arange(8))
        table = draw_adaptation(3, 5, rows, view, 5)
        noise = torch.from_numpy(table.noise.view(np.int64))
        expected = before[view].clone()
        expected[rows] = freecos_adaptation(before[view][rows], as_float(second[table.target]), noise, 0.3, 5, 0.02)
        torch.testing.assert_close(after[view], expected, rtol=0, atol=1e-5)
        assert 0 < len(rows) < 8


def test_mixed_views_match_the_function_and_read_only_the_images_they_use():
    x, second = photographs(12), ImageArrays(photographs(5, seed=1))
    plain, views = simclr(size=24), simclr(size=24, pixmix=PixMixSettings(data=second, probability=0.7, rounds=3))
    before, after = (pixels_of(v(v.prepare(x, 3, 5, np.arange(12)))[0]).clamp(0, 1) for v in (plain, views))
    for view in range(2):
        rows = rows_to_change("pixmix", 0.7, 3, 5, view, np.arange(12))
        table = draw_pixmix(3, 5, rows, view, rounds=3, set_size=5)
        expected = before[view].clone()
        expected[rows] = pixmix(before[view][rows], as_float(second.images[table.mixing]), table)
        torch.testing.assert_close(after[view], expected, rtol=0, atol=1e-4)
        shown = [any(kind == -1 for kind in table.kind[i, 1 : 1 + table.rounds[i]]) for i in range(len(rows))]
        assert 0 < sum(shown) < len(rows) < 12
        np.testing.assert_array_equal(second.reads[view], table.mixing[shown])


def test_values_rounded_out_of_range_are_handled():
    views = simclr(size=24, pixmix=PixMixSettings(data=ImageArrays(photographs(5, seed=1))))
    pixmix_views = views.extra[0][0]
    parameters = pixmix_views.draw(1, 2, np.arange(40), 0, 40)
    inside = as_float(photographs(40)).clamp(0, 1)
    inside[:, :, :4], inside[:, :, 4:8] = 0, 1
    beside = inside.clone()
    beside[:, :, :4], beside[:, :, 4:8] = -1e-7, 1 + 1e-7
    assert torch.equal(pixmix_views(beside, parameters), pixmix_views(inside, parameters))


ALL = dict(
    fourier_adaptation=FourierAdaptationSettings(data=ImageArrays(photographs(7, seed=1)), blur_kernel=3, noise=0.01),
    pixmix=PixMixSettings(data=Mixture([(ImageArrays(photographs(4, 30, 50, seed=2)), 1.0)], 0), probability=0.5),
    extra=[{"operation": "RandomErasing", "p": 0.4}],
)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("form", [np.asarray, list])
def test_two_ranks_see_what_one_process_sees(form, order):
    x = photographs(8, 40, 40)
    views = multicrop(size=24, local_size=12, local_count=2, local_intensity_order=order, **ALL)
    whole = views(views.prepare(form(x), 3, 5, np.arange(8), batch_size=8))
    halves = [
        views(views.prepare(form(x[own]), 3, 5, np.arange(8)[own], batch_size=8)) for own in (slice(0, 3), slice(3, 8))
    ]
    for group, *parts in zip(whole, *halves, strict=True):
        together = torch.cat(parts, dim=1)
        if order:  # a pixel that rounds to another of the 256 grays changes codes
            assert ((group - together).abs() > 1e-4).float().mean() < 1e-3
        else:
            torch.testing.assert_close(group, together, rtol=0, atol=1e-4)
    again = views(views.prepare(form(x), 3, 5, np.arange(8), batch_size=8))
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    for seed, step, first in ((4, 5, 0), (3, 6, 0), (3, 5, 8)):
        other = views(views.prepare(form(x), seed, step, np.arange(first, first + 8), batch_size=16))
        assert (other[0] - whole[0]).abs().flatten(2).amax(2).min() > 0.05


def test_host_and_device_make_the_same_views():
    x = photographs(8, 40, 40)
    views = multicrop(size=24, local_size=12, local_count=2, **ALL)
    prepared = views.prepare(x, 3, 5, np.arange(8))
    on_host = views(prepared)
    views._on_host = views._on_device
    for one, other in zip(on_host, views(prepared), strict=True):  # posterizing and inverting are steep
        assert ((one - other).abs() > 1e-3).float().mean() < 5e-3


def test_the_intensity_order_comes_last():
    x = photographs(6)
    plain, views = (simclr(size=24, local_intensity_order=order, **ALL) for order in (False, True))
    before = pixels_of(plain(plain.prepare(x, 1, 2, np.arange(6)))[0])
    after = views(views.prepare(x, 1, 2, np.arange(6)))[0]
    assert after.shape == (2, 6, 4, 24, 24)
    gray = (before * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(2).flatten(0, 1)
    codes = local_intensity_order((gray * 255).round()).float()
    codes = (codes - codes.mean((1, 2, 3), keepdim=True)) / codes.std((1, 2, 3), keepdim=True)
    assert ((after.flatten(0, 1) - codes).abs() > 1e-4).float().mean() < 1e-3


def test_operations_apply_with_their_probability_and_use_every_image():
    positions = np.arange(4000)
    for probability in (0.0, 0.3, 1.0):
        share = len(rows_to_change("pixmix", probability, 1, 2, 0, positions)) / 4000
        assert abs(share - probability) <= 0.025 * (0 < probability < 1)
    assert len(np.intersect1d(*(rows_to_change(n, 0.5, 1, 2, 0, positions) for n in ("pixmix", "fourier")))) < 1200
    counts = np.bincount(draw_adaptation(1, 0, positions, 0, 10).target, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_reference_images_of_another_size_are_cropped_to_squares():
    wide, own = photographs(2, 30, 50), photographs(1, 16, 16)
    second = ReferenceImages(ImageArrays([*wide, *own]), 16)
    assert len(second) == 3
    read = second.read(np.array([1, 2])).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(read[0], square(wide[1], 16))
    np.testing.assert_array_equal(read[1], own[0])
    assert second.read(np.arange(0)).shape == (0, 3, 16, 16)


def test_items_of_an_endless_source_are_drawn_from_a_large_range():
    class Endless(ImageArrays):
        def __init__(self):
            super().__init__([])
            self.num_items = None

        def read(self, items):
            self.reads.append(items)
            return Images(np.zeros((len(items), 8, 8, 3), np.uint8))

    source = Endless()
    views = simclr(size=8, fourier_adaptation=FourierAdaptationSettings(data=source, probability=1.0))
    views.prepare(photographs(200, 8, 8), 0, 0, np.arange(200))
    items = np.concatenate(source.reads)
    assert len(np.unique(items)) == 400
    assert items.max() > 2**31
    assert items.max() < 2**32


def test_unreadable_reference_images_are_listed():
    source = ImageArrays(photographs(2))
    source.skip("a.jpg", "cut off")
    assert simclr(pixmix=PixMixSettings(data=source)).skipped == {"a.jpg": "cut off"}
    assert simclr().skipped == {}


@pytest.mark.parametrize(
    ("settings", "wrong", "message"),
    [
        (FourierAdaptationSettings, {"probability": 1.5}, "less than or equal to 1"),
        (FourierAdaptationSettings, {"ratio": 0.6}, "less than or equal to 0.5"),
        (FourierAdaptationSettings, {"blur_kernel": 4}, "must be odd, got 4"),
        (FourierAdaptationSettings, {"blur_kernel": 0}, "greater than or equal to 1"),
        (FourierAdaptationSettings, {"noise": float("nan")}, "finite"),
        (FourierAdaptationSettings, {"beta": 0.1}, "not permitted"),
        (PixMixSettings, {"probability": -0.1}, "greater than or equal to 0"),
        (PixMixSettings, {"severity": 0.1}, r"greater than 0\.1"),
        (PixMixSettings, {"rounds": -1}, "greater than or equal to 0"),
        (PixMixSettings, {"beta": 0.0}, "greater than 0"),
    ],
)
def test_impossible_settings_are_refused(settings, wrong, message):
    with pytest.raises(ValidationError, match=message):
        settings(data=ImageArrays(photographs(1)), **wrong)


def test_settings_that_do_not_fit_the_views_are_refused():
    settings = FourierAdaptationSettings(data=ImageArrays(photographs(1)), blur_kernel=13)
    with pytest.raises(ValueError, match="blur_kernel of 13 px is too large for views of 6 px"):
        multicrop(size=24, local_size=6, fourier_adaptation=settings)
    named = simclr(size=24, pixmix=PixMixSettings(data="dead_leaves"))
    assert named.shape == [(2, 24)]
    with pytest.raises(ValueError, match=r"opened source, for example open_source.*not 'dead_leaves'"):
        named.prepare(photographs(2), 0, 0, np.arange(2))
