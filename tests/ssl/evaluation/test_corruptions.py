import colorsys
import io

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels
from wildfern.ssl.evaluation.corruptions import COMMON, EXTRA, SEVERITIES, corrupt

KEYS = fold(np.uint64(key("tests")), np.arange(2))


def synthetic(size, shift=0.0):
    """A smooth image with a checkerboard in blue, uint8[S, S, 3]."""
    y, x = np.mgrid[:size, :size] / size
    red, green = 0.5 + 0.4 * np.sin(7 * x + 3 * y + shift), 0.5 + 0.35 * np.cos(23 * x * y + 5 * y)
    blue = np.where((x * 8).astype(int) + (y * 8).astype(int) & 1, 0.8, 0.25)
    return np.round(np.stack([red, green, blue], 2) * 255).astype(np.uint8)


@pytest.fixture(params=[32, 68])
def pixels(request):
    return np.stack([synthetic(request.param), synthetic(request.param, 2.0)])


def as_images(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def corrupted(pixels, name, severity):
    """As float64[N, S, S, C]."""
    return corrupt(as_images(pixels), name, severity, KEYS[: len(pixels)]).permute(0, 2, 3, 1).double().numpy()


def draws(name, shape, number=None):
    """What an operation draws for both images, float64[2, *shape]."""
    keys = fold(KEYS, key(name))
    keys = keys if number is None else fold(keys, number)
    return uniform_pixels(torch.from_numpy(keys.view(np.int64)), shape).double().numpy()


def normal_draws(name, shape):
    return scipy.stats.norm.ppf(draws(name, shape) + 2.0**-25)


def in_hsv(change):
    def changed(pixels):
        rows = [change(*colorsys.rgb_to_hsv(*value)) for value in pixels.reshape(-1, 3) / 255]
        return np.array([colorsys.hsv_to_rgb(*row) for row in rows]).reshape(pixels.shape)

    return changed


def numbers(pixels, small, large):
    return small if pixels.shape[1] == 32 else large


def close(found, expected, levels=0.02):
    """Equal up to `levels` of 255, which is far below a rounding to bytes."""
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=levels / 255, rtol=0)


def test_brightness_and_saturation_are_those_of_hsv(pixels):
    pixels[0, :2] = [[[0, 0, 0]], [[90, 90, 90]]]  # without a hue
    summand = numbers(pixels, 0.15, 0.3)
    close(corrupted(pixels, "brightness", 3), in_hsv(lambda h, s, v: (h, s, min(v + summand, 1)))(pixels))
    factor, summand = numbers(pixels, (2, 0.1), (5, 0.1))
    close(corrupted(pixels, "saturate", 4), in_hsv(lambda h, s, v: (h, min(s * factor + summand, 1), v))(pixels))
    close(corrupted(pixels, "saturate", 1), in_hsv(lambda h, s, v: (h, 0.3 * s, v))(pixels))


def test_contrast_moves_values_to_the_mean_of_their_channel(pixels):
    factor, x = numbers(pixels, 0.3, 0.1), pixels / 255
    mean = x.mean((1, 2), keepdims=True)
    close(corrupted(pixels, "contrast", 4), mean + factor * (x - mean))


def test_jpeg_is_that_of_pillow(pixels):
    for image, found in zip(pixels, corrupted(pixels, "jpeg_compression", 5), strict=True):
        stored = io.BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=numbers(pixels, 40, 7))
        assert np.array_equal(np.round(found * 255), np.asarray(Image.open(stored)))


def test_pixelate_averages_blocks():
    pixels = np.stack([synthetic(80), synthetic(80, 1.0)])
    blocks = pixels.reshape(2, 20, 4, 20, 4, 3).mean((2, 4), keepdims=True)
    expected = np.broadcast_to(blocks, (2, 20, 4, 20, 4, 3)).reshape(pixels.shape) / 255
    close(corrupted(pixels, "pixelate", 5), expected, levels=1.01)  # Pillow rounds across and down
    small = np.asarray(Image.fromarray(synthetic(32)).resize((20, 20), Image.BOX).resize((32, 32), Image.BOX))
    close(corrupted(synthetic(32)[None], "pixelate", 5)[0], small / 255)


