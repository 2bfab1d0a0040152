"""Views of published methods, by name; every setting can be changed."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from wildfern.registry import register
from wildfern.ssl.augmentation.fourier_adapted_views import FourierAdaptationSettings
from wildfern.ssl.augmentation.pixmix_views import PixMixSettings
from wildfern.ssl.augmentation.table import ViewSettings
from wildfern.ssl.augmentation.views import Views

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be [low, high], got {list(bounds)}")
    return bounds


Range = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)]
_Share = Annotated[float, Field(gt=0, le=1)]  # of an image's area
Shares = Annotated[tuple[_Share, _Share], AfterValidator(_ascending)]
_Side = Annotated[float, Field(ge=4)]  # in pixels of an image
Sides = Annotated[tuple[_Side, _Side], AfterValidator(_ascending)]
Interpolation = Literal["bilinear", "bicubic"]
Operations = list[dict[str, Any]]
Levels = tuple[Annotated[float, Field(ge=0, le=1)], ...]
Deviations = tuple[Annotated[float, Field(gt=0, le=1)], ...]


@register("views", "simclr")
def simclr(
    *,
    size: Annotated[int, Field(ge=4, le=4096)] = 224,
    count: Annotated[int, Field(ge=1, le=100)] = 2,
    crop_scale: Shares = (0.08, 1.0),
    crop_ratio: Range = (3 / 4, 4 / 3),
    crop_pixels: Sides | None = None,
    interpolation: Interpolation = "bilinear",
    flip: Probability = 0.5,
    jitter: Probability = 0.8,
    brightness: Strength = 0.8,
    contrast: Strength = 0.8,
    saturation: Strength = 0.8,
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.2,
    gray: Probability = 0.2,
    blur: Probability = 0.5,
    blur_sigma: Range = (0.1, 2.0),
    solarize: Probability = 0.0,
    fourier_adaptation: FourierAdaptationSettings | None = None,
    pixmix: PixMixSettings | None = None,
    extra: Operations | None = None,
    local_intensity_order: bool = False,
    mean: Levels | None = None,
    std: Deviations | None = None,
) -> Views:
    """`count` views with the same settings; the defaults are SimCLR's for ImageNet (Chen et al., 2020, appendix A).

    `crop_pixels` [low, high]: crop a square whose side is uniform between them, in pixels of the image, at a uniform place, and
    ignore `crop_scale` and `crop_ratio`. A side longer than the image's shorter one becomes that one. Crops of `size` pixels are
    not resized.

    Optional, and then applied in this order: Fourier domain adaptation, PixMix, further kornia operations (`extra`, each
    `{operation: NAME, argument: value, …}`), and the local intensity order transform, which gives views of four channels.

    `mean` and `std` normalize the views: one number for each channel of the images, for pixels in [0, 1] (default: ImageNet's).
    Images of other than three channels need them, and get no saturation, hue and gray.
    """
    view = ViewSettings(
        size,
        crop_scale,
        crop_ratio,
        flip,
        jitter,
        brightness,
        contrast,
        saturation,
        hue,
        gray,
        blur,
        blur_sigma,
        solarize,
        interpolation,
        crop_pixels,
    )
    return Views([[view] * count], extra or (), fourier_adaptation, pixmix, local_intensity_order, mean=mean, std=std)


@register("views", "multicrop")
def multicrop(
    *,
    size: Annotated[int, Field(ge=4, le=4096)] = 224,
    crop_scale: Shares = (0.4, 1.0),
    local_count: Annotated[int, Field(ge=0, le=100)] = 8,
    local_size: Annotated[int, Field(ge=4, le=4096)] = 96,
    local_scale: Shares = (0.05, 0.4),
    crop_ratio: Range = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bicubic",
    flip: Probability = 0.5,
    jitter: Probability = 0.8,
    brightness: Strength = 0.4,
    contrast: Strength = 0.4,
    saturation: Strength = 0.2,
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1,
    gray: Probability = 0.2,
    blur: Probability | tuple[Probability, Probability] = (1.0, 0.1),
    local_blur: Probability = 0.5,
    blur_sigma: Range = (0.1, 2.0),
    solarize: Probability | tuple[Probability, Probability] = (0.0, 0.2),
    fourier_adaptation: FourierAdaptationSettings | None = None,
    pixmix: PixMixSettings | None = None,
    extra: Operations | None = None,
    local_intensity_order: bool = False,
    mean: Levels | None = None,
    std: Deviations | None = None,
) -> Views:
    """Two global views and `local_count` small local ones; blur and solarize are a probability for each global view, or for both.

    The defaults are DINO's (Caron et al., 2021, section 3.1 and its public settings). The last six: as for `simclr`.
    """
    color = (flip, jitter, brightness, contrast, saturation, hue, gray)
    blurs, solarizes = (p if isinstance(p, tuple) else (p, p) for p in (blur, solarize))
    large = [
        ViewSettings(size, crop_scale, crop_ratio, *color, blurs[v], blur_sigma, solarizes[v], interpolation)
        for v in range(2)
    ]
    small = ViewSettings(local_size, local_scale, crop_ratio, *color, local_blur, blur_sigma, 0.0, interpolation)
    groups = [large, [small] * local_count] if local_count else [large]
    return Views(groups, extra or (), fourier_adaptation, pixmix, local_intensity_order, mean=mean, std=std)


# Both papers: two views, the second with little blur and some solarization (BYOL, table 6; MoCo v3, section 4). BYOL's crops are
# resized by a bicubic filter (appendix B), as DINO's are; the others' public code takes torchvision's default.
_byol = partial(multicrop, local_count=0, crop_scale=(0.08, 1.0))
_mocov3 = partial(_byol, interpolation="bilinear")
# Two views and six small ones, SimCLR's colors, the same for all (SwAV, appendix A).
_swav = partial(
    multicrop,
    crop_scale=(0.14, 1.0),
    local_count=6,
    local_scale=(0.05, 0.14),
    interpolation="bilinear",
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    blur=(0.5, 0.5),
    solarize=(0.0, 0.0),
)
for _name, _preset in (("byol", _byol), ("mocov3", _mocov3), ("swav", _swav), ("dino", multicrop)):
    register("views", _name)(_preset)
