"""Our operations as kornia modules: settings, same_on_batch, shapes, types and devices."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from kornia.augmentation import AugmentationSequential

from wildfern.ssl.augmentation import ColorJitter, GaussianBlur, RandomResizedCropFlip, Solarize
from wildfern.ssl.augmentation.blur import blur_matrix
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.operation import GeometricOperation, check_probabilities, on_device, to_tensors
from wildfern.ssl.augmentation.table import draw_table

NAN = float("nan")
OPERATIONS = {
    "jitter": lambda **k: ColorJitter(p=0.5, gray=0.3, **k),
    "blur": lambda **k: GaussianBlur(p=0.5, **k),
    "solarize": lambda **k: Solarize(p=0.5, **k),
}
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


class Crop(GeometricOperation):
    """A crop that passes on kornia's arguments."""

    named: ClassVar = {"crop_scale": "scale"}

    def __init__(self, size, scale=(0.2, 1.0), **kornia):
        super().__init__(size=size, crop_scale=scale, flip=0.5, **kornia)

    def parameters_from(self, table, height, width):
        images = table.crop.shape[1]
        boxes = table.boxes(np.full(images, height), np.full(images, width))
        return {"box": boxes.reshape(-1, 4), "flip": table.flat("flip")}

    def compute_transformation(self, input, params, flags):
        return self.identity_matrix(input)

    def apply_transform(self, input, params, flags, transform=None):
        images, size = input.permute(0, 2, 3, 1), self.settings.size
        return crop_views(images, params["box"][None], params["flip"][None], size)


def images(n=16, side=32, seed=0):
    smooth = torch.rand(n, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(smooth, (side, side), mode="bicubic").clamp(0, 1)


def alone(n=16):
    return images(1).expand(n, -1, -1, -1)


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        (ColorJitter, {"p": NAN}, r"^p must be a probability in \[0, 1\], got nan"),
        (ColorJitter, {"p": 1.5}, r"^p must be a probability in \[0, 1\], got 1.5"),
        (ColorJitter, {"gray": -0.1}, r"^gray must be a probability"),
        (ColorJitter, {"brightness": -1}, r"^brightness must be .* 0 or more, got -1"),
        (ColorJitter, {"contrast": NAN}, r"^contrast must be"),
        (ColorJitter, {"saturation": float("inf")}, r"^saturation must be"),
        (ColorJitter, {"hue": 0.6}, r"^hue must be in \[0, 0.5\], got 0.6"),
        (ColorJitter, {"p": 2, "hue": NAN}, r"hue must be .*; p must be a probability"),
        (ColorJitter, {"p": "often"}, r"^p='often': "),
        (GaussianBlur, {"p": NAN}, r"^p must be a probability"),
        (GaussianBlur, {"sigma": (2.0, 0.1)}, r"^sigma must satisfy 0 < low ≤ high"),
        (GaussianBlur, {"sigma": (NAN, 2.0)}, r"^sigma must satisfy"),
        (GaussianBlur, {"sigma": 0.5}, r"^sigma must be a pair .*, got 0.5"),
        (Solarize, {"p": -1}, r"^p must be a probability in \[0, 1\], got -1"),
        (Crop, {"size": 3}, r"^size=3: .* too small"),
        (Crop, {"size": 8, "scale": (0.2, 2.0)}, r"^scale, shares of the image area, must satisfy"),
    ],
)
def test_impossible_settings_are_named_like_the_arguments(operation, arguments, message):
    with pytest.raises(ValueError, match=message):
        operation(**arguments)


def test_unknown_settings():
    with pytest.raises(TypeError, match="Crop has no argument 'p_batch'"):
        Crop(8, p_batch=0.5)


@pytest.mark.parametrize("value", [NAN, -0.01, 1.01, "0.5", ".nan", None, [0.5]])
def test_an_invalid_probability_is_refused(value):
    with pytest.raises(ValueError, match=r"p_batch must be a probability in \[0, 1\], got"):
        check_probabilities(p=0.5, p_batch=value)


def test_probabilities():
    check_probabilities(p=0, q=1.0, r=np.float32(0.5))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("by_container", [False, True])
def test_same_on_batch(name, by_container):
    if by_container:
        operation = AugmentationSequential(OPERATIONS[name](), data_keys=["input"], same_on_batch=True)
    else:
        operation = OPERATIONS[name](same_on_batch=True)
    torch.manual_seed(0)
    seen = [operation(alone()) for _ in range(12)]
    for batch in seen:
        torch.testing.assert_close(batch, batch[:1].expand_as(batch), rtol=0, atol=1e-6)
    assert len({tuple(batch[0].flatten().tolist()) for batch in seen}) > 1
    own = OPERATIONS[name]()(alone())
    assert (own - own[:1]).abs().max() > 1e-3


