"""pHash against the definition with scipy's DCT, and what it survives."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from wildfern.ssl.curation.perceptual_hash import perceptual_hash


def by_definition(gray: np.ndarray) -> int:
    low = dctn(gray.astype(np.float64), type=2)[:8, :8].ravel()
    median = np.median(low[1:])
    bits = [False, *(low[1:] > median)]
    return int("".join(str(int(bit)) for bit in bits), 2)


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32)).astype(np.float64)


def scene(seed: int, size: int = 256) -> Image.Image:
    """A smooth random image, the more of each frequency the lower it is."""
    waves = np.cos(np.pi * np.outer(np.linspace(0, 1, size), np.arange(12)))
    strengths = np.random.default_rng(seed).normal(size=(12, 12)) / (1 + np.add.outer(np.arange(12), np.arange(12)))
    gray = waves @ strengths @ waves.T
    return Image.fromarray(np.uint8(20 + 210 * (gray - gray.min()) / np.ptp(gray)))


def hash_of(image: Image.Image) -> int:
    return perceptual_hash(np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_it_is_the_definition(dtype):
    for seed in range(50):
        gray = noise(seed).astype(dtype)
        assert perceptual_hash(gray) == by_definition(gray)


def test_half_of_the_bits_are_set_and_never_the_first():
    for seed in range(50):
        found = perceptual_hash(noise(seed))
        assert 0 <= found < 2**63
        assert found.bit_count() == 31  # those above the median of 63


def test_brightness_and_contrast_change_nothing():
    for seed in range(20):
        gray = noise(seed)
        expected = perceptual_hash(gray)
        assert perceptual_hash(gray + 100) == expected
        assert perceptual_hash(gray * 0.25) == expected
        assert perceptual_hash(gray * 3 - 50) == expected


def test_a_negative_has_the_opposite_bits():
    gray = noise(3)
    found, negative = perceptual_hash(gray), perceptual_hash(-gray)
    low = dctn(gray)[:8, :8].ravel()
    middle = int(np.argsort(low[1:])[31]) + 1  # is above the median in neither
    assert found & negative == 0
    assert found | negative == (2**63 - 1) & ~(1 << (63 - middle))


def test_frequencies_that_an_image_lacks_have_no_bit():
    rng = np.random.default_rng(0)
    for number in range(20):
        profile = rng.integers(0, 256, 32).astype(np.float64)
        across = np.tile(profile, (32, 1))
        found = perceptual_hash(across)
        assert found < 2**63
        assert found & ~(0x7F << 56) == 0, number  # the first row of the 8 x 8 alone
        down = perceptual_hash(across.T)
        rows = [(down >> (63 - 8 * y)) & 1 for y in range(8)]
        assert down == sum(bit << (63 - 8 * y) for y, bit in enumerate(rows))
    assert perceptual_hash(np.full((32, 32), 77.0)) == 0


def test_copies_are_near_and_other_images_are_far():
    images = [scene(seed) for seed in range(30)]
    hashes = [hash_of(image) for image in images]
    for image, found in zip(images, hashes, strict=True):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=40)
        assert distance(found, hash_of(Image.open(file))) <= 4
        assert distance(found, hash_of(image.resize((103, 87), Image.Resampling.BICUBIC))) <= 4
    others = [distance(one, other) for n, one in enumerate(hashes) for other in hashes[:n]]
    assert min(others) > 8
    assert 28 < np.mean(others) < 36


def test_known_hashes():
    x = np.cos(np.pi / 32 * 3 * (np.arange(32) + 0.5))
    assert perceptual_hash(np.tile(x, (32, 1))) == 1 << (63 - 3)  # one frequency, one bit
    assert perceptual_hash(np.tile(x, (32, 1)).T) == 1 << (63 - 3 * 8)
    assert perceptual_hash(np.outer(x, x)) == 1 << (63 - 3 * 8 - 3)
