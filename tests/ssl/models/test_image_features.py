import numpy as np
import pytest
import torch

from wildfern.ssl.models import Backbone
from wildfern.ssl.models.image_features import ColorHistogram, Pixels


@pytest.mark.parametrize("size", [32, 48, 40])
def test_pixels_are_means_of_areas(size):
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = Pixels()(images).view(3, 3, 16, 16)
    for row, column in ((0, 0), (7, 3), (15, 15)):
        rows, columns = (slice(size * at // 16, -(-size * (at + 1) // 16)) for at in (row, column))
        torch.testing.assert_close(found[:, :, row, column], images[:, :, rows, columns].mean((2, 3)))


def test_pixels_of_small_and_gray_images():
    images = torch.rand(2, 1, 8, 8)
    found = Pixels()(images).view(2, 1, 16, 16)
    torch.testing.assert_close(found[:, :, ::2, 1::2], images)


def test_a_color_histogram_counts_colors():
    images = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images[0] = 1.0  # the upper bound is of the last bin
    expected = np.zeros((4, 4, 4, 4))
    for number, image in enumerate(images.permute(0, 2, 3, 1).flatten(1, 2).tolist()):
        for color in image:
            expected[(number, *(min(int(4 * value), 3) for value in color))] += 1 / 144
    found = ColorHistogram()(images)
    np.testing.assert_allclose(found.view(4, 4, 4, 4).numpy(), np.sqrt(expected), rtol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("name", ["pixels", "color_histogram"])
def test_they_are_no_networks_to_train(name):
    with pytest.raises(ValueError, match=f"{name} has no weights to train or load: it is a baseline for evaluations"):
        Backbone(name)
