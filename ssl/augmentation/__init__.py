"""Views: crops and colors on the device, as kornia modules, from a table of numbers drawn once per batch."""

from wildfern.ssl.augmentation.blur import GaussianBlur
from wildfern.ssl.augmentation.color import ColorJitter, Solarize
from wildfern.ssl.augmentation.crop import RandomResizedCropFlip
from wildfern.ssl.augmentation.views import MEAN, STD, VIEWS, Prepared, Views, multicrop, simclr

__all__ = [
    "MEAN",
    "STD",
    "VIEWS",
    "ColorJitter",
    "GaussianBlur",
    "Prepared",
    "RandomResizedCropFlip",
    "Solarize",
    "Views",
    "multicrop",
    "simclr",
]
