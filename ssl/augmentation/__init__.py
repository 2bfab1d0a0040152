"""Views: crops and colors on the device, as kornia modules, from a table of numbers drawn once per batch."""

from wildfern.registry import VIEWS
from wildfern.ssl.augmentation.blur import GaussianBlur
from wildfern.ssl.augmentation.color import ColorJitter, Solarize
from wildfern.ssl.augmentation.crop import RandomResizedCropFlip
from wildfern.ssl.augmentation.fourier_adaptation import FourierAdaptation, fourier_adaptation
from wildfern.ssl.augmentation.fourier_adapted_views import FourierAdaptationSettings
from wildfern.ssl.augmentation.local_intensity_order import LocalIntensityOrder, local_intensity_order
from wildfern.ssl.augmentation.mixing import MixingTable, cutmix, draw_mixing, mix, mixup, soft_targets
from wildfern.ssl.augmentation.normalization import MEAN, STD
from wildfern.ssl.augmentation.pixmix import PixMix, pixmix
from wildfern.ssl.augmentation.pixmix_views import PixMixSettings
from wildfern.ssl.augmentation.presets import multicrop, simclr
from wildfern.ssl.augmentation.view_batch import ViewBatch
from wildfern.ssl.augmentation.views import Views

__all__ = [
    "MEAN",
    "STD",
    "VIEWS",
    "ColorJitter",
    "FourierAdaptation",
    "FourierAdaptationSettings",
    "GaussianBlur",
    "LocalIntensityOrder",
    "MixingTable",
    "PixMix",
    "PixMixSettings",
    "RandomResizedCropFlip",
    "Solarize",
    "ViewBatch",
    "Views",
    "cutmix",
    "draw_mixing",
    "fourier_adaptation",
    "local_intensity_order",
    "mix",
    "mixup",
    "multicrop",
    "pixmix",
    "simclr",
    "soft_targets",
]
