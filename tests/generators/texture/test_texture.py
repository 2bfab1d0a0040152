"""The stream of textures: no flat or noisy images, similarity within classes, arguments, programs as text."""

import itertools
import pickle

import numpy as np
import pytest

from wildfern.generators.texture.texture import TextureStream


def gray_of(images: np.ndarray) -> np.ndarray:
    return images.astype(float) @ np.array([0.299, 0.587, 0.114])


def fine_share(gray: np.ndarray) -> np.ndarray:
    """Share of the power, without the mean, above half of the highest frequency of an axis. White noise: about 3/4."""
    size = gray.shape[-1]
    power = np.abs(np.fft.fft2(gray)) ** 2
    power[:, 0, 0] = 0
    f = np.abs(np.fft.fftfreq(size))
    fine = np.maximum(f[:, None], f) > 0.25
    return power[:, fine].sum(1) / power.sum((1, 2))


def features(gray: np.ndarray) -> np.ndarray:
    """What is left of images without their colors: spectrum by radius, directions of gradients, contrast of gradients."""
    n, size, _ = gray.shape
    ranks = gray.reshape(n, -1).argsort(1).argsort(1).reshape(gray.shape) / size**2 - 0.5
    window = np.hanning(size)
    power = np.abs(np.fft.fft2(ranks * window[:, None] * window)) ** 2
    f = np.fft.fftfreq(size) * size
    radius, edges = np.hypot(f[:, None], f), np.geomspace(1, size / 2, 9)
    rings = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(edges)]
    spectrum = np.stack([np.log(power[:, ring].mean(1)) for ring in rings], 1)
    down, across = np.gradient(ranks, axis=(1, 2))
    steep, direction = np.hypot(across, down), np.arctan2(down, across) % np.pi // (np.pi / 8)
    directions = np.stack([(steep * (direction == k)).mean((1, 2)) for k in range(8)], 1)
    quantiles = np.quantile(steep.reshape(n, -1), [0.25, 0.5, 0.75, 0.9], axis=1).T
    mean = steep.mean((1, 2))[:, None]
    everything = np.concatenate([spectrum, directions / mean, quantiles / mean], 1)
    return (everything - everything.mean(0)) / everything.std(0)


