"""Fourier domain adaptation: an image with the low-frequency amplitudes of another (Yang & Soatto, CVPR 2020, eq. 1-3).

The low frequencies of the source get the amplitudes of the target and keep their phases: the content of the source in the
lighting and colors of the target. FreeCOS (Shi et al., ICCV 2023) adapts synthetic vessels to real backgrounds this way, then
blurs, adds noise and clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from kornia.augmentation import IntensityAugmentationBase2D
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from wildfern.generators.counter_rng import Keys, fold, integers
from wildfern.ssl.augmentation.operation import check_probabilities, on_device, positions_for
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels
from wildfern.ssl.augmentation.view_keys import image_keys
from wildfern.ssl.losses.full_precision import without_autocast

# FreeCOS for coronary angiograms: share of the spectrum, blur kernel in pixels, half-width of the noise.
RATIO, BLUR_KERNEL, NOISE = 0.3, 13, 5 / 255


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio <= 0.5:
        raise ValueError(f"ratio must be in [0, 0.5], got {ratio}")


def _check_freecos(ratio: float, blur_kernel: int, noise: float, sides: Sequence[int]) -> None:
    """Raise ValueError for settings of `freecos_adaptation` that are impossible for images of these sides; NaN is."""
    _check_ratio(ratio)
    if not isinstance(blur_kernel, int | np.integer) or blur_kernel < 1 or blur_kernel % 2 == 0:
        raise ValueError(f"blur_kernel must be odd and positive, got {blur_kernel}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a number of 0 or more, got {noise}")
    if blur_kernel // 2 >= min(sides):
        raise ValueError(f"a blur of {blur_kernel} px is too large for images of {list(sides)} px")


def fourier_adaptation(source: Tensor, target: Tensor, ratio: float) -> Tensor:
    """`source` with the amplitudes of `target` at frequencies −b … b, b = floor(min(H, W) · ratio), in each channel.

    Both are float[N, C, H, W] in any range; the result is not clipped and may leave it. `ratio` is the paper's β (L in FreeCOS),
    a share of the shorter side; 0 exchanges only the mean. Raises ValueError for a ratio outside [0, 0.5] and for shapes that
    differ.
    """
    _check_ratio(ratio)
    if source.shape != target.shape:
        raise ValueError(f"source and target must have one shape, got {list(source.shape)} and {list(target.shape)}")
    height, width = source.shape[-2:]
    b = int(np.floor(min(height, width) * ratio))
    working = source.dtype if source.dtype == torch.float64 else torch.float32
    spectrum, other = (torch.fft.rfft2(x.to(working)) for x in (source, target))
    for rows in (
        slice(0, b + 1),
        slice(max(height - b, b + 1), height),
    ):  # real images: columns 0 … b stand for −b … b
        low = spectrum[..., rows, : b + 1]
        amplitude = low.abs()
        phase = torch.where(amplitude > 0, low / torch.where(amplitude > 0, amplitude, 1), torch.ones_like(low))
        spectrum[..., rows, : b + 1] = other[..., rows, : b + 1].abs() * phase
    return torch.fft.irfft2(spectrum, s=(height, width)).to(source.dtype)


def freecos_adaptation(
    source: Tensor,
    target: Tensor,
    noise_keys: Tensor,
    ratio: float = RATIO,
    blur_kernel: int = BLUR_KERNEL,
    noise: float = NOISE,
) -> Tensor:
    """The augmentation of FreeCOS on float[N, C, H, W] in [0, 1]: adaptation, clip, blur, uniform noise ± `noise`, clip.

    `blur_kernel` is odd and in pixels, 1 for none; sigma is OpenCV's default, 0.3 · ((k − 1) / 2 − 1) + 0.8. `noise_keys`
    int64[N] (`AdaptationTable.noise`) are the keys of the noise of each image. The final rounding down to 8 bits of FreeCOS is
    left out. Raises ValueError for an even kernel or one too large for the images, for noise that is negative or not finite,
    and as `fourier_adaptation` does.
    """
    _check_freecos(ratio, blur_kernel, noise, source.shape[-2:])
    adapted = fourier_adaptation(source, target, ratio).clamp_(0, 1)
    if blur_kernel > 1:
        sigma = 0.3 * ((blur_kernel - 1) / 2 - 1) + 0.8
        with without_autocast(adapted):
            adapted = F.gaussian_blur(adapted, [blur_kernel] * 2, [sigma] * 2)
    if noise > 0:
        adapted = adapted + uniform_pixels(noise_keys, source.shape[1:]).mul_(2).sub_(1).mul_(noise).to(adapted.dtype)
    return adapted.clamp_(0, 1)


@dataclass(frozen=True)
class AdaptationTable:
    """The random numbers of n images of a view."""

    target: NDArray[np.int64]  # [n] index of the target image
    noise: Keys  # uint64[n] keys of the pixel noise


def draw_adaptation(seed: int, step: int, positions: NDArray[np.int64], view: int, num_targets: int) -> AdaptationTable:
    """The table of the images at these positions (int64[n]) of the global batch, for `num_targets` target images."""
    if num_targets < 1:
        raise ValueError("Fourier domain adaptation needs at least one target image")
    keys = image_keys("fourier_adaptation", seed, step, view, positions)
    return AdaptationTable(integers(keys, 1, num_targets)[:, 0], fold(keys, 0))


class FourierAdaptation(IntensityAugmentationBase2D):
    """The augmentation of FreeCOS with probability `p` and a random one of `targets` float[M, 3, H, W] in [0, 1], for kornia.

    Targets have the size of the images. With `blur_kernel=1, noise=0` it is that of Yang & Soatto, clipped.
    Raises ValueError for no targets and for settings that `freecos_adaptation` refuses.
    """

    targets: Tensor

    def __init__(
        self,
        targets: Tensor,
        ratio: float = RATIO,
        blur_kernel: int = BLUR_KERNEL,
        noise: float = NOISE,
        p: float = 0.5,
        *,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        check_probabilities(p=p)
        if targets.dim() != 4 or not len(targets):
            raise ValueError(f"targets must be [M, 3, H, W] with M of 1 or more, got {list(targets.shape)}")
        _check_freecos(ratio, blur_kernel, noise, targets.shape[-2:])
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.register_buffer("targets", targets, persistent=False)
        self.ratio, self.blur_kernel, self.noise = ratio, blur_kernel, noise

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """kornia's hook for a module used alone, seeded by torch's generator."""
        seed = int(torch.randint(2**62, ()))
        table = draw_adaptation(seed, 0, positions_for(batch_shape[0], self.same_on_batch), 0, len(self.targets))
        return {"target": torch.from_numpy(table.target), "noise": torch.from_numpy(table.noise.view(np.int64))}

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        noise_keys, which = on_device(params["noise"], input.device), on_device(params["target"], self.targets.device)
        targets = on_device(self.targets[which].to(input.dtype), input.device)
        return freecos_adaptation(input, targets, noise_keys, self.ratio, self.blur_kernel, self.noise)
