import math

import numpy as np
import pytest
import torch

from wildfern.generators.counter_rng import fold, uniform
from wildfern.ssl.evaluation.protocols.random_erasing import draw_rectangles, normal_pixels, random_erasing


def keys(n, seed=3):
    return fold(np.uint64(seed), np.arange(n))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 9), (1, 1)])
def test_rectangles_match_the_loop(height, width):
    found = draw_rectangles(keys(60), 0.6, height, width)
    for key, rectangle in zip(keys(60), found, strict=True):
        expected = [0, 0, 0, 0]
        if uniform(key, 1)[0] < 0.6:
            for a, b, down, right in uniform(fold(key, 0), 40).reshape(10, 4):
                area = height * width * (0.02 + (1 / 3 - 0.02) * a)
                ratio = math.exp(math.log(0.3) + (math.log(1 / 0.3) - math.log(0.3)) * b)
                rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if rows < height and columns < width:
                    top, left = math.floor(down * (height - rows + 1)), math.floor(right * (width - columns + 1))
                    expected = [top, left, rows, columns]
                    break
        assert rectangle.tolist() == expected
    assert (found[:, 0] + found[:, 2] <= height).all()
    assert (found[:, 1] + found[:, 3] <= width).all()


def test_the_share_of_images_and_of_their_area():
    found = draw_rectangles(keys(20000), 0.25, 64, 64)
    area = found[:, 2] * found[:, 3] / 64**2
    assert (area > 0).mean() == pytest.approx(0.25, abs=0.01)
    assert area[area > 0].mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)


def test_only_the_rectangles_of_some_images_become_normal_noise():
    images = torch.rand(200, 3, 24, 24) + 100
    before = images.clone()
    erased = random_erasing(images, keys(200), 0.5)
    assert torch.equal(images, before)
    inside = torch.zeros(200, 1, 24, 24, dtype=torch.bool)
    for i, (top, left, height, width) in enumerate(draw_rectangles(keys(200), 0.5, 24, 24)):
        inside[i, :, top : top + height, left : left + width] = True
    assert torch.equal(erased.where(~inside, before), before)
    noise = erased.masked_select(inside)
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    some = np.array([150, 3, 77])
    assert torch.equal(random_erasing(images[some], keys(200)[some], 0.5), erased[some])
    assert random_erasing(images, keys(200), 0.0) is images


def test_the_noise_is_finite_where_the_uniform_numbers_end(monkeypatch):
    ends = torch.tensor([[[0.0, 1 - 2**-24]], [[0.5, 0.5]]])[None]
    monkeypatch.setattr("wildfern.ssl.evaluation.protocols.random_erasing.uniform_pixels", lambda keys, shape: ends)
    assert normal_pixels(torch.zeros(1, dtype=torch.int64), (1, 2)).isfinite().all()
