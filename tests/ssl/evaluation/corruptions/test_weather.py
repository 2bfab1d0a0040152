import numpy as np
import pytest
from corrupted_images import (
    KEYS,
    close,
    corrupted,
    draws,
    in_hsv,
    motion_blurred,
    normal_draws,
    numbers,
    synthetic,
    two_images,
    zoomed,
)

from wildfern.generators.counter_rng import fold, key, uniform


@pytest.fixture(params=[32, 68])
def pixels(request):
    return two_images(request.param)


def test_brightness_is_that_of_hsv(pixels):
    pixels[0, :2] = [[[0, 0, 0]], [[90, 90, 90]]]  # without a hue
    summand = numbers(pixels, 0.15, 0.3)
    close(corrupted(pixels, "brightness", 3), in_hsv(lambda h, s, v: (h, s, min(v + summand, 1)), pixels))


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
