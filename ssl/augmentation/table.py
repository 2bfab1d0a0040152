"""The random parameters of the views of a batch: drawn once, as small arrays, from counter keys (no generator state).

View v of the image at position p of global step s draws from the key (seed, s, p, v), so any view can be reproduced, and W
ranks draw for their slices what one process draws for the whole batch. Distributions are those of torchvision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import fold, fold_one, key, uniform

Float = NDArray[np.float64]
INTERPOLATIONS = ("bilinear", "bicubic")
CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop, which then takes a central crop

# Draw number of each quantity; fixed, so that a new one does not change the others.
_CROP, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _ORDER, _GRAY, _BLUR, _SIGMA, _SOLARIZE = (
    0,
    4 * CROP_ATTEMPTS,
    41,
    42,
    43,
    44,
    45,
    46,
    50,
    51,
    52,
    53,
)
_DRAWS = 54


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the augmentations of one view; see `presets.simclr` and `presets.multicrop`.

    With `crop_pixels` [low, high], the crop is a square whose side is uniform between them, in whole pixels of the image;
    `crop_scale` and `crop_ratio` are then ignored.
    """

    size: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: float
    blur: float
    blur_sigma: tuple[float, float]
    solarize: float
    interpolation: str = "bilinear"  # of the crop's resize, anti-aliased; or "bicubic"
    crop_pixels: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        pairs = {name: getattr(self, name) for name in ("crop_scale", "crop_ratio", "blur_sigma")}
        if self.crop_pixels is not None:
            pairs["crop_pixels"] = self.crop_pixels
        wrong = [
            f"{name} must be a pair [low, high], got {pair!r}" for name, pair in pairs.items() if np.shape(pair) != (2,)
        ]
        wrong = wrong or list(self._wrong())
        if wrong:
            raise ValueError("; ".join(wrong))
        # As numbers that can be a key: `draw_table` keeps their arrays.
        for name, value in vars(self).copy().items():
            if name in pairs:
                object.__setattr__(self, name, (float(value[0]), float(value[1])))
            elif isinstance(value, np.ndarray):
                object.__setattr__(self, name, value.item())

    def _wrong(self) -> Iterator[str]:
        """All faults of the settings; the comparisons also reject NaN and infinity."""
        if not isinstance(self.size, (int, np.integer)):
            yield f"size must be a whole number of pixels, got {self.size!r}"
        elif self.size < 4:
            yield f"a view of {self.size} px is too small: the minimum is 4"
        if self.interpolation not in INTERPOLATIONS:
            yield f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
        for name in ("flip", "jitter", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name} must be a probability in [0, 1], got {getattr(self, name)}"
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < np.inf:
                yield f"{name} must be a number of 0 or more, got {getattr(self, name)}"
        if not 0 <= self.hue <= 0.5:
            yield f"hue must be in [0, 0.5], got {self.hue}"
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            yield f"crop_scale, shares of the image area, must satisfy 0 < low ≤ high ≤ 1, got {self.crop_scale}"
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high < np.inf:
                yield f"{name} must satisfy 0 < low ≤ high, both finite, got {getattr(self, name)}"
        if self.crop_pixels is not None:
            low, high = self.crop_pixels
            if not 4 <= low <= high < np.inf:
                yield f"crop_pixels must satisfy 4 ≤ low ≤ high, both finite, got {self.crop_pixels}"


