"""From planes of values to images: levels, palettes, relief, the mean of samples, and the rejection of flat or noisy images."""

import numpy as np
import pytest

from wildfern.generators.palette import (
    BANDS,
    COLORS,
    COSINES,
    ENTRIES,
    KIND,
    MOST_COLORS,
    SMOOTH,
    STYLE,
    WIDTHS,
    draw_palette,
    draw_style,
)
from wildfern.generators.texture.judge import FLAT, GOOD, NOISE, judge
from wildfern.generators.texture.paint import LEVELS, extremes, paint, places, to_levels

F = np.float32


def palette(key: int, kind: int, count: int, color: bool = True, widths: float = 1.0) -> np.ndarray:
    style, table = np.zeros(STYLE), np.full((3, ENTRIES), np.nan, F)
    style[KIND], style[COLORS], style[WIDTHS:] = kind, count, widths
    draw_palette(np.uint64(key), style, color, np.empty((MOST_COLORS, 3)), table)
    return table


def painted(plane, second, palettes, size, relief=0.0, light=(0.0, 0.0), layered=False):
    grid = plane.shape[0]
    colors, sums, shade = np.empty((2, 3, LEVELS), F), np.empty((3, size), F), np.empty(grid, F)
    image = np.zeros((size, size, 3), np.uint8)
    place = np.linspace(0, 1, LEVELS, dtype=F)
    paint(plane, second, place, palettes, layered, relief, light, grid // size, colors, sums, shade, image)
    return image


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.uniform(0, 1, (24, 24)) ** 2 * 0.6 + 0.2).astype(F)


def test_levels_span_the_range_of_a_plane(plane):
    low, high = extremes(plane, np.empty(24, F), np.empty(24, F))
    assert (low, high) == (plane.min(), plane.max())
    levels = plane.copy()
    to_levels(levels, low, high)
    np.testing.assert_allclose(levels, (LEVELS - 1) * (plane - low) / (high - low), atol=1e-3)
    flat = np.full((8, 8), 0.3, F)
    to_levels(flat, F(0.3), F(0.3))
    assert (flat == 0).all()


@pytest.mark.parametrize("evenness", [0.0, 0.4, 1.0])
def test_places_mix_levels_and_ranks(plane, evenness):
    levels, place = plane.copy(), np.empty(LEVELS, F)
    to_levels(levels, plane.min(), plane.max())
    places(levels, evenness, place)
    whole = levels.astype(int)
    for level in (0, 17, 400, LEVELS - 1):
        rank = ((whole < level).sum() + 0.5 * (whole == level).sum()) / whole.size
        assert place[level] == pytest.approx(evenness * rank + (1 - evenness) * level / (LEVELS - 1), abs=1e-4)
    assert (np.diff(place) >= -1e-6).all()


def test_smooth_palettes_are_straight_between_their_colors_and_bands_are_flat():
    for key in range(50):
        smooth = palette(key, SMOOTH, 4)
        assert np.abs(np.diff(smooth, 2, axis=1)).max(0).astype(bool).sum() > 0
        bends = (np.abs(np.diff(smooth, 2, axis=1)) > 1e-3).any(0)
        assert bends.sum() <= 4  # at the two inner colors, each between two entries
        bands = palette(key, BANDS, 5)
        assert (np.abs(np.diff(bands, axis=1)) > 0).any(0).sum() <= 4
        for table in (smooth, bands):
            assert table.min() >= 0
            assert table.max() <= 255


def test_palettes_reach_from_dark_to_light():
    for key in range(300):
        brightest = palette(key, SMOOTH, 2 + key % 5).max(0)
        assert np.ptp(brightest) > 255 * 0.25


