"""The CPU kernel against the torch path, with the same tables, operation by operation and as chains."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from wildfern.ssl.augmentation import MEAN, STD, multicrop, simclr
from wildfern.ssl.augmentation.crop import resize_weights
from wildfern.ssl.augmentation.host_resize import filter_taps, max_taps
from wildfern.ssl.augmentation.host_views import render_crops, render_views
from wildfern.ssl.augmentation.table import INTERPOLATIONS

TOLERANCE = 1e-5  # of values in [0, 1]
WHOLE = dict(crop_scale=(1, 1), crop_ratio=(1, 1))
PLAIN = dict(flip=0, jitter=0, gray=0, blur=0)
IDENTITY = dict(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, gray=False, sigma=0.0, threshold=2.0)


def images(n=6, height=40, width=56, seed=0):
    """uint8[n, height, width, 3], the left half smooth, the right half noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((n, 3, 5, 7), np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).mul(255)
    out = smooth.permute(0, 2, 3, 1).byte().numpy()
    out[:, :, width // 2 :] = rng.integers(0, 256, out[:, :, width // 2 :].shape, np.uint8)
    return out


def prepared(views, pixels, seed=0, **replaced):
    """A batch in whose tables these fields are replaced by what is given, broadcast to [V, n, …]."""
    batch = views.prepare(pixels, seed, 3, np.arange(len(pixels)))
    tables = []
    for table in batch.tables:
        fields = {
            name: np.broadcast_to(np.asarray(value, getattr(table, name).dtype), getattr(table, name).shape)
            for name, value in replaced.items()
        }
        tables.append(dataclasses.replace(table, **fields))
    return dataclasses.replace(batch, tables=tables)


def in_unit_range(views):
    return views * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def assert_same(views, batch):
    for given, expected in zip(views._on_host(batch), views._on_device(batch), strict=True):
        torch.testing.assert_close(in_unit_range(given), in_unit_range(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("length", "size"), [(1, 4), (2, 4), (3, 65), (7, 7), (8, 7), (9, 32), (64, 9), (101, 8), (198, 224)]
)
def test_windows_of_weights_are_the_rows_of_the_dense_matrix(length, size, flip, interpolation):
    first, sums = np.zeros(size, np.int32), np.zeros(size, np.float32)
    cubic = interpolation == "bicubic"
    weights = np.full((max_taps(length, size, cubic), size), np.nan, np.float32)
    taps = filter_taps(length, flip, cubic, np.float32(1), first, weights, sums)
    dense = np.zeros((size, length + 1), np.float32)  # a window may reach one pixel beyond the line
    for x in range(size):
        dense[x, first[x] : first[x] + taps] = weights[:taps, x]
    line = torch.zeros(1), torch.tensor([float(length)]), length, size
    expected = resize_weights(*line, torch.tensor([flip]), interpolation)[0]
    np.testing.assert_allclose(dense[:, :length], expected, rtol=0, atol=2e-7)
    assert not dense[:, length].any()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [*range(4, 20), 31, 32, 33, 47, 64, 65, 224])
@pytest.mark.parametrize(("height", "width"), [(40, 56), (57, 31), (9, 230)])
def test_crop_flip_and_resize(size, height, width, interpolation):
    views = simclr(size=size, interpolation=interpolation, **{**PLAIN, "flip": 0.5})
    assert_same(views, prepared(views, images(8, height, width)))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [4, 17, 32])
def test_crops_of_few_pixels(size, interpolation):
    views = simclr(size=size, crop_scale=(2e-4, 4e-3), interpolation=interpolation, **{**PLAIN, "flip": 0.5})
    batch = prepared(views, images(40))
    sides = batch.tables[0].boxes(np.full(40, 40), np.full(40, 56))[..., 2:]
    assert {1, 2, 3} <= set(sides.ravel().tolist())
    assert_same(views, batch)


