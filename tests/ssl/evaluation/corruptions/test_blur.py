import numpy as np
import pytest
import scipy.ndimage
from corrupted_images import KEYS, close, corrupted, draws, motion_blurred, numbers, two_images, zoomed

from wildfern.generators.counter_rng import fold, key, uniform


@pytest.fixture(params=[32, 68])
def pixels(request):
    return two_images(request.param)


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


def test_motion_blur_follows_a_line(pixels):
    degrees = 90 * uniform(fold(KEYS, key("motion_blur")), 1)[:, 0] - 45
    radius, sigma = numbers(pixels, (9, 2.5), (20, 15))
    expected = [motion_blurred(x, radius, sigma, angle) for x, angle in zip(pixels / 255, degrees, strict=True)]
    close(corrupted(pixels, "motion_blur", 5), np.stack(expected))
