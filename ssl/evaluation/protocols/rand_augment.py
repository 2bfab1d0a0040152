"""RandAugment (Cubuk et al., 2020) of bytes on their device, as DeiT and MAE use it: timm's "rand-m9-mstd0.5-inc1".

Each layer of an image draws one of fifteen operations, with replacement, and applies it with probability 1/2. Its magnitude is
normal around the one given and clipped to [0, 10]; more is always a stronger change ("inc1"). Pixels are those of torchvision's
functions for the same arguments.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from wildfern.generators.counter_rng import Keys, uniform
from wildfern.ssl.augmentation.augmix_operations import resample
from wildfern.ssl.augmentation.operation import on_device

OPERATIONS = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCING = ("color", "contrast", "brightness", "sharpness")
MAGNITUDE_STD = 0.5  # "mstd0.5"
PROBABILITY = 0.5  # timm's; the paper applies every operation that is drawn
LARGEST = 10.0
DRAWS = 5  # uniforms of one layer: operation, applied, sign, and two for the normal magnitude


def draw_rand_augment(keys: Keys, layers: int, magnitude: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Operations int64[n, layers] (index in `OPERATIONS`, -1: none) and their arguments float64[n, layers] for keys uint64[n]."""
    u = uniform(keys, DRAWS * layers).reshape(len(keys), layers, DRAWS)
    operation = (u[..., 0] * len(OPERATIONS)).astype(np.int64)
    normal = np.sqrt(-2 * np.log1p(-u[..., 3])) * np.cos(2 * np.pi * u[..., 4])  # Box & Muller (1958)
    magnitudes = np.clip(magnitude + MAGNITUDE_STD * normal, 0, LARGEST)
    argument = np.zeros(operation.shape)
    for number, name in enumerate(OPERATIONS):
        chosen = operation == number
        argument[chosen] = argument_of(name, magnitudes[chosen], u[..., 2][chosen] < 0.5)
    return np.where(u[..., 1] < PROBABILITY, operation, -1), argument


def argument_of(name: str, magnitude: NDArray[np.float64], negative: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What an operation gets for magnitudes float64[m] in [0, 10]; `negative` bool[m] is the direction, if it has one.

    Degrees (rotate, up to 30), bits that are kept (posterize, 4 to 0), threshold (solarize, 256 to 0), what dark values gain
    (solarize_add, up to 110), factor (color, contrast, brightness and sharpness, 0.1 to 1.9), slope (shear, up to 0.3), share of
    the side (translate, up to 0.45); 0 for operations without argument.
    """
    level = magnitude / LARGEST
    signed = np.where(negative, -level, level)
    if name == "rotate":
        return signed * 30
    if name == "posterize":
        return 4 - np.floor(level * 4)
    if name == "solarize":
        return 256 - np.floor(level * 256)
    if name == "solarize_add":
        return np.floor(level * 110)
    if name in ENHANCING:
        return 1 + signed * 0.9
    if name.startswith("shear"):
        return signed * 0.3
    return signed * 0.45 if name.startswith("translate") else np.zeros(len(level))


def rand_augment(
    images: Tensor, operation: NDArray[np.int64], argument: NDArray[np.float64], fill: tuple[int, int, int]
) -> Tensor:
    """uint8[n, 3, H, W] after the operations of `draw_rand_augment`, layer by layer; `fill` is the color outside of the image."""
    images = images.clone()
    for kinds, values in zip(operation.T, argument.T, strict=True):
        for number, name in enumerate(OPERATIONS):
            which = np.flatnonzero(kinds == number)
            if len(which):
                rows = on_device(torch.from_numpy(which), images.device)
                images[rows] = apply_operation(name, images[rows], values[which], fill)
    return images


def apply_operation(name: str, images: Tensor, argument: NDArray[np.float64], fill: tuple[int, int, int]) -> Tensor:
    """uint8[m, 3, H, W] after one operation, each image with its own argument, float64[m] of `argument_of`."""
    if name in ("autocontrast", "equalize", "invert"):
        return getattr(F, name)(images)
    if name in GEOMETRIC:
        return _moved(images, _matrices(name, argument, *images.shape[-2:]), fill)
    value = on_device(torch.from_numpy(argument).to(torch.float32), images.device).view(-1, 1, 1, 1)
    if name == "posterize":
        return images & (256 - 2 ** (8 - value)).to(torch.uint8)
    if name == "solarize":
        return torch.where(images >= value, 255 - images, images)
    if name == "solarize_add":
        return torch.where(images < 128, (images + value).clamp(max=255).to(torch.uint8), images)
    plain = _without(name, images)
    # Bytes are truncated, as in Pillow and torchvision. In this form a pixel that has nothing to lose stays as it is.
    return (plain + value * (images - plain)).clamp(0, 255).to(torch.uint8)


def _without(name: str, images: Tensor) -> Tensor:
    """float32: the images without color, contrast, brightness or sharpness, from which a factor leads towards or away."""
    if name == "color":
        return F.rgb_to_grayscale(images).float()
    if name == "contrast":
        return F.rgb_to_grayscale(images).float().mean(dim=(1, 2, 3), keepdim=True)
    return (F.adjust_sharpness(images, 0.0) if name == "sharpness" else torch.zeros_like(images)).float()


def _matrices(name: str, argument: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """float64[m, 2, 3] for `resample`. Rotations are about the center, shears about the top left corner."""
    matrix = np.tile(np.eye(2, 3), (len(argument), 1, 1))
    if name == "rotate":
        angle = argument * math.pi / 180
        cos, sin, x, y = np.cos(angle), np.sin(angle), width / 2, height / 2
        matrix[:, 0] = np.stack([cos, -sin, x - cos * x + sin * y], axis=1)
        matrix[:, 1] = np.stack([sin, cos, y - sin * x - cos * y], axis=1)
    elif name == "shear_x":
        matrix[:, 0, 1] = argument
    elif name == "shear_y":
        matrix[:, 1, 0] = argument
    elif name == "translate_x":
        matrix[:, 0, 2] = -argument * width
    else:
        matrix[:, 1, 2] = -argument * height
    return matrix


def _moved(images: Tensor, matrix: NDArray[np.float64], fill: tuple[int, int, int]) -> Tensor:
    """Bilinear, with the fill color where the image does not reach: its share there is sampled like a fourth channel."""
    color = torch.tensor(fill, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    pixels = torch.cat([images.float(), torch.ones_like(images[:, :1], dtype=torch.float32)], dim=1)
    sampled = resample(pixels, on_device(torch.from_numpy(matrix), images.device))
    return ((sampled[:, :3] - color) * sampled[:, 3:] + color).round().to(torch.uint8)