@pytest.mark.parametrize(
    "operation",
    [
        {"brightness": [[0.0], [1.7]]},
        {"contrast": [[0.0], [1.8]]},
        {"saturation": [[0.0], [1.8]]},
        {"hue": [[-0.5, -0.3, -0.1, 1e-7, 0.2, 0.5]]},
        {"gray": True},
        {"threshold": 0.5},
        {"sigma": [[1e-4, 0.1, 0.3, 0.7, 1.3, 2.0], [0.0, 0.5, 1.0, 1.5, 3.0, 20.0]]},
    ],
    ids=lambda operation: next(iter(operation)),
)
@pytest.mark.parametrize("size", [4, 9, 32, 41, 65, 224])
def test_each_operation_alone(operation, size):
    views = simclr(size=size, **WHOLE)
    assert_same(views, prepared(views, images(6, size, size), **{**IDENTITY, "flip": False, **operation}))


def test_every_order_of_the_color_operations():
    orders = np.array(list(itertools.permutations(range(4))))
    for size in (9, 32, 40):  # one block of rows, and two
        views = simclr(size=size)
        batch = prepared(views, images(24), order=orders, brightness=1.3, contrast=0.6, saturation=1.6, hue=-0.17)
        assert_same(views, batch)


@pytest.mark.parametrize("skipped", ["brightness", "contrast", "saturation", "hue"])
def test_every_order_without_one_of_the_operations(skipped):
    orders = np.array(list(itertools.permutations(range(4))))
    views = simclr(size=12)
    factors = dict(brightness=0.7, contrast=1.5, saturation=0.4, hue=0.12)
    assert_same(views, prepared(views, images(24), order=orders, **{**factors, skipped: IDENTITY[skipped]}))


@pytest.mark.parametrize("turns", [-0.5, -1 / 3, -1 / 6, 1e-6, 1 / 6, 0.25, 1 / 3, 0.5])
def test_hue_of_grays_of_near_grays_and_of_pure_colors(turns):
    """Hue itself jumps there, the color does not: it moves by no more than its chroma."""
    levels = np.array([0, 1, 2, 127, 128, 254, 255], np.uint8)
    colors = np.array(list(itertools.product(levels, repeat=3)))
    pixels = np.concatenate([colors, np.repeat(np.arange(256)[:, None], 3, axis=1)]).astype(np.uint8)
    side = 25
    pixels = np.resize(pixels, (1, side, side, 3))
    views = simclr(size=side, **WHOLE)
    batch = prepared(views, pixels, **{**IDENTITY, "flip": False, "hue": turns})
    assert_same(views, batch)
    given = in_unit_range(views._on_host(batch)[0])[0, 0]
    grays = torch.from_numpy(np.ptp(pixels[0].astype(int), axis=-1) == 0)
    assert grays.sum() > 200
    original = torch.from_numpy(pixels[0]).permute(2, 0, 1) / 255
    torch.testing.assert_close(given[:, grays], original[:, grays], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [5, 24, 32, 63, 224])
def test_chains_of_many_tables(size):
    for seed in range(3 if size > 100 else 12):
        views = simclr(size=size, count=3)
        height, width = (224, 256) if size > 100 else (33 + seed, 61)
        assert_same(views, prepared(views, images(4, height, width, seed), seed))


def test_solarize_at_the_end_of_a_chain_differs_at_its_threshold_only():
    """A value within the tolerance of one half falls on either side of it: inverted or not, it is as near to one half."""
    views = multicrop(size=48, local_size=20, local_count=2, solarize=(1.0, 1.0))
    for seed in range(6):
        batch = prepared(views, images(seed=seed), seed)
        for given, expected in zip(views._on_host(batch), views._on_device(batch), strict=True):
            torch.testing.assert_close(in_unit_range(given), in_unit_range(expected), rtol=0, atol=2 * TOLERANCE)