def test_defocus_blur_is_a_disk_with_a_soft_edge(pixels):
    radius, sigma, reach = numbers(pixels, (1.5, 0.1, 8), (10, 0.5, 10))
    taps = 1 if radius <= 8 else 2
    side = np.arange(-reach, reach + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2) / (side[:, None] ** 2 + side**2 <= radius**2).sum()
    bell = np.exp(-(np.arange(-taps, taps + 1)[:, None] ** 2 + np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
    kernel = scipy.ndimage.correlate(disk, bell / bell.sum(), mode="mirror")
    close(
        corrupted(pixels, "defocus_blur", 5),
        scipy.ndimage.correlate(pixels / 255, kernel[None, :, :, None], mode="mirror"),
    )


def test_gaussian_blur_is_that_of_scipy(pixels):
    sigma = numbers(pixels, 0.7, 3)
    expected = scipy.ndimage.gaussian_filter(pixels / 255, (0, sigma, sigma, 0), mode="nearest", truncate=4.0)
    close(corrupted(pixels, "gaussian_blur", 3), expected)


def zoomed(image, factor):
    """The center of an image [S, S, …], enlarged by `factor` to its size."""
    size = len(image)
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    layer = scipy.ndimage.zoom(image[top : top + crop, top : top + crop], (factor, factor, 1)[: image.ndim], order=1)
    trim = (len(layer) - size) // 2
    return layer[trim : trim + size, trim : trim + size]


def test_zoom_blur_is_a_mean_of_enlargements(pixels):
    factors = numbers(pixels, np.arange(1, 1.16, 0.01), np.arange(1, 1.21, 0.02))
    expected = [np.mean([x, *(zoomed(x, factor) for factor in factors)], 0) for x in pixels / 255]
    close(corrupted(pixels, "zoom_blur", 3), np.stack(expected))


def test_glass_blur_copies_one_pixel_after_the_other(pixels):
    sigma, reach, rounds = numbers(pixels, (0.4, 1, 2), (1, 2, 3))
    severity, size = numbers(pixels, 5, 3), pixels.shape[1]

    def smooth(x):
        return scipy.ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4.0)

    expected = []
    for number, image in enumerate(pixels / 255):
        x = np.floor(smooth(image) * 255 + 1e-3)
        for turn in range(rounds):
            shifts = (draws("glass_blur", (2, size, size), turn)[number] * 2 * reach).astype(int) - reach
            for h in range(size - reach, reach, -1):
                for w in range(size - reach, reach, -1):
                    dy, dx = shifts[:, h, w]
                    x[h, w] = x[h + dy, w + dx]
        expected.append(smooth(x / 255))
    found = corrupted(pixels, "glass_blur", severity)
    # A value at the bound of two bytes may be rounded down to either.
    assert np.mean(np.abs(found - np.stack(expected)) > 0.02 / 255) < 0.02
    close(found, np.stack(expected), levels=1.0)


def motion_blurred(image, radius, sigma, degrees):
    size, taps = len(image), np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    out = np.zeros_like(image)
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        dy, dx = (int(np.ceil(tap * f(np.deg2rad(degrees)) - 0.5)) for f in (np.sin, np.cos))
        rows, columns = (np.clip(np.arange(size) + d, 0, size - 1) for d in (dy, dx))
        out += weight * image[rows][:, columns]
    return out


def test_motion_blur_follows_a_line(pixels):
    degrees = 90 * uniform(fold(KEYS, key("motion_blur")), 1)[:, 0] - 45
    radius, sigma = numbers(pixels, (9, 2.5), (20, 15))
    expected = [motion_blurred(x, radius, sigma, angle) for x, angle in zip(pixels / 255, degrees, strict=True)]
    close(corrupted(pixels, "motion_blur", 5), np.stack(expected))


def test_snow_is_flakes_in_motion_on_a_brighter_image(pixels):
    size = pixels.shape[1]
    level = numbers(pixels, (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65))
    mean, deviation, factor, threshold, radius, sigma, share = level
    degrees = 90 * uniform(fold(fold(KEYS, key("snow")), 1), 1)[:, 0] - 135
    found = corrupted(pixels, "snow", 4)
    for x, noise, angle, one in zip(pixels / 255, normal_draws("snow", (size, size)), degrees, found, strict=True):
        layer = zoomed(mean + deviation * noise, factor)
        layer = np.floor(np.clip(np.where(layer < threshold, 0, layer), 0, 1) * 255) / 255
        layer = np.round(motion_blurred(layer, radius, sigma, angle) * 255) / 255
        gray = (x @ [0.299, 0.587, 0.114])[..., None]
        bright = share * x + (1 - share) * np.maximum(x, gray * 1.5 + 0.5)
        close(one, bright + (layer + np.rot90(layer, 2))[..., None], levels=2.01)  # two layers of bytes


def test_fog_is_a_field_of_diamonds_and_squares():
    pixels, size, side = np.stack([synthetic(24), synthetic(24, 1.0)]), 24, 32
    noise = 2 * draws("fog", (side, side)) - 1
    for number, x in enumerate(pixels / 255):
        field, step, wibble = np.zeros((side, side)), side, 1.0
        while step >= 2:
            half = step // 2

            def middle(y, x, offsets, field=field, number=number, wibble=wibble):
                around = [field[(y + dy) % side, (x + dx) % side] for dy, dx in offsets]
                field[y, x] = np.mean(around) + wibble * noise[number, y, x]

            for y in range(half, side, step):
                for x_ in range(half, side, step):
                    middle(y, x_, [(-half, -half), (-half, half), (half, -half), (half, half)])
            for y in range(0, side, half):
                for x_ in range(half * (y // half % 2 == 0), side, step):
                    middle(y, x_, [(-half, 0), (half, 0), (0, -half), (0, half)])
            step, wibble = half, wibble / 2.5**2
        field = (field - field.min()) / (field.max() - field.min())
        expected = (x + 0.75 * field[:size, :size, None]) * x.max() / (x.max() + 0.75)
        close(corrupted(pixels, "fog", 3)[number], expected)


def test_elastic_transform_is_an_affine_map_and_local_shifts(pixels):
    size = pixels.shape[1]
    amount, sigma, reach = numbers(pixels, np.array([0.08, 0.06, 0.06]) * 32, np.array([2, 0.08, 0.2]) * 244)
    severity = numbers(pixels, 3, 2)
    jitter = reach * (2 * uniform(fold(fold(KEYS, key("elastic_transform")), 1), 6).reshape(-1, 3, 2) - 1)
    center, third = size // 2, size // 3
    points = np.array([(center + third, center + third), (center + third, center - third), (center - third,) * 2])
    fields = 2 * draws("elastic_transform", (2, size, size)) - 1
    y, x = np.mgrid[:size, :size]
    found = corrupted(pixels, "elastic_transform", severity)
    for image, moved, field, one in zip(pixels / 255, points + jitter, fields, found, strict=True):
        forward = np.linalg.solve(np.c_[points, np.ones(3)], moved).T  # [2, 3], from (x, y, 1)
        back = np.linalg.inv(np.r_[forward, [[0, 0, 1]]])
        from_x, from_y = (back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]))[:2].reshape(2, size, size)
        dx, dy = (amount * scipy.ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3) for f in field)
        for channel in range(3):
            warped = scipy.ndimage.map_coordinates(image[..., channel], [from_y, from_x], order=1, mode="mirror")
            expected = scipy.ndimage.map_coordinates(warped, [y + dy, x + dx], order=1, mode="reflect")
            close(one[..., channel], expected, levels=0.1)


