"""Images with textures: the same geometry as without, branches that can be seen, and no color that tells them from the rest."""

import hashlib

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold_one, uniform
from wildfern.generators.diamond_square import levels_for
from wildfern.generators.lsystem.lsystem import LSystemStream
from wildfern.generators.lsystem.presets import NUMBERS, PRESETS
from wildfern.generators.lsystem.texture_fill import (
    BLACK,
    WHITE,
    cell_side,
    fill_layer,
    leave_room,
    limit_detail,
    shares_of_end,
)
from wildfern.generators.lsystem.textures import draw_texture, empty_texture, scratch_for

TEXTURES = {"background": "texture", "color": "texture"}
BARE = {"blur": False, "noise": 0.0}
LUMA = np.array([0.299, 0.587, 0.114])
SAMPLES, CONTRAST, GROUND, BRANCH = 2, 4, 7, 8


def grown(masks, by):
    """Pixels in the masks, or at most `by` rows and columns from a pixel there."""
    wide, size = np.pad(masks > 0, ((0, 0), (by, by), (by, by))), masks.shape[1]
    rows = np.any([wide[:, i : i + size] for i in range(2 * by + 1)], axis=0)
    return np.any([rows[:, :, j : j + size] for j in range(2 * by + 1)], axis=0)


def ring_around(masks):
    """Pixels 3 or 4 rows or columns away from the masks."""
    return grown(masks, 4) & ~grown(masks, 2)


@pytest.mark.parametrize("size", [8, 33, 64])
@pytest.mark.parametrize("preset", PRESETS)
def test_textures_change_colors_only(size, preset):
    clouds = LSystemStream(size=size, preset=preset).batch(np.arange(20))
    for look in (TEXTURES, {"background": "texture"}, {"color": "texture"}):
        batch = LSystemStream(size=size, preset=preset, **look).batch(np.arange(20))
        for name in ("masks", "widths", "centerlines"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(clouds, name))
        assert not (batch.images == clouds.images).all((1, 2, 3)).any()


