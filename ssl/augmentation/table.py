"""The numbers behind the views of a batch: drawn once, as small arrays, from counter keys (no generator state anywhere).

View v of the picture at position p of global step s draws from the key (seed, s, p, v), so any view can be made again, and
W ranks draw for their slices what one process would draw for the whole batch. Distributions are torchvision's.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import fold, key, uniform

Float = NDArray[np.float64]
CROP_ATTEMPTS = 10  # torchvision's RandomResizedCrop gives up after ten and takes a central crop

# Draw numbers of each quantity; fixed, so that adding one later changes none of the others.
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
    """What may happen to one view. Probabilities are in [0, 1]; see `views.simclr` and `views.multicrop` for meanings."""

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

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(f"a view of {self.size} px is too small: the least is 4")
        for name in ("flip", "jitter", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be in [0, 0.5], got {self.hue}")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale must satisfy 0 < low ≤ high ≤ 1, got {self.crop_scale}")
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must satisfy 0 < low ≤ high, got {getattr(self, name)}")


@dataclass(frozen=True)
class ViewTable:
    """Parameters of n pictures for each of V views (all of one size); every array starts with [V, n].

    `crop` are the raw uniforms a crop box is made from once the picture's height and width are known (`boxes`).
    A probability that did not fire is already written as the identity: factor 1, hue 0, sigma 0, threshold above 1.
    """

    crop: Float  # [V, n, 4 * CROP_ATTEMPTS] in [0, 1)
    flip: NDArray[np.bool_]  # [V, n]
    brightness: Float
    contrast: Float
    saturation: Float
    hue: Float  # turns of the color wheel, in [-0.5, 0.5]
    order: NDArray[np.int64]  # [V, n, 4]: the order of (0 brightness, 1 contrast, 2 saturation, 3 hue)
    gray: NDArray[np.bool_]
    sigma: Float  # standard deviation of the blur in pixels of the view; 0: none
    threshold: Float  # solarize: values at or above it are inverted; 2: none
    crop_scale: Float  # [V, 2]
    crop_ratio: Float  # [V, 2]

    def flat(self, name: str) -> NDArray:
        """A field with its first two dimensions merged: [V * n, …], view-major."""
        value = getattr(self, name)
        return value.reshape(-1, *value.shape[2:])

    def boxes(self, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[V, n, 4] crop boxes (top, left, height, width) for pictures of these sizes (each int64[n]).

        torchvision's RandomResizedCrop: area and log ratio uniform, at most ten attempts, then a central crop.
        """
        views, pictures, _ = self.crop.shape
        draws = self.crop.reshape(views, pictures, CROP_ATTEMPTS, 4)
        heights, widths = heights[None, :, None], widths[None, :, None]
        low, high = (self.crop_scale[:, i, None, None] for i in (0, 1))
        area = heights * widths * (low + (high - low) * draws[..., 0])
        log_low, log_high = (np.log(self.crop_ratio[:, i, None, None]) for i in (0, 1))
        ratio = np.exp(log_low + (log_high - log_low) * draws[..., 1])
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)
        top = np.floor(draws[..., 2] * (heights - height + 1))
        left = np.floor(draws[..., 3] * (widths - width + 1))
        candidates = np.stack([top, left, height, width], axis=-1)  # [V, n, attempts, 4]
        first = fits.argmax(axis=2)
        chosen = np.take_along_axis(candidates, first[:, :, None, None], axis=2)[:, :, 0]
        return np.where(fits.any(axis=2)[..., None], chosen, self._central(heights, widths)).astype(np.int64)

    def _central(self, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> Float:
        low, high = (self.crop_ratio[:, i, None] for i in (0, 1))
        h, w = (np.broadcast_to(x[..., 0], (len(self.crop_ratio), x.shape[1])).astype(float) for x in (heights, widths))
        ratio = w / h
        height = np.where(ratio < low, np.minimum(np.rint(w / low), h), h)
        width = np.where(ratio > high, np.minimum(np.rint(h * high), w), w)
        return np.stack([(h - height) // 2, (w - width) // 2, height, width], axis=-1)


def draw_table(
    settings: list[ViewSettings], seed: int, step: int, positions: NDArray[np.int64], first: int
) -> ViewTable:
    """Draw the parameters of views `first`, `first + 1`, … (one per entry of `settings`, all of one size).

    `positions` int64[n] are the pictures' places in the global batch of step `step`.
    """
    at = fold(fold(np.full(1, key("view", seed), np.uint64), step), np.asarray(positions, np.int64))
    keys = np.stack([fold(at, first + v) for v in range(len(settings))])
    u = uniform(keys, _DRAWS)
    s = {f.name: np.array([getattr(v, f.name) for v in settings], float)[:, None] for f in fields(ViewSettings)}
    jitter = u[..., _JITTER] < s["jitter"]

    def factor(name: str, draw: int) -> Float:
        low, high = np.maximum(0.0, 1.0 - s[name]), 1.0 + s[name]
        return np.where(jitter, low + (high - low) * u[..., draw], 1.0)

    sigma_low, sigma_high = s["blur_sigma"][..., 0], s["blur_sigma"][..., 1]
    return ViewTable(
        crop=u[..., : 4 * CROP_ATTEMPTS],
        flip=u[..., _FLIP] < s["flip"],
        brightness=factor("brightness", _BRIGHTNESS),
        contrast=factor("contrast", _CONTRAST),
        saturation=factor("saturation", _SATURATION),
        hue=np.where(jitter, (2 * u[..., _HUE] - 1) * s["hue"], 0.0),
        order=np.argsort(u[..., _ORDER : _ORDER + 4], axis=-1, kind="stable"),
        gray=u[..., _GRAY] < s["gray"],
        sigma=np.where(u[..., _BLUR] < s["blur"], sigma_low + (sigma_high - sigma_low) * u[..., _SIGMA], 0.0),
        threshold=np.where(u[..., _SOLARIZE] < s["solarize"], 0.5, 2.0),
        crop_scale=s["crop_scale"][:, 0],
        crop_ratio=s["crop_ratio"][:, 0],
    )
