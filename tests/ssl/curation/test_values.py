"""Values against plain formulas, and what they tell apart: pages, screenshots, sharp and blurred images."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, UnidentifiedImageError

from wildfern.ssl.curation.perceptual_hash import perceptual_hash
from wildfern.ssl.curation.values import Values, page_score, values_of
from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.image_file import decode_image

TEXT = """The images are measured once and their values are kept so that a later scan of the same folder takes little time.
Each rule of the policy has a threshold, which was found on real images of many kinds (see page 12) and can be changed.
Two copies of one image differ in a few bits of their hashes at most, and the better of the two is kept."""
WORDS = TEXT.split()


def page(
    size: tuple[int, int] = (800, 1100), text: int = 20, paper: tuple[int, int, int] = (255, 255, 255), columns: int = 1,
    ink: tuple[int, int, int] = (20, 20, 20), margin: float = 0.08, skew: float = 0.0, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """A page of paragraphs in Pillow's own font, `text` pixels high."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(text)
    left, top = int(margin * size[0]), int(margin * size[1])
    column = (size[0] - 2 * left - (columns - 1) * 2 * text) // columns
    for number in range(columns):
        x, y, line = left + number * (column + 2 * text), top, ""
        while y < size[1] - top - text:
            word = WORDS[rng.integers(len(WORDS))]
            if draw.textlength(f"{line} {word}", font) > column or rng.random() < 0.01:
                draw.text((x, y), line, ink, font)
                y, line = y + int(1.35 * text), ""
            line = f"{line} {word}".strip()
    return np.asarray(image.rotate(skew, Image.Resampling.BICUBIC, fillcolor=paper))


def smooth(seed: int, size: tuple[int, int] = (200, 260), frequencies: int = 20) -> np.ndarray:
    """A random image with the spectrum 1/f of photographs, in color."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.cos(np.pi * np.outer(np.linspace(0, 1, side), np.arange(frequencies))) for side in size)
    falling = 1 / (1 + np.hypot(*np.meshgrid(np.arange(frequencies), np.arange(frequencies), indexing="ij")))
    shared = rng.normal(size=(frequencies, frequencies))
    bands = [rows @ (falling * (shared + 0.4 * rng.normal(size=shared.shape))) @ columns.T for _ in range(3)]
    found = np.stack(bands, 2)
    return np.uint8(255 * (found - found.min()) / np.ptp(found))


def luma_of(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601, rounded to 8 bits."""
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114]))


def pages(pixels: np.ndarray) -> float:
    return values_of(pixels).page


def screenshots(pixels: np.ndarray) -> float:
    return values_of(pixels).screenshot


# Figures


