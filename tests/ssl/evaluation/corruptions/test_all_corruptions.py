import numpy as np
import pytest
import torch
from corrupted_images import KEYS, as_images, synthetic, two_images

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.evaluation.corruptions.all_corruptions import COMMON, EXTRA, SEVERITIES, corrupt


@pytest.fixture(params=[32, 68])
def pixels(request):
    return two_images(request.param)


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