@pytest.mark.parametrize(
    ("size", "count", "arguments"),
    [
        (8, 1500, {}),
        (32, 2000, {"seed": 1}),
        (33, 600, {"complexity": (8, 16), "variation": 2.0}),
        (64, 800, {"seed": 2, "oversampling": 1}),
        (64, 300, {"complexity": (1, 1), "color": False}),
    ],
)
def test_no_image_is_flat_and_none_is_noise(size, count, arguments):
    images = TextureStream(size=size, classes=700, **arguments).batch(np.arange(count) * 7 + 10**9).images
    gray = gray_of(images)
    assert gray.std((1, 2)).min() > 17
    fullest = max(np.bincount(image.astype(int).ravel() // 8).max() for image in gray)
    assert fullest <= 0.81 * size**2
    noise = np.random.default_rng(0).uniform(0, 255, (200, size, size))
    assert fine_share(gray).max() < (0.7 if size > 8 else 0.8)
    assert np.median(fine_share(gray)) < 0.2 < 0.6 < np.median(fine_share(noise))
    for axis in (1, 2):
        difference = (np.diff(gray, axis=axis) ** 2).mean((1, 2)) / (2 * gray.var((1, 2)))
        assert difference.max() < 0.72  # independent neighbors: 1


def test_images_of_a_class_are_more_alike_than_others():
    classes, instances = 80, 6
    stream = TextureStream(size=64, classes=classes, seed=3)
    batch = stream.batch(np.arange(classes * instances))
    assert (batch.labels == np.arange(classes * instances) % classes).all()
    x = features(gray_of(batch.images))
    distance = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
    same = batch.labels[:, None] == batch.labels
    np.fill_diagonal(distance, np.inf)
    within = distance[same & np.isfinite(distance)].mean()
    assert within < 0.8 * distance[~same].mean()
    assert (batch.labels[distance.argmin(1)] == batch.labels).mean() > 0.2  # by chance: 1 in 96


def test_variation_sets_how_far_instances_move():
    classes, instances = 60, 5
    spread = []
    for variation in (0.0, 1.0):
        stream = TextureStream(size=48, classes=classes, variation=variation, color=False, oversampling=1)
        x = features(gray_of(stream.batch(np.arange(classes * instances)).images)).reshape(instances, classes, -1)
        spread.append(x.std(0).mean())
    assert spread[0] < 0.85 * spread[1]


def test_colors_and_grays():
    gray = TextureStream(size=32, color=False).batch(np.arange(100)).images
    assert (gray == gray[..., :1]).all()
    colored = TextureStream(size=32).batch(np.arange(100)).images.astype(int)
    assert (np.ptp(colored, axis=-1).mean((1, 2)) > 10).mean() > 0.8


def test_oversampling_comes_near_the_mean_over_each_pixel():
    """Of 4 × 4 samples; images that were refused in one of the streams are left out by the median."""
    images = [
        TextureStream(size=32, oversampling=k, seed=4).batch(np.arange(150)).images.astype(int) for k in (1, 2, 4)
    ]
    error = [np.median(np.abs(image - images[2]).mean((1, 2, 3))) for image in images[:2]]
    assert error[1] < 0.6 * error[0]


def test_a_larger_image_shows_more_of_the_same():
    small = features(gray_of(TextureStream(size=32, seed=5).batch(np.arange(200)).images))
    large = features(gray_of(TextureStream(size=64, seed=5).batch(np.arange(200)).images))
    matching = np.sqrt(((small - large) ** 2).sum(1)).mean()
    others = np.sqrt(((small - np.roll(large, 1, 0)) ** 2).sum(1)).mean()
    assert matching < 0.75 * others


def test_complexity_is_the_number_of_instructions():
    simple, complicated = TextureStream(complexity=(1, 1)), TextureStream(complexity=(12, 12))
    lengths = [np.mean([stream.program(label).count("(") for label in range(60)]) for stream in (simple, complicated)]
    assert lengths[0] < 6 < 12 < lengths[1]


def test_programs_belong_to_classes():
    stream = TextureStream(size=16, classes=50)
    texts = [stream.program(label) for label in range(50)]
    assert len(set(texts)) == 50
    stream.batch(np.arange(300))
    assert [stream.program(label) for label in range(50)] == texts
    assert [TextureStream(size=224, classes=10**6).program(label) for label in range(50)] == texts
    assert TextureStream(seed=1).program(0) != texts[0]
    with pytest.raises(ValueError, match="label must lie between 0 and 49, not 50"):
        stream.program(50)


def test_cached_classes_change_nothing():
    """Streams that saw all classes before, none, or remember none give the same bytes."""
    seen, fresh = TextureStream(size=16, classes=200), TextureStream(size=16, classes=200)
    seen.batch(np.arange(200))
    indices = np.arange(1000, 1200)
    expected = fresh.batch(indices).images
    np.testing.assert_array_equal(seen.batch(indices).images, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(seen)).batch(indices[::-1]).images[::-1], expected)
    forgetful = TextureStream(size=16, classes=200)
    forgetful._taken = forgetful._taken[:0]
    np.testing.assert_array_equal(forgetful.batch(indices).images, expected)


def test_there_is_no_limit_to_class_numbers():
    stream = TextureStream(size=16, classes=2**62)
    indices = np.array([0, 2**61, 2**62 - 1, 2**62 + 5, -1])
    batch = stream.batch(indices)
    assert batch.labels.tolist() == [0, 2**61, 2**62 - 1, 5, 2**62 - 1]
    assert len(np.unique(batch.images.reshape(5, -1), axis=0)) == 5
    assert stream.program(5) == TextureStream(size=16).program(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 7}, "size must lie between 8 and 2048, not 7"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"complexity": 3}, r"complexity must be a pair, least and most, such as \(1, 16\), not 3"),
        ({"complexity": (0, 3)}, "the least of complexity must lie between 1 and 16, not 0"),
        ({"complexity": (5, 2)}, r"complexity must be in order, least first: \(2, 5\), not \(5, 2\)"),
        ({"variation": 3}, "variation must be a number between 0.0 and 2.0, not 3"),
        ({"oversampling": 5}, "oversampling must lie between 1 and 4, not 5"),
        ({"size": 2048, "oversampling": 3}, "size × oversampling must be 4096 or less, not 2048 × 3"),
        ({"color": 2}, "color must be true or false, not 2"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextureStream(**arguments)