@pytest.mark.parametrize("shape", [(200, 256), (90, 70), (48, 48), (3, 3)])
def test_values_of_a_small_image_are_those_of_its_own_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels[: shape[0] // 2] //= 2
    luma = luma_of(pixels)
    found = values_of(pixels)
    assert found.brightness == pytest.approx(luma.mean(), abs=0.02)
    assert found.contrast == pytest.approx(luma.std(), abs=0.02)
    laplacian = np.array(
        [
            luma[y - 1, x] + luma[y + 1, x] + luma[y, x - 1] + luma[y, x + 1] - 4 * luma[y, x]
            for y in range(1, shape[0] - 1)
            for x in range(1, shape[1] - 1)
        ]
    )
    assert found.sharpness == pytest.approx(laplacian.std() / luma.std(), rel=2e-3, abs=1e-9)
    ordered = np.sort(luma.ravel())
    assert abs(found.dark_percentile - ordered[math.ceil(0.99 * luma.size) - 1]) <= 1
    assert abs(found.light_percentile - ordered[math.floor(0.05 * luma.size)]) <= 1


def test_values_of_known_images():
    half = np.zeros((100, 100, 3), np.uint8)
    half[50:] = 200
    found = values_of(half)
    assert found.brightness == 100
    assert found.contrast == 100
    assert found.dark_percentile == 200
    assert found.light_percentile == 0
    # 2 of 98 rows have a Laplacian of 200 or -200.
    assert found.sharpness == pytest.approx(math.sqrt(2 / 98 * 200**2) / 100)
    mostly_dark = np.full((100, 100, 3), 10, np.uint8)
    mostly_dark[0, :99] = 250  # 0.99 %
    assert values_of(mostly_dark).dark_percentile == 10
    mostly_dark[1, :2] = 250
    assert values_of(mostly_dark).dark_percentile == 250
    light = np.full((100, 100, 3), 240, np.uint8)
    light[:4, :] = light[4, :99] = 0  # 4.99 %
    assert values_of(light).light_percentile == 240
    light[5, :2] = 0
    assert values_of(light).light_percentile == 0


@pytest.mark.parametrize("value", [0, 77, 255])
def test_flat_images(value):
    found = values_of(np.full((300, 400, 3), value, np.uint8))
    assert found.brightness == value
    assert found.contrast == found.sharpness == found.phash_quality == found.page == 0
    assert found.phash == 0
    assert found.screenshot == 1
    assert found.small == bytes([value]) * 768


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (1, 40_000), (40_000, 1), (5, 3000), (2, 2)]
)
def test_tiny_and_long_images(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = values_of(pixels)
    assert len(found.small) == 768
    assert all(math.isfinite(value) for value in found if not isinstance(value, bytes))
    assert abs(found.brightness - luma_of(pixels).mean()) < 20
    assert found.page == found.screenshot == 0
    assert 0 <= found.phash < 2**63


def test_large_images_are_measured_at_256_pixels():
    pixels = smooth(0, (1100, 1500))
    shrunk = np.asarray(Image.fromarray(pixels).resize((256, 188), Image.Resampling.BOX))
    large, small = values_of(pixels), values_of(shrunk)
    assert large.brightness == pytest.approx(small.brightness, abs=0.5)
    assert large.contrast == pytest.approx(small.contrast, abs=0.5)
    assert large.sharpness == pytest.approx(small.sharpness, rel=0.1)
    assert (large.phash ^ small.phash).bit_count() <= 2
    one, other = (np.frombuffer(found.small, np.uint8).astype(int) for found in (large, small))
    assert np.abs(one - other).max() <= 4


def test_the_small_image_and_the_hash_are_of_means():
    pixels = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    found = values_of(pixels)
    small = np.frombuffer(found.small, np.uint8).reshape(16, 16, 3)
    assert np.abs(small - pixels.reshape(16, 10, 16, 10, 3).mean((1, 3))).max() <= 1
    gray = luma_of(pixels).reshape(32, 5, 32, 5).mean((1, 3))
    assert (found.phash ^ perceptual_hash(gray)).bit_count() <= 2  # means are rounded to 8 bits
    assert found.phash_quality == pytest.approx(gray.std(), rel=0.02)


def test_arrays_that_cannot_be_written_or_are_slices():
    pixels = smooth(3, (300, 400))
    read_only = pixels.copy()
    read_only.flags.writeable = False
    wide = np.concatenate([pixels, pixels], 2)[..., :3]
    assert values_of(read_only) == values_of(wide) == values_of(pixels)
    assert isinstance(values_of(wide), Values)


def test_values_are_numbers_of_python():
    for found in (values_of(smooth(0)), values_of(page())):
        assert [type(value) for value in found] == [float] * 7 + [int, float, bytes]


# Sharpness


def test_sharpness_falls_with_blur_and_not_with_contrast():
    for pixels in (smooth(1, frequencies=100), page(text=30, size=(256, 256)), smooth(2, (600, 800), 300)):
        image = Image.fromarray(pixels)
        radii = [0, 0.7, 1.5, 3, 6]
        found = [values_of(np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))).sharpness for radius in radii]
        assert all(one > other for one, other in pairwise(found)), found
        assert found[0] > 3 * found[-1]
        pale = np.uint8(100 + pixels / 4)
        assert values_of(pale).sharpness == pytest.approx(found[0], rel=0.1)


# Pages


@pytest.mark.parametrize("text", [12, 16, 22, 30])
@pytest.mark.parametrize("skew", [-2.0, 0.0, 0.7, 1.5])
def test_pages_of_text(text, skew):
    assert pages(page(text=text, skew=skew)) >= 0.5


@pytest.mark.parametrize("paper", [(255, 255, 255), (235, 235, 235), (250, 244, 225), (215, 210, 200), (200, 200, 200)])
def test_papers(paper):
    assert pages(page(paper=paper)) >= 0.5
    assert pages(page(paper=paper, skew=1.0, ink=(70, 60, 60))) >= 0.5


@pytest.mark.parametrize("size", [(600, 800), (1240, 1754)])
@pytest.mark.parametrize("columns", [1, 2])
def test_scans_of_several_resolutions(size, columns):
    text = size[0] // 40
    for skew in (0.0, -2.0):
        assert pages(page(size, text, columns=columns, skew=skew)) >= 0.5


def test_a_page_on_its_side():
    assert pages(np.rot90(page()).copy()) >= 0.5
    assert pages(np.rot90(page(columns=2), 3).copy()) >= 0.5