def test_pairs_and_groups():
    views = multicrop(size=24, local_size=12, local_count=3)
    firsts, seconds = images(), images(seed=1)
    assert_same(views, views.prepare(firsts, 0, 0, np.arange(6), seconds))
    assert_same(views, views.prepare(list(firsts), 0, 0, np.arange(6), list(seconds)))


def test_images_that_are_already_cropped():
    views = simclr(size=21)
    table = views.draw(0, 0, np.arange(5))[0]
    crops = images(10, 21, 21).reshape(2, 5, 21, 21, 3)
    given = render_crops(crops, table, 2)
    uncropped = dataclasses.replace(
        table, flip=np.zeros_like(table.flip), crop_scale=np.ones((2, 2)), crop_ratio=np.ones((2, 2))
    )
    for v in range(2):
        torch.testing.assert_close(given[v], render_views(crops[v], uncropped, 21, 1)[v], rtol=0, atol=0)


@pytest.mark.parametrize(("size", "n"), [(16, 1), (33, 7), (224, 5)])
def test_a_view_does_not_depend_on_threads_or_the_rest_of_the_batch(size, n):
    views = simclr(size=size, count=3)
    pixels = images(n, 50, 70)
    table = views.draw(1, 2, np.arange(n))[0]
    one = render_views(pixels, table, size, 1)
    for threads in (2, 3, 40):
        assert torch.equal(render_views(pixels, table, size, threads), one)
    last = views.draw(1, 2, np.arange(n - 1, n))[0]
    assert torch.equal(render_views(pixels[-1:], last, size, 2), one[:, -1:])


@pytest.mark.parametrize("size", [16, 33, 64])
def test_bfloat16_is_float32_rounded(size):
    views = simclr(size=size, solarize=0.3)
    table = views.draw(0, 0, np.arange(20))[0]
    exact, short = (render_views(images(20), table, size, 2, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert short.dtype == torch.bfloat16
    assert torch.equal(short, exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_are_last_in_memory(dtype):
    views = simclr(size=12)
    out = render_views(images(), views.draw(0, 0, np.arange(6))[0], 12, 1, dtype)
    assert out.shape == (2, 6, 3, 12, 12)
    assert out.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert views(views.prepare(images(0), 0, 0, np.arange(0)))[0].shape == (2, 0, 3, 12, 12)


def test_images_of_any_memory_layout():
    table = simclr(size=16).draw(0, 0, np.arange(6))[0]
    pixels = images()
    expected = render_views(pixels, table, 16, 1)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    for same in (frozen, planes, np.repeat(pixels, 2, axis=0)[::2]):
        assert torch.equal(render_views(same, table, 16, 1), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": images().astype(np.float32)}, r"uint8\[6, 40, 56, 3\], not float32"),
        ({"pixels": images(5)}, r"uint8\[6, 40, 56, 3\], not uint8\[5"),
        ({"pixels": images()[..., 0]}, "must be uint8"),
        ({"pixels": np.zeros((6, 0, 5, 3), np.uint8)}, "must be uint8"),
        ({"paired_images": images(6, 41)}, r"uint8\[6, 40, 56, 3\], not uint8\[6, 41"),
        ({"size": 3}, "too small"),
        ({"threads": 0}, "threads"),
        ({"dtype": torch.float16}, "float32 or bfloat16"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    arguments = dict(pixels=images(), table=simclr(size=16).draw(0, 0, np.arange(6))[0], size=16, threads=1)
    with pytest.raises(ValueError, match=message):
        render_views(**{**arguments, **change})


def test_a_forked_process_starts_its_own_threads():
    program = """
import os
import numpy as np
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.augmentation.host_views import render_views
table = simclr(size=16).draw(0, 0, np.arange(64))[0]
pixels = np.zeros((64, 16, 16, 3), np.uint8)
render_views(pixels, table, 16, 3)
child = os.fork()
if not child:
    render_views(pixels, table, 16, 3)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
