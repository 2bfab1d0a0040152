"""Overlays of a stream of images: which ones, what they show, and how large they are."""

import io

import numpy as np
from masked_squares import noisy_image
from PIL import Image

from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.report.images import is_small_jpeg
from wildfern.ssl.evaluation.report.segmentation_overlays import SpreadOverlays, small_jpeg
from wildfern.ssl.segmentation.overlay import FALSE_ALARM, FOUND, MISSED


def test_overlays_are_spread_evenly_over_a_stream_and_few_are_kept():
    image = noisy_image(0, (4, 4))
    for count in (1, 7, 8, 9, 16, 17, 33, 100, 257):
        overlays = SpreadOverlays()
        for item in range(count):
            overlays.add(image._replace(item=item), image.mask, None, item / count)
            assert len(overlays._kept) <= 16
        items, dice, files = overlays.spread()
        assert len(items) == len(dice) == len(files) == min(count, 8)
        assert items[0] == 0
        assert items[-1] >= 0.8 * count - 1
        assert (np.diff(items) > 0).all()
        assert np.diff(items, append=count).max() <= 3 * max(1, count // 8)
        np.testing.assert_allclose(dice, items / count, rtol=1e-6)


def test_overlays_show_what_is_found_missed_and_false():
    mask, predicted = np.zeros((2, 48, 64), bool)
    mask[:, :32], predicted[:24] = True, True
    overlays = SpreadOverlays()
    overlays.add(MaskedImage(np.full((48, 64, 1), 100, np.uint8), mask, None, 5), predicted, None, 0.5)
    items, _, (file,) = overlays.spread()
    pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), float)
    assert items.tolist() == [5]
    for place, color in (((8, 8), FOUND), ((40, 8), MISSED), ((8, 56), FALSE_ALARM)):
        np.testing.assert_allclose(pixels[place], 0.75 * np.array(color) + 25, atol=6)
    np.testing.assert_allclose(pixels[40, 56], 100, atol=4)


def test_overlays_of_large_noisy_images_are_small_files():
    noise = np.random.default_rng(0).integers(0, 256, (900, 500, 3), np.uint8)
    for pixels, size in ((noise, (222, 400)), (noise[:400, :400], (400, 400)), (noise[:1], (400, 1))):
        file = small_jpeg(pixels)
        assert is_small_jpeg(file)
        assert Image.open(io.BytesIO(file)).size == size
