import numpy as np
import pytest
import scipy.stats
from corrupted_images import close, corrupted, draws, normal_draws, numbers, two_images


@pytest.fixture(params=[32, 68])
def pixels(request):
    return two_images(request.param)


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