def test_what_is_no_page():
    blank = np.full((1100, 800, 3), 250, np.uint8)
    rng = np.random.default_rng(0)
    speckled = np.where(rng.random((1100, 800, 1)) < 0.02, 0, blank).astype(np.uint8)
    shapes = Image.new("RGB", (800, 800), "white")
    ImageDraw.Draw(shapes).ellipse((200, 200, 600, 600), (30, 30, 30))
    stripes = np.where((np.arange(800) // 40 % 2 == 0)[:, None, None], 30, blank[:800])
    for number, pixels in enumerate((blank, speckled, np.asarray(shapes), stripes.astype(np.uint8))):
        assert pages(pixels) < 0.5, number
    dark = page(paper=(30, 30, 30), ink=(230, 230, 230))
    assert pages(dark) == 0
    colored = page(paper=(255, 220, 130))
    assert pages(colored) == 0
    assert pages(page((47, 200), 10)) == 0


def test_smooth_random_images_are_no_pages():
    scores = [pages(smooth(seed, frequencies=20 + 4 * seed)) for seed in range(50)]
    scores += [pages(np.uint8(150 + smooth(seed) // 3)) for seed in range(50)]  # light ones
    assert np.mean(np.array(scores) < 0.5) >= 0.98


def test_photographs_are_no_pages_and_no_screenshots(shared: Path):
    files = sorted((shared / "data" / "uncurated").rglob("*.jpg"))[:200]
    if not files:
        pytest.skip("no photographs")
    found = []
    for file in files:
        try:
            found.append(values_of(decode_image(file)))
        except (UnreadableImage, UnidentifiedImageError):
            continue
    textured = [one for one in found if one.contrast >= 4]
    assert len(textured) > 100
    assert np.mean([one.page < 0.5 for one in textured]) >= 0.98
    assert np.mean([one.screenshot < 0.6 for one in textured]) >= 0.98


def test_the_score_of_a_page_is_of_its_parts():
    pixels = page((256, 256), 14)
    luma = luma_of(pixels).astype(np.uint8)
    histogram = np.bincount(luma.ravel(), minlength=256).astype(np.float64)
    score = page_score(pixels, luma, histogram)
    assert 0.5 <= score <= 1
    assert page_score(np.uint8(pixels * np.array([1.0, 0.9, 0.5])), luma, histogram) == 0  # colored
    assert page_score(pixels[:40], luma[:40], histogram) == 0  # too small to tell


# Screenshots


def window(size: tuple[int, int] = (1280, 800)) -> np.ndarray:
    image = Image.new("RGB", size, (236, 236, 236))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.rectangle((0, 0, size[0], 40), (40, 60, 90))
    draw.text((20, 10), "Untitled - Editor", (255, 255, 255), font)
    draw.rectangle((0, 40, 220, size[1]), (250, 250, 250))
    for row in range(12):
        draw.text((20, 60 + 30 * row), f"Folder {row}", (30, 30, 30), font)
        draw.rectangle((260 + 40 * row, 200, 290 + 40 * row, 230), (90, 140, 20 * row))
    return np.asarray(image)


def test_windows_are_screenshots_and_noise_is_not():
    assert screenshots(window()) > 0.9
    assert screenshots(window((700, 500))) > 0.8
    rng = np.random.default_rng(0)
    assert screenshots(rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)) < 0.001
    noisy = np.clip(window().astype(int) + rng.integers(-2, 3, (800, 1280, 3)), 0, 255).astype(np.uint8)
    assert screenshots(noisy) < 0.01
    assert screenshots(smooth(0, (600, 800))) < 0.5


@pytest.mark.parametrize("shape", [(64, 64), (128, 200), (300, 257), (700, 1000), (64, 3000)])
def test_the_score_of_a_screenshot_is_a_count(shape):
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(0, 2, (shape[0] // 3 + 1, shape[1] // 3 + 1, 3)), 3, 0), 3, 1)
    pixels = (pixels[: shape[0], : shape[1]] * 255).astype(np.uint8)
    step = max(1, min(shape) // 128)
    rows = pixels.tolist()
    equal = [
        rows[y][x] == rows[y][x + 1] == rows[y + 1][x]
        for y in range(0, shape[0] - 1, step)
        for x in range(0, shape[1] - 1, step)
    ]
    assert 0.3 < screenshots(pixels) < 0.9
    assert screenshots(pixels) == pytest.approx(np.mean(equal), abs=1e-12)


def test_small_images_are_no_screenshots():
    assert screenshots(np.zeros((63, 500, 3), np.uint8)) == 0
    assert screenshots(np.zeros((64, 64, 3), np.uint8)) == 1


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 4), (0, 5, 3), (5, 0, 3), (1, 40, 50, 3)])
def test_arrays_that_are_no_image(shape):
    with pytest.raises(DataError, match=r"must be uint8\[H, W, 3\]"):
        values_of(np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="got float32"):
        values_of(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(DataError, match=r"\[32, 32\]"):
        perceptual_hash(np.zeros((40, 50)))
