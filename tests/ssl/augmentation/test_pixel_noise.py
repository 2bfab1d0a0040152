import numpy as np
import torch

from wildfern.generators import counter_rng
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels


def test_pixels_are_the_draws_of_the_counter_generator():
    keys = np.array([0, 1, 2**63, 2**64 - 1, counter_rng.key("noise", 7)], np.uint64)
    noise = uniform_pixels(torch.from_numpy(keys.view(np.int64)), (3, 5, 7))
    expected = (counter_rng.bits(keys, 105) >> np.uint64(40)).astype(np.float32) / 2**24
    assert noise.shape == (5, 3, 5, 7)
    np.testing.assert_array_equal(noise.flatten(1), expected)