def textures(sample, size):
    """The two textures as they are drawn, apart from each other."""
    made = []
    for part in (GROUND, BRANCH):
        made.append(empty_texture(size, levels_for(size), -(-size // cell_side(size))))
        key = np.uint64(fold_one(sample, part))
        draw_texture(key, size, levels_for(size), made[-1], scratch_for(size))
        limit_detail(made[-1], size)
    return made


def colored(texture, size):
    return texture.table.astype(float).T[texture.clouds.field[:size, :size]]


def coverage(stream, index):
    """1 - softness r² in strokes' middles, as `alpha` of `paint_stroke`, from the distances to all segments."""
    size, softness = stream.size, stream.softness
    y, x = np.mgrid[:size, :size] + 0.5
    alpha = np.zeros((size, size))
    for x0, y0, x1, y1, w0, w1 in stream.segments(index):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        half, distance = (w0 + t * (w1 - w0)) / 2, np.hypot(x - x0 - t * dx, y - y0 - t * dy)
        here = np.clip(half + 0.5 - distance, 0, 1) * (1 - softness * (distance / (half + 0.5)) ** 2)
        np.maximum(alpha, here, out=alpha)
    return alpha


@pytest.mark.parametrize("size", [8, 48])
def test_images_are_one_texture_over_the_other(size):
    stream = LSystemStream(size=size, width=(0.02, 0.1), contrast=(0.3, 1.0), **TEXTURES, **BARE)
    images, ends = stream.batch(np.arange(25)).images, []
    for index in range(25):
        sample = fold_one(fold_one(int(stream.stream_key), SAMPLES), index)
        ground, branch = textures(sample, size)
        brighter = (colored(branch, size) @ LUMA).mean() > (colored(ground, size) @ LUMA).mean()
        ends.append(WHITE if brighter else BLACK)
        leave_room(ends[-1], ground)
        shares_of_end(ends[-1], ground.means, branch.means)
        layer = np.empty((size, size, 3), np.float32)
        fill_layer(branch, ends[-1], np.ones((size, size), np.float32), layer)
        contrast = 0.3 + 0.7 * uniform(np.uint64(fold_one(sample, CONTRAST)), 1)[0]
        below = np.floor(colored(ground, size) + 0.5)
        expected = below + contrast * coverage(stream, index)[..., None] * (layer - below)
        np.testing.assert_allclose(images[index], expected, atol=0.51)
    assert set(ends) == {WHITE, BLACK}


@pytest.mark.parametrize("background", ["clouds", "plain", "white"])
def test_textured_branches_leave_other_backgrounds_as_they_are(background):
    plain = LSystemStream(size=64, preset="retina", background=background, **BARE).batch(np.arange(30))
    filled = LSystemStream(size=64, preset="retina", background=background, color="texture", **BARE)
    batch, away = filled.batch(np.arange(30)), ~grown(plain.masks, 1)
    inner = np.pad(away[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))  # a branch outside may tint the edge
    np.testing.assert_array_equal(batch.images[inner], plain.images[inner])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("background", ["texture", "clouds", "plain", "white"])
def test_textured_branches_can_be_seen(preset, background):
    """In 95 of 100 images the mean brightness of branches and of what is 3 or 4 pixels away differ by 24 levels."""
    stream = LSystemStream(size=96, preset=preset, background=background, color="texture")
    batch = stream.batch(np.arange(200))
    ring, luma = ring_around(batch.masks), batch.images @ LUMA
    differences = [
        abs(image[mask > 0].mean() - image[near].mean())
        for image, mask, near in zip(luma, batch.masks, ring, strict=True)
    ]
    assert np.mean(np.array(differences) > 24) >= 0.95
    assert NUMBERS[preset].contrast[0] == 0.5  # what the 24 levels are for


def test_brightness_does_not_tell_branches_from_background():
    """Branches are brighter in about half of the images, and a threshold over all images is right little more than by chance."""
    batch = LSystemStream(size=64, **TEXTURES).batch(np.arange(400))
    ring, luma, masks = ring_around(batch.masks), batch.images @ LUMA, batch.masks > 0
    brighter = [image[mask].mean() > image[near].mean() for image, mask, near in zip(luma, masks, ring, strict=True)]
    assert 0.35 < np.mean(brighter) < 0.65
    for channel in (*np.moveaxis(batch.images, -1, 0), luma):
        inside, outside = (np.cumsum(np.histogram(channel[part], 256, (0, 256))[0]) for part in (masks, ~masks))
        area = np.trapezoid(inside / inside[-1], outside / outside[-1])  # under the curve of hits over false alarms
        assert 0.4 < area < 0.6


@pytest.mark.parametrize("size", [8, 33, 90])
def test_threads_change_nothing(size):
    arguments = {"size": size, "curriculum": 40, **TEXTURES}
    one, several = (LSystemStream(**arguments, threads=threads).batch(np.arange(23) + 10) for threads in (1, 3))
    for found, expected in zip(several.arrays().values(), one.arrays().values(), strict=True):
        np.testing.assert_array_equal(found, expected)
    single = LSystemStream(**arguments).batch([17])
    np.testing.assert_array_equal(single.images[0], one.images[7])


# Kernels use no math library, no reordering and no fused operations, so these digests hold on every machine.
FROZEN = {
    "texture": "7b5436909b432db7e5949f59759b5e7f",
    "random": "d3540c61a84d6e6f34cbba8f9fe05b41",
    "curriculum": "6214e9debaf5f900e946c9b4b6d94cfe",
}


@pytest.mark.parametrize("name", FROZEN)
def test_bytes_are_frozen(name):
    looks = {"texture": TEXTURES, "random": TEXTURES | {"color": "random"}, "curriculum": {"curriculum": 30}}
    batch = LSystemStream(size=40, seed=5, preset="cracks", **looks[name]).batch(np.arange(24))
    assert hashlib.blake2b(batch.images.tobytes() + batch.masks.tobytes(), digest_size=16).hexdigest() == FROZEN[name]


@pytest.mark.parametrize("size", [8, 32])
def test_no_textured_image_is_of_one_color(size):
    for seed in range(4):
        for look in (TEXTURES, TEXTURES | BARE | {"contrast": (0.2, 0.2), "softness": 0.8}):
            images = LSystemStream(size=size, seed=seed, **look).batch(np.arange(60) + 10**12).images
            assert np.ptp(images.astype(int).reshape(60, -1, 3), axis=1).max(1).min() >= 8
