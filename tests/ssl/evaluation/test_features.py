import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.data import square
from wildfern.ssl.evaluation import Features, extract_features
from wildfern.ssl.evaluation.preprocessing import resize_center_crop


class Means(nn.Module):
    """Channel means after a batch norm and a dropout, both of which show in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.norm(x)).mean((2, 3))


def images(n, height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_features_are_the_backbone_on_normalized_images():
    pixels, labels = images(7), np.arange(7)
    backbone = Means()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    features = extract_features(
        backbone, [(pixels[:3], labels[:3]), (pixels[3:], None)], batch_size=2, mean=mean, std=std
    )
    normed = (pixels / 255 - np.array(mean)) / np.array(std)
    expected = normed.mean((1, 2)) / np.sqrt(1 + backbone.norm.eps)
    torch.testing.assert_close(features.x, torch.from_numpy(expected).float())
    assert features.y.tolist() == [0, 1, 2, -1, -1, -1, -1]


def test_the_backbone_keeps_modes_and_statistics():
    backbone = Means()
    backbone.dropout.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = extract_features(backbone, [(images(4), None)])
    assert backbone.training
    assert backbone.norm.training
    assert not backbone.dropout.training
    assert not features.x.requires_grad
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_bf16_still_gives_float32_features():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    exact = extract_features(backbone, [(images(4), None)]).x
    rounded = extract_features(backbone, [(images(4), None)], precision="bf16").x
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(rounded, exact)


def test_images_of_different_sizes_are_cropped_one_by_one():
    ragged = [images(1, 20, 30)[0], images(1, 17, 12, seed=1)[0]]
    together = resize_center_crop(ragged, 10)
    for image, cropped in zip(ragged, together, strict=True):
        np.testing.assert_array_equal((cropped * 255).round().permute(1, 2, 0).numpy(), square(image, 10))


@pytest.mark.parametrize("shape", [(20, 20), (24, 16), (16, 32)])
def test_the_device_resize_agrees_with_the_ragged_one(shape):
    # Smooth images: both are anti-aliased bilinear centre crops, the ragged one rounded to bytes on the way.
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([y * 6, x * 6, y + x], -1).astype(np.uint8)
    fast = resize_center_crop(image[None], 8)[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(fast, square(image, 8), atol=1.01)


def test_lists_of_one_shape_and_arrays_are_the_same():
    pixels = images(3, 12, 12)
    assert torch.equal(resize_center_crop(list(pixels), 6), resize_center_crop(pixels, 6))


def test_a_backbone_that_keeps_its_map_is_refused():
    with pytest.raises(ValueError, match="num_classes=0"):
        extract_features(nn.Conv2d(3, 4, 1), [(images(2), None)])


def test_no_images_and_unequal_labels_are_refused():
    with pytest.raises(ValueError, match="no images"):
        extract_features(Means(), [])
    with pytest.raises(ValueError, match="2 images has 3 labels"):
        extract_features(Means(), [(images(2), np.arange(3))])
    with pytest.raises(ValueError, match="need a size"):
        resize_center_crop([images(1, 4, 5)[0], images(1, 5, 4)[0]], None)
    with pytest.raises(ValueError, match="x\\[N, D\\]"):
        Features(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))
