import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from wildfern import registry
from wildfern.generators.counter_rng import uniform
from wildfern.ssl.augmentation import VIEWS, Views, multicrop, simclr
from wildfern.ssl.augmentation.blur import kernel_size
from wildfern.ssl.augmentation.view_keys import image_keys

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def photographs(n=6, side=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def test_shapes_and_normalization():
    views = multicrop(size=32, local_size=16, local_count=3)
    out = views(views.prepare(photographs(), seed=0, step=0, positions=np.arange(6)))
    assert [tuple(o.shape) for o in out] == [(2, 6, 3, 32, 32), (3, 6, 3, 16, 16)]
    white = simclr(size=8, jitter=0, gray=0, blur=0)
    out = white(white.prepare(np.full((2, 8, 8, 3), 255, np.uint8), 0, 0, np.arange(2)))[0]
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(out, expected.view(1, 1, 3, 1, 1).expand_as(out))


def test_a_view_depends_only_on_image_seed_step_position_and_number():
    views, x = simclr(size=16), photographs()
    whole = views(views.prepare(x, seed=7, step=3, positions=np.arange(100, 106)))[0]
    part = views(views.prepare(x[4:], seed=7, step=3, positions=np.arange(104, 106)))[0]
    torch.testing.assert_close(whole[:, 4:], part, rtol=1e-6, atol=1e-6)
    for seed, step, positions in [(8, 3, np.arange(100, 106)), (7, 4, np.arange(100, 106)), (7, 3, np.arange(6))]:
        other = views(views.prepare(x, seed, step, positions))[0]
        assert (other - whole).abs().flatten(1).max(1).values.min() > 0.1
    assert (whole[0] - whole[1]).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_more_views_do_not_change_the_first_ones():
    x = photographs()
    two, four = (v(v.prepare(x, 0, 0, np.arange(6)))[0] for v in (simclr(size=16), simclr(size=16, count=4)))
    torch.testing.assert_close(two, four[:2])


def test_images_of_different_sizes_are_cropped_on_the_host_as_on_the_device():
    views = multicrop(size=24, local_size=12, local_count=2)
    plain = multicrop(
        size=24, local_size=12, local_count=2, jitter=0, gray=0, blur=(0, 0), local_blur=0, solarize=(0, 0)
    )
    x = photographs(side=64)
    for made, most in (
        (views, 0.1),
        (plain, 0.5 / 255 / 0.224 + 1e-4),
    ):  # a crop is rounded to bytes; then colors multiply
        device = made(made.prepare(x, 0, 0, np.arange(6)))
        host = made(made.prepare(list(x), 0, 0, np.arange(6)))
        for one, other in zip(device, host, strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= most


def made_of(views, path, pixels, paired_images=None):
    return getattr(views, path)(views.prepare(pixels, 0, 0, np.arange(len(pixels)), paired_images))


@pytest.mark.parametrize("path", ["_on_host", "_on_device"])
@pytest.mark.parametrize("kind", [np.asarray, list])
def test_views_in_bfloat16_are_those_in_float32_rounded_once(kind, path):
    views, x, y = multicrop(size=24, local_size=12, local_count=3), kind(photographs()), kind(photographs(seed=1))
    exact = made_of(views, path, x, y)
    views.dtype = torch.bfloat16
    for short, whole in zip(made_of(views, path, x, y), exact, strict=True):
        assert (whole.dtype, short.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(short, whole.to(torch.bfloat16))
        for group in (whole, short):
            assert group.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_views_in_bfloat16_after_further_operations_are_rounded_once():
    views, x = multicrop(size=24, local_size=12, local_count=2, extra=EXTRA), photographs()
    exact = views(views.prepare(x, 0, 0, np.arange(6)))
    views.dtype = torch.bfloat16
    for short, whole in zip(views(views.prepare(x, 0, 0, np.arange(6))), exact, strict=True):
        assert torch.equal(short, whole.to(torch.bfloat16))


@on_a_gpu
def test_a_gpu_gives_bfloat16_as_rounded_float32_too():
    views, x = multicrop(size=24, local_size=12, local_count=2).to("cuda"), photographs()
    exact = views(views.prepare(x, 0, 0, np.arange(6)))
    views.dtype = torch.bfloat16
    for short, whole in zip(views(views.prepare(x, 0, 0, np.arange(6))), exact, strict=True):
        assert torch.equal(short, whole.to(torch.bfloat16))
        assert short.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_other_types_of_views_are_refused():
    views = simclr(size=16)
    with pytest.raises(ValueError, match=r"float32 or bfloat16, not torch\.float16"):
        views.dtype = torch.float16
    moved = simclr(size=16).to(torch.bfloat16)
    with pytest.raises(ValueError, match="set `dtype`"):
        moved(moved.prepare(photographs(), 0, 0, np.arange(6)))


@pytest.mark.parametrize("path", ["_on_host", "_on_device"])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    "none", [np.zeros((0, 20, 30, 3), np.uint8), torch.zeros((0, 20, 30, 3), dtype=torch.uint8), []]
)
def test_an_empty_batch_has_empty_views(none, pairs, path):
    views = multicrop(size=16, local_size=8, local_count=3)
    made = made_of(views, path, none, none if pairs else None)
    assert [tuple(group.shape) for group in made] == [(2, 0, 3, 16, 16), (3, 0, 3, 8, 8)]


@pytest.mark.parametrize(
    ("pixels", "paired_images", "message"),
    [
        (photographs(5), None, "5 images for 6 positions"),
        (list(photographs(7)), None, "7 images for 6 positions"),
        (photographs(), photographs(side=40), r"must be \[6, 48, 48, 3\] like the first images, not \[6, 40, 40, 3\]"),
        (photographs(), list(photographs()), "both arrays, or both lists"),
        (list(photographs()), list(photographs(5)), "must be 6"),
        (np.zeros((6, 0, 9, 3), np.uint8), None, "at least one pixel"),
        ([*photographs(5), np.zeros((9, 0, 3), np.uint8)], None, "at least one pixel"),
    ],
)
def test_images_that_do_not_fit_are_refused(pixels, paired_images, message):
    with pytest.raises(ValueError, match=message):
        simclr(size=16).prepare(pixels, 0, 0, np.arange(6), paired_images)


def test_no_views_and_unequal_ones_are_refused():
    small, large = simclr(size=16).groups[0], simclr(size=24).groups[0]
    for groups, message in (([], "no groups"), ([small, []], "at least one view"), ([[*small, *large]], "one size")):
        with pytest.raises(ValueError, match=message):
            Views(groups)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
def test_tensors_give_the_same_views_as_arrays(device):
    views, x, y = multicrop(size=24, local_size=12, local_count=3).to(device), photographs(), photographs(seed=1)
    expected = views(views.prepare(x, 0, 0, np.arange(6), y))
    tensors = [torch.from_numpy(images).to(device) for images in (x, y)]
    prepared = views.prepare(tensors[0], 0, 0, np.arange(6), tensors[1])
    assert prepared.pixels is tensors[0]
    for given, right in zip(views(prepared), expected, strict=True):
        torch.testing.assert_close(given, right)
    np.testing.assert_array_equal(tensors[0].cpu(), x)


@on_a_gpu
def test_views_wait_for_images_drawn_on_another_stream():
    views, x = simclr(size=24).to("cuda"), photographs()
    expected = views(views.prepare(x, 0, 0, np.arange(6)))[0]
    source = torch.from_numpy(x).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        images = torch.zeros_like(source)
        torch.cuda._sleep(10**9)
        images.copy_(source)
        prepared = views.prepare(images, 0, 0, np.arange(6))
    torch.testing.assert_close(views(prepared)[0], expected)


@pytest.mark.parametrize("kind", [np.asarray, list])
def test_odd_views_of_a_pair_show_its_second_image(kind):
    views = multicrop(size=24, local_size=12, local_count=3)
    firsts, seconds = photographs(side=64), photographs(side=64, seed=1)
    of_firsts = views(views.prepare(kind(firsts), 0, 0, np.arange(6)))
    of_seconds = views(views.prepare(kind(seconds), 0, 0, np.arange(6)))
    pairs = views(views.prepare(kind(firsts), 0, 0, np.arange(6), kind(seconds)))
    number = 0
    for pair, first, second in zip(pairs, of_firsts, of_seconds, strict=True):
        for view in range(len(pair)):
            torch.testing.assert_close(pair[view], (second if number % 2 else first)[view])
            assert (first[view] - second[view]).abs().mean() > 0.1
            number += 1
    assert number == 5


EXTRA = [{"operation": "RandomErasing", "p": 0.4}, {"operation": "RandomPosterize", "bits": 3, "p": 0.2}]


@pytest.mark.parametrize("kind", [np.asarray, list])
def test_further_kornia_operations_are_applied_and_drawn_for_the_global_batch(kind):
    plain, x = multicrop(size=24, local_size=12, local_count=2), photographs(8, 64)
    views = multicrop(size=24, local_size=12, local_count=2, extra=EXTRA)
    global_state = torch.get_rng_state()
    whole = views(views.prepare(kind(x), 3, 5, np.arange(8), batch_size=8))
    part = views(views.prepare(kind(x[2:5]), 3, 5, np.arange(2, 5), batch_size=8))
    assert torch.equal(torch.get_rng_state(), global_state)
    before = plain(plain.prepare(kind(x), 3, 5, np.arange(8)))
    mean, std = plain.mean[0], plain.std[0]
    changed = []
    for group, rows, unchanged in zip(whole, part, before, strict=True):
        torch.testing.assert_close(group[:, 2:5], rows)
        changed.append(((group - unchanged).abs().amax((2, 3, 4)) > 1e-5).float())
        pixels = group * std + mean
        assert -1e-5 <= pixels.min() <= pixels.max() <= 1 + 1e-5
    assert 0.2 < torch.cat(changed).mean() < 0.8  # of 32, 1 - 0.6 · 0.8 = 0.52 are erased or posterized
    if kind is np.asarray:
        prepared = views.prepare(x, 3, 5, np.arange(8))
        with_torch = views._on_device(prepared)
        for one, other in zip(views._on_host(prepared), with_torch, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


# What the papers state of a view, in the order of `ViewSettings` from crop_scale on.
BYOL_COLORS = dict(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
SIMCLR_COLORS = dict(jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
COMMON = dict(crop_ratio=(3 / 4, 4 / 3), flip=0.5, gray=0.2, blur_sigma=(0.1, 2.0), solarize=0.0, crop_pixels=None)
LARGE = dict(COMMON, size=224, crop_scale=(0.08, 1.0))
BYOL = [
    dict(LARGE, **BYOL_COLORS, blur=1.0, interpolation="bicubic"),
    dict(LARGE, **BYOL_COLORS, blur=0.1, interpolation="bicubic") | {"solarize": 0.2},
]
DINO_LOCAL = dict(COMMON, **BYOL_COLORS, size=96, crop_scale=(0.05, 0.4), blur=0.5, interpolation="bicubic")
SWAV = dict(COMMON, **SIMCLR_COLORS, blur=0.5, interpolation="bilinear")
PAPERS = {
    "simclr": [dict(LARGE, **SIMCLR_COLORS, blur=0.5, interpolation="bilinear")] * 2,
    "byol": BYOL,
    "mocov3": [view | {"interpolation": "bilinear"} for view in BYOL],
    "dino": [view | {"crop_scale": (0.4, 1.0)} for view in BYOL] + [DINO_LOCAL] * 8,
    "swav": [dict(SWAV, size=224, crop_scale=(0.14, 1.0))] * 2 + [dict(SWAV, size=96, crop_scale=(0.05, 0.14))] * 6,
}


@pytest.mark.parametrize("name", PAPERS)
def test_presets_are_those_of_the_papers(name):
    assert [dataclasses.asdict(view) for group in VIEWS[name]().groups for view in group] == PAPERS[name]


def test_numbers_of_presets_can_be_changed():
    assert {view.size for group in VIEWS["byol"](size=32).groups for view in group} == {32}
    both = multicrop(blur=0.3, solarize=0.1, local_count=0).groups[0]
    assert [(view.blur, view.solarize) for view in both] == [(0.3, 0.1)] * 2


@pytest.mark.parametrize(("side", "pixels"), [(224, 23), (96, 9), (64, 7), (48, 5), (32, 3), (20, 3), (4, 3)])
def test_a_blur_has_the_kernel_of_a_tenth_of_the_side(side, pixels):
    """SimCLR, appendix A. A point that is blurred shows how far the kernel reaches, on the processor's kernel and by torch."""
    assert kernel_size(side) == pixels
    size = max(side, 4)
    point = np.zeros((1, size, size, 3), np.uint8)
    point[:, size // 2, size // 2] = 255
    only_blur = dict(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, gray=0, blur=1, blur_sigma=(50, 50))
    views = simclr(size=size, **only_blur)
    batch = views.prepare(point, 0, 0, np.arange(1))
    for path in ("_on_host", "_on_device"):
        red = getattr(views, path)(batch)[0][0, 0, 0]
        lit = (red - red.min() > 1e-4).numpy()
        if side >= 20:  # smaller images reflect the kernel at their border
            assert (lit.any(axis=0).sum(), lit.any(axis=1).sum()) == (pixels, pixels)


def test_gray_images_are_repeated_to_three_channels_and_others_refused():
    views, gray = simclr(size=16), photographs()[..., 0]
    repeated = views(views.prepare(np.repeat(gray[..., None], 3, -1), 0, 0, np.arange(6)))[0]
    for form in (gray, gray[..., None], torch.from_numpy(gray)):
        torch.testing.assert_close(views(views.prepare(form, 0, 0, np.arange(6)))[0], repeated)
    of_list = views(views.prepare(list(gray), 0, 0, np.arange(6)))[0]
    assert of_list.shape == repeated.shape
    for wrong, message in [
        (gray.astype(np.uint16) * 257, r"uint8, not uint16; for 16 bits, convert by \(images >> 8\)"),
        (gray / 255, "images must be uint8, not float64"),
        (photographs().transpose(0, 3, 1, 2), r"must be \[n, H, W, 3\], or \[n, H, W\] if gray, not \[6, 3, 48, 48\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            views.prepare(wrong, 0, 0, np.arange(6))


def test_sequences_may_hold_arrays_pillow_images_and_tensors():
    views, x = simclr(size=16), photographs()
    expected = views(views.prepare(list(x), 0, 0, np.arange(6)))[0]
    for kind in (tuple, lambda p: [Image.fromarray(q) for q in p], lambda p: [torch.from_numpy(q) for q in p]):
        torch.testing.assert_close(views(views.prepare(kind(x), 0, 0, np.arange(6)))[0], expected)
    for shape in ((20, 20, 4), (3, 20, 20), (20,)):
        with pytest.raises(ValueError, match=rf"image 1 must be \[H, W, 3\].*not \[{', '.join(map(str, shape))}\]"):
            views.prepare([x[0], np.zeros(shape, np.uint8)], 0, 0, np.arange(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, "flip must be a probability"),
        ({"gray": -0.1}, "gray must be a probability"),
        ({"blur": np.nan}, "blur must be a probability"),
        ({"solarize": np.nan, "jitter": 2}, "jitter must be a probability.*solarize must be a probability"),
        ({"brightness": np.nan}, "brightness must be"),
        ({"contrast": np.inf}, "contrast must be"),
        ({"saturation": -1}, "saturation must be"),
        ({"hue": np.nan}, "hue"),
        ({"crop_scale": (0.5, 1.2)}, "crop_scale, shares of the image area"),
        ({"crop_scale": (np.nan, 1.0)}, "crop_scale"),
        ({"crop_ratio": (0.75, np.inf)}, "crop_ratio"),
        ({"crop_pixels": (3.9, 8)}, "crop_pixels must satisfy 4 ≤ low ≤ high"),
        ({"crop_pixels": (16, 8)}, "crop_pixels"),
        ({"crop_pixels": (8, np.inf)}, "crop_pixels"),
        ({"crop_pixels": (np.nan, 8)}, "crop_pixels"),
        ({"crop_pixels": 16}, r"crop_pixels must be a pair \[low, high\], got 16"),
        ({"blur_sigma": (0.1, np.nan)}, "blur_sigma"),
        ({"size": 31.5}, "whole number of pixels"),
        ({"size": np.nan}, "whole number of pixels"),
        ({"count": -1}, "at least one view"),
        ({"crop_scale": 0.5}, "crop_scale must be a pair .*, got 0.5"),
        (
            {"extra": [{"operation": "RandomErasing", "p": 1.5}]},
            r"extra: operation 0: .*p must be a probability in \[0, 1\]",
        ),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"hue": 0.7}, "hue"),
        ({"size": 0}, "too small"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"count": 0}, "at least one view"),
        (
            {"extra": [{"operation": "RandomErasin"}, {"p": 1}]},
            "did you mean 'RandomErasing'.*operation 1: `operation`",
        ),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simclr(**arguments)


class Inverted(torch.nn.Module):
    """A custom view operation: inverts the views of a share of the images, drawn from counter keys."""

    def draw(self, seed, step, positions, view, batch):
        keys = image_keys("inverted", seed, step, view, positions)
        return {"rows": torch.from_numpy(np.flatnonzero(uniform(keys, 1)[:, 0] < 0.5))}

    def forward(self, images, parameters):
        return images.index_put((parameters["rows"],), 1 - images[parameters["rows"]])


class Doubled(Views):
    """Every view twice as bright after normalization."""

    def forward(self, batch):
        return [2 * group for group in super().forward(batch)]


@pytest.mark.parametrize("kind", [Views, Doubled])
def test_a_preset_and_an_operation_from_outside(kind, monkeypatch):
    monkeypatch.setattr(registry.VIEWS, "_components", dict(registry.VIEWS._components))

    @registry.register("views", "two_inverted")
    def two_inverted(*, size: int = 16) -> Views:
        return kind([[simclr(size=size).groups[0][0]] * 2], extra=[lambda size: Inverted()])

    views, plain, x = registry.VIEWS["two_inverted"](size=20), simclr(size=20), photographs()
    masks = x[..., 0]
    before = plain(plain.prepare(x, 0, 0, np.arange(6)))[0]
    batch = views.prepare(x, 0, 0, np.arange(6), masks=masks)
    pixels = before * plain.std + plain.mean
    inverted = torch.zeros(2, 6, dtype=torch.bool)
    for view, parameters in enumerate(batch.extra[0]):
        inverted[view, parameters[0]["rows"]] = True
    assert 0 < inverted.sum() < 12
    expected = (torch.where(inverted[..., None, None, None], 1 - pixels, pixels) - plain.mean) / plain.std
    torch.testing.assert_close(views(batch)[0], expected * (2 if kind is Doubled else 1), rtol=0, atol=1e-4)
    assert views.masks(batch)[0].shape == (2, 6, 20, 20)
    assert views.geometric_operations == []
    Inverted.moves_pixels = True
    try:
        with pytest.raises(ValueError, match="masks cannot follow Inverted"):
            views.prepare(x, 0, 0, np.arange(6), masks=masks)
    finally:
        del Inverted.moves_pixels