def test_noise_follows_its_distribution(pixels):
    x, shape = pixels / 255, (3, *pixels.shape[1:3])

    def last(values):
        return values.transpose(0, 2, 3, 1)

    photons = numbers(pixels, 250, 25)
    expected = scipy.stats.poisson.ppf(np.maximum(last(draws("shot_noise", shape)), 1e-12), photons * x) / photons
    found = corrupted(pixels, "shot_noise", 2)
    assert np.mean(np.abs(found - np.clip(expected, 0, 1)) > 1e-6) < 1e-4  # at the bound of two numbers of photons
    deviation = numbers(pixels, 0.06, 0.12)
    close(corrupted(pixels, "gaussian_noise", 2), x + deviation * last(normal_draws("gaussian_noise", shape)))
    deviation = numbers(pixels, 0.1, 0.2)
    close(corrupted(pixels, "speckle_noise", 2), x * (1 + deviation * last(normal_draws("speckle_noise", shape))))
    found, share = corrupted(pixels, "impulse_noise", 5), numbers(pixels, 0.07, 0.27)
    black, white = (found == 0) & (x != 0), (found == 1) & (x != 1)
    close(found[~black & ~white], x[~black & ~white])
    for changed in (black, white):
        assert changed.mean() == pytest.approx(share / 2, abs=4 * np.sqrt(share / 2 / x.size))