def test_same_crop_on_batch():
    crops = AugmentationSequential(Crop(16), data_keys=["input"], same_on_batch=True)(alone())
    torch.testing.assert_close(crops, crops[:1].expand_as(crops), rtol=0, atol=1e-6)
    crops = Crop(16)(alone())
    assert (crops - crops[:1]).abs().max() > 1e-2


@pytest.mark.parametrize("operation", [*OPERATIONS.values(), lambda **k: Crop(16, **k)])
def test_keepdim(operation):
    x = images()[0]
    assert operation()(x).dim() == 4
    assert operation(keepdim=True)(x).dim() == 3


def test_a_module_shows_its_settings():
    shown = repr(GaussianBlur(sigma=(0.5, 1.0), p=0.3, same_on_batch=True))
    assert shown == "GaussianBlur(sigma=(0.5, 1.0), p=0.3, same_on_batch=True, keepdim=False)"
    assert repr(Solarize(0.4)) == "Solarize(p=0.4, same_on_batch=False, keepdim=False)"
    assert repr(ColorJitter(p=0.7, gray=0.2)).startswith(
        "ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.7, gray=0.2,"
    )


def test_a_crop_has_an_inverse_for_points_only():
    points = torch.rand(4, 5, 2) * 31
    chain = AugmentationSequential(RandomResizedCropFlip(24), data_keys=["input", "keypoints"])
    views, moved = chain(images(4), points)
    torch.testing.assert_close(chain.inverse(moved, data_keys=["keypoints"]), points, rtol=0, atol=1e-3)
    with pytest.raises(NotImplementedError, match="RandomResizedCropFlip has no inverse for images"):
        chain.inverse(views, data_keys=["input"])


@pytest.mark.parametrize("channels", [1, 4])
def test_colors_need_three_channels(channels):
    with pytest.raises(ValueError, match=rf"\[N, 3, H, W\], got \[4, {channels}, 8, 8\]"):
        ColorJitter()(torch.rand(4, channels, 8, 8))


@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_changes_nothing(name):
    x, operation = images(), OPERATIONS[name]()
    parameters = operation.forward_parameters(x.shape)
    expected = operation(x, dict(parameters))
    with torch.autocast("cpu", torch.bfloat16):
        out = operation(x, dict(parameters))
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


def test_blur_matrices_are_in_single_precision_under_autocast():
    sigma = torch.linspace(0, 2, 9)
    expected = blur_matrix(sigma, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(blur_matrix(sigma, 40), expected)


class HostTensor:
    """Records how it was copied."""

    def __init__(self, pinned=False):
        self.device, self.pinned = torch.device("cpu"), pinned

    def pin_memory(self):
        return HostTensor(pinned=True)

    def to(self, device, non_blocking=False):
        return device.type, self.pinned, non_blocking


def test_copies_to_a_gpu_do_not_block():
    assert on_device(HostTensor(), torch.device("cuda")) == ("cuda", True, True)
    assert on_device(HostTensor(), torch.device("cpu")) == ("cpu", False, False)
    x = torch.rand(3)
    assert on_device(x, x.device) is x


@on_a_gpu
@pytest.mark.parametrize("name", OPERATIONS)
def test_modules_with_numbers_on_the_host_do_not_wait_for_the_gpu(name):
    x, operation = images(), OPERATIONS[name]()
    table = draw_table([operation.settings], 0, 0, np.arange(len(x)), 0)
    parameters = to_tensors(operation.parameters_from(table, 32, 32), x.device)
    expected, on_gpu = operation(x, dict(parameters)), x.cuda()
    operation(on_gpu, dict(parameters))  # constants that stay there are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = operation(on_gpu, dict(parameters))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), expected, rtol=0, atol=1e-5)


def test_masks_are_cropped_like_images_without_new_classes():
    classes = torch.zeros(6, 1, 32, 48)
    classes[:, :, 8:20, 10:30] = 7
    chain = AugmentationSequential(RandomResizedCropFlip(24, scale=(0.1, 1.0)), data_keys=["input", "mask"])
    torch.manual_seed(0)
    smooth, mask = chain((classes / 7).expand(-1, 3, -1, -1).contiguous(), classes)
    assert set(mask.unique().tolist()) == {0, 7}
    smooth = smooth[:, :1]
    sure = (smooth < 0.01) | (smooth > 0.99)
    assert sure.float().mean() > 0.6
    torch.testing.assert_close(mask[sure] / 7, smooth[sure], rtol=0, atol=0.02)
