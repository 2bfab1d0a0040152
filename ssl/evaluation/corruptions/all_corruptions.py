"""The common corruptions of images of Hendrycks & Dietterich (ICLR 2019), for batches, on the device of the images.

Operations and numbers are those of the published code. Images of more than 64 px get the numbers of ImageNet-C, made for 224 px,
smaller ones those of CIFAR-10-C, made for 32 px. Radii and shifts are pixels and are not scaled, so at another size a severity
is not the published one: a blur of ImageNet-C is stronger at 96 px than at 224 px. Published images are stored as bytes, those
of ImageNet-C as JPEG of quality 85; here results stay float32. `frost` draws ice instead of using the published photographs,
and `spatter` is left out. Every draw is a pure function of an image's key, with the same bits on every device.
"""

import torch
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, key
from wildfern.generators.options import checked_choice, checked_integer
from wildfern.ssl.evaluation.corruptions import blur, digital, noise, weather  # noqa: F401  (they fill the table)
from wildfern.ssl.evaluation.corruptions.settings import CORRUPTIONS
from wildfern.ssl.losses.full_precision import without_autocast

SMALL_UP_TO = 64  # pixels
LEAST_SIZE = 8
SEVERITIES = (1, 2, 3, 4, 5)
# The benchmark.
COMMON = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")  # three of the four for choices, which the benchmark leaves out


def corrupt(images: Tensor, name: str, severity: int, keys: Keys) -> Tensor:
    """The corrupted images, float32[N, C, S, S] in [0, 1], of float[N, C, S, S] in [0, 1]; keys uint64[N], one for each image.

    Names are those of `COMMON` and `EXTRA`, severities 1 to 5, which share their random draws. Gray images (C = 1) are corrupted
    as RGB images and stay gray. `shot_noise`, `pixelate` and `jpeg_compression` round images to bytes first, as the published
    ones are; the last two use Pillow on the CPU. Raises ValueError for what `check_corruption` refuses, and for images or keys
    of other shapes.
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point():
        raise ValueError(f"images to corrupt are float[N, C, S, S] in [0, 1], got {images.dtype} {list(images.shape)}")
    channels, size = images.shape[1], images.shape[3]
    check_corruption(name, severity, channels, size)
    if keys.shape != (len(images),):
        raise ValueError(f"{len(images)} images need one key each, got {list(keys.shape)}")
    operation, large, small, rgb, _ = CORRUPTIONS[name]
    numbers = (small if size <= SMALL_UP_TO else large)[severity - 1]
    images, keys = images.float().contiguous(), fold(keys, key(name))
    with torch.no_grad(), without_autocast(images):
        if channels == 1 and rgb:
            return operation(images.expand(-1, 3, -1, -1), numbers, keys).clamp(0, 1).mean(1, keepdim=True)
        return operation(images, numbers, keys).clamp(0, 1)


def check_corruption(name: str, severity: int, channels: int, size: int) -> None:
    """Raises ValueError for an unknown name or severity, and for images that the corruption is not defined for."""
    checked_choice("corruption", name, (*COMMON, *EXTRA))
    checked_integer("severity", severity, 1, 5)
    if size < LEAST_SIZE:
        raise ValueError(f"images of {size} px are too small to corrupt: at least {LEAST_SIZE} px are needed")
    found = CORRUPTIONS[name]
    if found.rgb and not (channels == 3 or (channels == 1 and found.gray)):
        kinds = "RGB and gray images" if found.gray else "RGB images"
        raise ValueError(
            f"the corruption {name} is defined for {kinds}, and these have {channels} channels: leave it out"
        )
