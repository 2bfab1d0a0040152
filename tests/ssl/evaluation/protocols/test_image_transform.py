"""The transform of images for other programs is the preprocessing of the evaluation."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.augmentation import LocalIntensityOrder
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.evaluation import Preprocessing, TransformedBackbone, extract_features
from wildfern.ssl.evaluation.protocols.image_transform import ImageTransform

SETTINGS = Preprocessing(size=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


class Flat(nn.Module):
    """A backbone whose features are its input."""

    def forward(self, x):
        return x.flatten(1)


def evaluated(images, settings=SETTINGS, backbone=None):
    """What an evaluation of these images gives to the backbone, float32[N, …] as one row for each image."""
    arguments = {"size": settings.size, "mean": settings.mean, "std": settings.std}
    features = extract_features(backbone or Flat(), [(images, None)], interpolation=settings.interpolation, **arguments)
    return features.x


def photographs(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, np.uint8) for shape in shapes]


def test_a_single_image_is_as_in_a_set_of_its_shape():
    [image] = photographs((40, 30, 3))
    given = {
        "Pillow": Image.fromarray(image),
        "numpy": image,
        "torch": torch.from_numpy(image).permute(2, 0, 1),
    }
    for interpolation in ("bilinear", "bicubic"):
        settings = Preprocessing(12, None, SETTINGS.mean, SETTINGS.std, interpolation=interpolation)
        for name, one in given.items():
            found = ImageTransform(settings)(one)
            assert found.shape == (3, 12, 12), name
            assert torch.equal(found.flatten(), evaluated(image[None], settings)[0]), name


@pytest.mark.parametrize("shapes", [[(40, 30, 3), (20, 50, 3)], [(16, 16, 3)] * 3])
def test_a_list_is_as_a_set_of_these_images(shapes):
    images = photographs(*shapes)
    expected = evaluated(images)
    assert torch.equal(ImageTransform(SETTINGS)(images).flatten(1), expected)
    assert torch.equal(ImageTransform(SETTINGS)([Image.fromarray(image) for image in images]).flatten(1), expected)


def test_arrays_and_tensors_of_several_images():
    images = np.stack(photographs(*[(20, 24, 3)] * 3))
    found = ImageTransform(SETTINGS)(images)
    assert torch.equal(found, ImageTransform(SETTINGS)(torch.from_numpy(images).permute(0, 3, 1, 2)))
    assert torch.equal(found.flatten(1), evaluated(images))


def test_one_channel_is_kept_for_a_backbone_of_one_and_repeated_for_three():
    [gray] = photographs((20, 24))
    one = ImageTransform(Preprocessing(12, None, (0.4,), (0.2,)), channels=1)
    for image in (gray, Image.fromarray(gray), torch.from_numpy(gray)):
        found = one(image)
        assert torch.equal(found.flatten(), evaluated(gray[None, ..., None], one.preprocessing)[0])
        assert torch.equal(ImageTransform(SETTINGS)(image), ImageTransform(SETTINGS)(np.stack([gray] * 3, axis=2)))


def test_the_intensity_order_is_that_of_the_evaluation():
    images = np.stack(photographs(*[(20, 24, 3)] * 2))
    order, settings = LocalIntensityOrder(standardize=True), Preprocessing(12, None, (0.0,) * 3, (1.0,) * 3)
    found = ImageTransform(settings, then=order)(images)
    assert found.shape == (2, 4, 12, 12)
    assert torch.equal(found.flatten(1), evaluated(images, settings, TransformedBackbone(order, Flat())))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pillow_images_become_the_pixels_of_their_files(mode):
    rng = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (12, 12), np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (12, 12, 4), np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    pixels = Decoding().decode(file.getvalue())
    assert torch.equal(ImageTransform(SETTINGS)(image).flatten(), evaluated(pixels[None])[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"got float32\[8, 8, 3\]; scale"),
        (torch.zeros(3, 8, 8), r"got float32\[8, 8, 3\]; scale"),
        (np.zeros((8, 8, 4), np.uint8), "4 channels, but this backbone takes 3"),
        (np.zeros(8, np.uint8), r"got uint8\[8\]"),
        ("photo.jpg", "got str"),
        ([], "no images"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        ImageTransform(SETTINGS)(image)


def test_a_pillow_image_of_other_bands_is_refused():
    with pytest.raises(ValueError, match="mode RGB has 3 bands, but this backbone takes 1: convert it"):
        ImageTransform(Preprocessing(12, None, (0.4,), (0.2,)), channels=1)(Image.new("RGB", (9, 9)))


@pytest.mark.parametrize(
    "empty",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 8, 3), np.uint8), Image.new("RGB", (0, 5)), []],
    ids=["no images", "no rows", "Pillow", "no list"],
)
def test_empty_images_are_refused(empty):
    with pytest.raises(ValueError, match=r"no images to transform|has no pixels|has none"):
        ImageTransform(SETTINGS)(empty)