# Mean absolute change, mean change and its standard deviation by imagecorruptions 1.1.2 (with scikit-image's `multichannel`
# renamed) on synthetic(72), over 30 (glass_blur) to 1000 (fog, frost) runs after numpy.random.seed(0). It rounds down to bytes,
# so 0.5 was added to them, except for impulse_noise, which gives bytes.
PUBLISHED = [
    ("gaussian_noise", 1, 0.0634, 0.0001, 0.0791),
    ("gaussian_noise", 5, 0.2364, -0.0042, 0.2931),
    ("shot_noise", 1, 0.0696, -0.0010, 0.0894),
    ("shot_noise", 5, 0.2626, -0.0576, 0.3150),
    ("impulse_noise", 1, 0.0148, -0.0005, 0.0977),
    ("impulse_noise", 5, 0.1346, -0.0046, 0.2947),
    ("glass_blur", 1, 0.0762, -0.0006, 0.1183),
    ("glass_blur", 5, 0.1365, 0.0007, 0.1729),
    ("motion_blur", 1, 0.0783, 0.0003, 0.1216),
    ("motion_blur", 5, 0.2032, 0.0045, 0.2329),
    ("snow", 1, 0.1721, 0.1721, 0.0817),
    ("snow", 5, 0.3700, 0.3700, 0.1868),
    ("frost", 1, 0.2228, 0.2228, 0.0755),
    ("frost", 5, 0.2678, 0.2543, 0.1817),
    ("fog", 1, 0.1733, -0.0441, 0.2011),
    ("fog", 5, 0.2141, -0.0554, 0.2488),
    ("speckle_noise", 1, 0.0602, -0.0017, 0.0833),
    ("speckle_noise", 5, 0.1938, -0.0422, 0.2578),
]


@pytest.mark.parametrize(("name", "severity", "absolute", "mean", "deviation"), PUBLISHED)
def test_random_changes_are_as_large_as_those_of_published_code(name, severity, absolute, mean, deviation):
    runs, clean = 40 if name in ("fog", "frost", "motion_blur", "snow") else 10, as_images(synthetic(72)[None])
    found = corrupt(clean.expand(runs, -1, -1, -1), name, severity, fold(np.uint64(key("runs")), np.arange(runs)))
    change = (found - clean).double()
    # Over 300 runs, all are within 1 %, frost within 2.5 %.
    assert change.abs().mean().item() == pytest.approx(absolute, rel=0.05)
    assert change.mean().item() == pytest.approx(mean, abs=0.03)
    assert change.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("name", [*COMMON, *EXTRA])
def test_an_image_depends_on_its_key_alone(name, pixels):
    state, images = torch.random.get_rng_state(), as_images(pixels)
    both = corrupt(images, name, 3, KEYS)
    assert both.dtype == torch.float32
    assert both.shape == images.shape
    assert both.min() >= 0
    assert both.max() <= 1
    torch.testing.assert_close(corrupt(images[1:], name, 3, KEYS[1:])[0], both[1], atol=1e-6, rtol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = corrupt(images, name, 3, fold(KEYS, 1))
    drawn = "noise" in name or name in ("glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform")
    assert torch.equal(other, both) != drawn
    changes = [(corrupt(images, name, severity, KEYS) - images).abs().mean().item() for severity in SEVERITIES]
    assert min(changes) > 0
    assert len(set(changes)) >= 4  # CIFAR-10-C's motion blurs 3 and 4 differ in taps that are almost 0


@pytest.mark.parametrize("name", COMMON)
def test_gray_images_are_corrupted_as_rgb_images_are(name):
    gray = as_images(synthetic(32)[None, :, :, :1])
    found = corrupt(gray, name, 3, KEYS[:1])
    assert found.shape == gray.shape
    if "noise" not in name and name != "frost":  # noise differs between channels, and ice has a color
        rgb = corrupt(gray.expand(-1, 3, -1, -1), name, 3, KEYS[:1])
        torch.testing.assert_close(rgb, found.expand(-1, 3, -1, -1), atol=1e-6, rtol=0)


def test_other_channels_are_corrupted_alike_where_colors_do_not_matter():
    images = as_images(np.concatenate([synthetic(32), synthetic(32)[..., :1]], 2)[None])
    for name in ("defocus_blur", "elastic_transform", "pixelate", "contrast"):
        found = corrupt(images, name, 4, KEYS[:1])
        torch.testing.assert_close(found[:, 3], found[:, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "fogg"}, "did you mean 'fog'"),
        ({"severity": 6}, "severity must lie between 1 and 5"),
        ({"images": torch.zeros(2, 3, 4, 4)}, "4 px are too small to corrupt"),
        ({"images": torch.zeros(2, 3, 16, 17)}, "float.N, C, S, S."),
        ({"images": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "float.N, C, S, S."),
        ({"images": torch.zeros(2, 4, 16, 16), "name": "snow"}, "snow is defined for RGB and gray images"),
        ({"images": torch.zeros(2, 1, 16, 16), "name": "saturate"}, "saturate is defined for RGB images"),
        ({"keys": KEYS[:1]}, "2 images need one key each"),
    ],
)
def test_impossible_requests_are_refused(change, words):
    arguments = {"images": torch.zeros(2, 3, 16, 16), "name": "fog", "severity": 1, "keys": KEYS}
    with pytest.raises(ValueError, match=words):
        corrupt(**arguments | change)
