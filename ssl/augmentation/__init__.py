"""Views: crops and colors on the device, as kornia modules, from a table of numbers drawn once per batch."""

from wildfern.ssl.augmentation.blur import GaussianBlur
from wildfern.ssl.augmentation.color import ColorJitter, Solarize
from wildfern.ssl.augmentation.crop import RandomResizedCropFlip
from wildfern.ssl.augmentation.fourier_adaptation import FourierAdaptation, fourier_adaptation
from wildfern.ssl.augmentation.local_intensity_order import LocalIntensityOrder, local_intensity_order
from wildfern.ssl.augmentation.mixing import cutmix, mixup
from wildfern.ssl.augmentation.normalization import MEAN, STD
from wildfern.ssl.augmentation.pixmix import PixMix, pixmix
from wildfern.ssl.augmentation.presets import VIEWS, multicrop, simclr
from wildfern.ssl.augmentation.views import Prepared, Views

__all__ = [
    "MEAN",
    "STD",
    "VIEWS",
    "ColorJitter",
    "FourierAdaptation",
    "GaussianBlur",
    "LocalIntensityOrder",
    "PixMix",
    "Prepared",
    "RandomResizedCropFlip",
    "Solarize",
    "Views",
    "cutmix",
    "fourier_adaptation",
    "local_intensity_order",
    "mixup",
    "multicrop",
    "pixmix",
    "simclr",
]
