"""Evaluation images with any number of channels."""

import numpy as np
import pytest
import torch

from wildfern.ssl.evaluation.preprocessing import normalized, resize_center_crop

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 20, 26, 13), np.uint8)


@pytest.mark.parametrize("of_several_sizes", [False, True])
def test_each_channel_is_resized_and_cropped_like_those_of_rgb(of_several_sizes):
    images = [IMAGES[0], IMAGES[1, :18]] if of_several_sizes else IMAGES
    whole = resize_center_crop(images, 12)
    assert whole.shape == (2, 13, 12, 12)
    three = resize_center_crop([np.ascontiguousarray(image[..., 4:7]) for image in images], 12)
    torch.testing.assert_close(whole[:, 4:7], three, rtol=0, atol=1.01 / 255 if of_several_sizes else 1e-6)


def test_normalization_needs_a_number_for_each_channel():
    images = resize_center_crop(IMAGES[..., :2], None)
    expected = torch.stack([(images[:, 0] - 0.5) / 0.25, (images[:, 1] - 0.1) / 0.5], dim=1)
    torch.testing.assert_close(normalized(images, (0.5, 0.1), (0.25, 0.5)), expected)
    with pytest.raises(ValueError, match="images have 2 channels, but 3 are normalized"):
        normalized(images, (0.5,) * 3, (0.5,) * 3)