@dataclass(frozen=True)
class AugmentationParameters:
    """Parameters of n images for each of V views (all of one size); every array starts with [V, n] or [V].

    `crop` are the uniforms from which `boxes` computes the crop box for the height and width of an image. An operation that does
    not apply has identity parameters: factor 1, hue 0, sigma 0, threshold above 1.
    """

    crop: Float  # [V, n, 4 * CROP_ATTEMPTS] in [0, 1)
    flip: NDArray[np.bool_]  # [V, n]
    brightness: Float
    contrast: Float
    saturation: Float
    hue: Float  # turns of the color wheel, in [-0.5, 0.5]
    order: NDArray[np.int64]  # [V, n, 4]: the order of (0 brightness, 1 contrast, 2 saturation, 3 hue)
    gray: NDArray[np.bool_]
    sigma: Float  # standard deviation of the blur in pixels of the view; 0: no blur
    threshold: Float  # solarize inverts values at or above it; 2: none
    crop_scale: Float  # [V, 2]
    crop_ratio: Float  # [V, 2]
    crop_pixels: Float  # [V, 2]; 0 for views that crop by crop_scale and crop_ratio
    interpolation: str  # of all views: "bilinear" or "bicubic"

    def flat(self, name: str) -> NDArray:
        """A field with its first two dimensions merged: [V * n, …], view-major."""
        value = getattr(self, name)
        return value.reshape(-1, *value.shape[2:])

    def boxes(self, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[V, n, 4] crop boxes (top, left, height, width) for images of these sizes (each int64[n]).

        torchvision's RandomResizedCrop: area and log ratio uniform, at most ten attempts, then a central crop. Views with
        `crop_pixels`: a square at a uniform place, of a uniform side, rounded; the largest one in an image that is smaller.
        """
        views, images = self.flip.shape
        draws = self.crop.reshape(views, images, CROP_ATTEMPTS, 4)
        view = np.arange(views)[:, None]
        boxes, fits = self._attempts(draws[:, :, 0], view, heights, widths)
        if len(by_pixels := np.flatnonzero(self.crop_pixels[:, 0])):
            boxes[by_pixels] = self._squares(draws[by_pixels, :, 0], by_pixels[:, None], heights, widths)
            fits[by_pixels] = True
        if not fits.all():  # few; ten attempts for all would dominate the time for small views
            view, image = np.nonzero(~fits)
            heights, widths = heights[image], widths[image]
            others, fits = self._attempts(draws[view, image, 1:], view[:, None], heights[:, None], widths[:, None])
            first = others[np.arange(len(view)), fits.argmax(axis=1)]
            never = np.flatnonzero(~fits.any(axis=1))
            if len(never):
                first[never] = self._central(view[never], heights[never], widths[never])
            boxes[view, image] = first
        return boxes

    def _attempts(
        self, draws: Float, view: NDArray[np.int64], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Boxes [..., 4] of attempts (draws: [..., 4]) for images of views, and whether they lie in their images (bool[...])."""
        scale, log_ratio = self.crop_scale[view], np.log(self.crop_ratio)[view]
        low, high, log_low, log_high = scale[..., 0], scale[..., 1], log_ratio[..., 0], log_ratio[..., 1]
        area = heights * widths * (low + (high - low) * draws[..., 0])
        ratio = np.exp(log_low + (log_high - log_low) * draws[..., 1])
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        boxes = np.empty((*width.shape, 4), np.int64)
        with np.errstate(invalid="ignore"):  # sides of ratios like 1e40, which do not fit
            boxes[..., 0] = np.floor(draws[..., 2] * (heights - height + 1))
            boxes[..., 1] = np.floor(draws[..., 3] * (widths - width + 1))
            boxes[..., 2], boxes[..., 3] = height, width
        return boxes, (width > 0) & (width <= widths) & (height > 0) & (height <= heights)

    def _squares(
        self, draws: Float, view: NDArray[np.int64], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Boxes [..., 4] by `crop_pixels` (draws: [..., 4], of which the second is not used) for images of views."""
        low, high = np.moveaxis(self.crop_pixels[view], -1, 0)
        side = np.minimum(np.rint(low + (high - low) * draws[..., 0]), np.minimum(heights, widths))
        top, left = np.floor(draws[..., 2] * (heights - side + 1)), np.floor(draws[..., 3] * (widths - side + 1))
        return np.stack([top, left, side, side], axis=-1).astype(np.int64)

    def _central(self, view: NDArray[np.int64], h: NDArray[np.int64], w: NDArray[np.int64]) -> Float:
        low, high = self.crop_ratio[view].T
        ratio = w / h
        height = np.where(ratio < low, np.clip(np.rint(w / low), 1, h), h)
        width = np.where(ratio > high, np.clip(np.rint(h * high), 1, w), w)
        return np.stack([(h - height) // 2, (w - width) // 2, height, width], axis=-1)


def draw_table(
    settings: list[ViewSettings], seed: int, step: int, positions: NDArray[np.int64], first: int
) -> AugmentationParameters:
    """Draw the parameters of views `first`, `first + 1`, … (one per entry of `settings`, all of one size).

    `positions` int64[n] are the positions of the images in the global batch of step `step`. Raises ValueError for views with
    different interpolation.
    """
    interpolations = {view.interpolation for view in settings}
    if len(interpolations) > 1:
        raise ValueError(
            f"the views of one group must have one interpolation, not {' and '.join(sorted(interpolations))}"
        )
    s = _setting_numbers(tuple(settings))
    at = fold(np.full(1, fold_one(key("view", seed), step), np.uint64), np.asarray(positions, np.int64))
    u = uniform(fold(at, first + np.arange(len(settings))[:, None]), _DRAWS)
    jitter = u[..., _JITTER] < s.jitter
    colors = np.where(jitter[..., None], s.color_low + s.color_range * u[..., _BRIGHTNESS : _SATURATION + 1], 1.0)
    return AugmentationParameters(
        crop=u[..., : 4 * CROP_ATTEMPTS],
        flip=u[..., _FLIP] < s.flip,
        brightness=colors[..., 0],
        contrast=colors[..., 1],
        saturation=colors[..., 2],
        hue=np.where(jitter, (2 * u[..., _HUE] - 1) * s.hue, 0.0),
        order=np.argsort(u[..., _ORDER : _ORDER + 4], axis=-1, kind="stable"),
        gray=u[..., _GRAY] < s.gray,
        sigma=np.where(u[..., _BLUR] < s.blur, s.sigma_low + s.sigma_range * u[..., _SIGMA], 0.0),
        threshold=np.where(u[..., _SOLARIZE] < s.solarize, 0.5, 2.0),
        crop_scale=s.crop_scale,
        crop_ratio=s.crop_ratio,
        crop_pixels=s.crop_pixels,
        interpolation=interpolations.pop(),
    )


@dataclass(frozen=True)
class _SettingNumbers:
    """The settings of V views as arrays: [V, 1], colors [V, 1, 3] (brightness, contrast, saturation), crops [V, 2]."""

    flip: Float
    jitter: Float
    color_low: Float
    color_range: Float
    hue: Float
    gray: Float
    blur: Float
    sigma_low: Float
    sigma_range: Float
    solarize: Float
    crop_scale: Float
    crop_ratio: Float
    crop_pixels: Float


@lru_cache(maxsize=64)
def _setting_numbers(settings: tuple[ViewSettings, ...]) -> _SettingNumbers:
    def column(name: str) -> Float:
        return np.array([getattr(view, name) for view in settings], float)[:, None]

    colors = np.stack([column(name) for name in ("brightness", "contrast", "saturation")], axis=-1)
    low = np.maximum(0.0, 1.0 - colors)
    sigma = column("blur_sigma")
    found = _SettingNumbers(
        **{name: column(name) for name in ("flip", "jitter", "hue", "gray", "blur", "solarize")},
        color_low=low,
        color_range=1.0 + colors - low,
        sigma_low=sigma[..., 0],
        sigma_range=sigma[..., 1] - sigma[..., 0],
        crop_scale=column("crop_scale")[:, 0],
        crop_ratio=column("crop_ratio")[:, 0],
        crop_pixels=np.array([view.crop_pixels or (0.0, 0.0) for view in settings]),
    )
    for array in vars(found).values():  # shared by all tables
        array.flags.writeable = False
    return found