def test_widths_are_shares_of_a_palette():
    widths = np.array([1.0, 2.0, 1.0, 0, 0, 0])
    changes = np.flatnonzero((np.diff(palette(3, BANDS, 3, widths=widths), axis=1) != 0).any(0)) + 1
    assert changes.tolist() == [ENTRIES // 4, 3 * ENTRIES // 4]


def test_cosine_palettes_stay_in_range_and_vary():
    tables = np.stack([palette(key, COSINES, 2 + key % 5) for key in range(300)])
    assert tables.min() >= 0
    assert tables.max() <= 255
    assert (np.ptp(tables, axis=2).max(1) > 60).all()


def test_hues_gather_around_orange_and_blue():
    first = np.stack([palette(key, BANDS, 2)[:, 0] for key in range(3000)]) / 255
    red, green, blue = first.T
    strong = np.ptp(first, axis=1) > 0.1
    orange = (red > green) & (green > blue) & strong
    azure = (blue > green) & (green > red) & strong
    assert (orange | azure).sum() > 0.5 * strong.sum()  # two sixths of the circle
    assert 0.7 < orange.sum() / azure.sum() < 1.4


@pytest.mark.parametrize("kind", [SMOOTH, BANDS, COSINES])
def test_gray_palettes_have_the_brightness_of_the_colored_ones(kind):
    colored, gray = palette(5, kind, 4), palette(5, kind, 4, color=False)
    np.testing.assert_allclose(gray, np.array([0.299, 0.587, 0.114]) @ colored * np.ones((3, 1)), atol=1e-3)


def test_styles_use_all_kinds():
    styles = np.empty((500, STYLE))
    for key, style in enumerate(styles):
        draw_style(np.uint64(key), style)
    assert set(styles[:, KIND]) == {SMOOTH, BANDS, COSINES}
    assert set(styles[:, COLORS]) == set(range(2, MOST_COLORS + 1))
    assert (styles[:, WIDTHS:] >= 0.4).all()
    assert 0.3 < (styles[:, 3] > 0).mean() < 0.5


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_pixels_are_means_of_their_samples(plane, samples):
    size = 24 // samples
    levels = (plane * (LEVELS - 1)).astype(F)
    palettes = np.stack([palette(1, SMOOTH, 5), palette(2, SMOOTH, 5)])
    entry = np.minimum((levels.astype(int) / (LEVELS - 1) * ENTRIES).astype(int), ENTRIES - 1)
    colors = palettes[0][:, entry]
    mean = colors.reshape(3, size, samples, size, samples).mean((2, 4))
    image = painted(levels, levels, palettes, size)
    np.testing.assert_allclose(image, mean.transpose(1, 2, 0), atol=1.01)
    by = levels[::-1].copy()
    both = colors + (palettes[1][:, entry] - colors) * by / (LEVELS - 1)
    mean = both.reshape(3, size, samples, size, samples).mean((2, 4))
    np.testing.assert_allclose(painted(levels, by, palettes, size, layered=True), mean.transpose(1, 2, 0), atol=1.01)


def test_relief_lights_the_slopes_toward_the_light():
    x = np.linspace(-1, 1, 64, dtype=F)
    hill = (LEVELS - 1) * np.exp(-4 * (x[:, None] ** 2 + x**2)).astype(F)
    gray = np.full((2, 3, ENTRIES), 128, F)
    image = painted(hill, hill, gray, 64, relief=0.1, light=(1.0, 0.0))[..., 0].astype(int)
    assert image[:, :24].mean() > 133
    assert image[:, 40:].mean() < 123
    down = painted(hill, hill, gray, 64, relief=0.1, light=(0.0, 1.0))[..., 0]
    assert (image[1:, 1:] == down[1:, 1:].T).mean() > 0.99


def reference(gray, spread, most, correlation):
    """The same test in numpy."""
    g = gray.astype(float)
    fullest = np.bincount(gray.ravel() // 16).max() / gray.size
    if g.std() < spread or fullest > most:
        return FLAT
    beside, below = ((np.diff(g, axis=axis) ** 2).mean() / (2 * g.var()) for axis in (1, 0))
    return NOISE if max(beside, below) > 1 - correlation else GOOD


@pytest.mark.parametrize("size", [8, 31])
def test_images_are_rejected_by_spread_and_neighbor_correlation(size):
    rng = np.random.default_rng(size)
    x = np.linspace(0, 1, size)
    smooth = 128 + 100 * np.sin(5 * x)[:, None] * np.cos(4 * x)
    stripes = np.where(np.arange(size) % 2, 200, 50) + 0 * x[:, None]
    speck = np.full((size, size), 20.0)
    speck[0, 0] = 255
    noise = rng.uniform(0, 255, (size, size))
    expected = {GOOD: (smooth,), FLAT: (np.full((size, size), 7.0), speck, 128 + 0.05 * noise), NOISE: (noise, stripes)}
    counts = np.empty(16, np.int64)
    for verdict, images in expected.items():
        for image in images:
            assert judge(image.astype(np.uint8), counts, 18.0, 0.8, 0.3) == verdict
    for mixture in np.linspace(0, 1, 40):
        image = (mixture * noise + (1 - mixture) * smooth).astype(np.uint8)
        limits = (rng.uniform(5, 80), rng.uniform(0.1, 0.9), rng.uniform(0, 0.95))
        assert judge(image, counts, *limits) == reference(image, *limits)
