"""Local intensity order transform: for each pixel, which of its neighbors are darker (Shi et al., FreeCOS, ICCV 2023).

Each pixel is compared with the eight nearest ones below, above, right and left of it; pixels outside the image count as 0. The
8 bits of a direction are one byte, so a gray image becomes four channels. They are invariant to every strictly increasing
change of intensities that keeps 0 at 0, and at pixels eight or more from the border to any strictly increasing change.
"""

from collections.abc import Iterator

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from wildfern.ssl.augmentation.color import grayscale

NEIGHBORS = 8


def local_intensity_order(gray: Tensor) -> Tensor:
    """uint8[N, 4, H, W] codes of gray images, uint8 or float [N, 1, H, W] or [N, H, W], not negative.

    Channels: rows below, rows above, columns right, columns left. A bit is 1 where the pixel is greater than its neighbor.
    Bits are ordered from the top and from the left: the nearest neighbor below or right is bit 0, above or left bit 7. Raises
    ValueError for images of another shape.
    """
    if gray.dim() == 4 and gray.shape[1] == 1:
        gray = gray[:, 0]
    if gray.dim() != 3:
        raise ValueError(f"gray images must be [N, 1, H, W] or [N, H, W], got {list(gray.shape)}")
    height, width = gray.shape[1:]
    padded = torch.nn.functional.pad(gray, (NEIGHBORS,) * 4)
    codes = torch.zeros(len(gray), 4, height, width, dtype=torch.uint8, device=gray.device)
    for channel, bit, down, right in comparisons():
        top, left = NEIGHBORS + down, NEIGHBORS + right
        darker = gray > padded[:, top : top + height, left : left + width]
        codes[:, channel].bitwise_or_(darker.to(torch.uint8) << bit)
    return codes


def comparisons() -> Iterator[tuple[int, int, int, int]]:
    """Channel, bit, and place of the neighbor: pixels down and right, of each comparison of a pixel."""
    for channel, (down, right, nearest_first) in enumerate(
        ((1, 0, True), (-1, 0, False), (0, 1, True), (0, -1, False))
    ):
        for distance in range(1, NEIGHBORS + 1):
            yield channel, distance - 1 if nearest_first else NEIGHBORS - distance, down * distance, right * distance


class LocalIntensityOrder(IntensityAugmentationBase2D):
    """The transform of float[N, 3 or 1, H, W] as a kornia module: float[N, 4, H, W], the codes over 255.

    Images are in [0, 1]. Color images are converted to gray with the weights of ITU-R 601, and gray is rounded to 8 bits, as in
    FreeCOS: else flat areas would code the rounding of earlier operations. `standardize` brings each image, all four channels
    together, to mean 0 and standard deviation 1, as FreeCOS does.
    """

    def __init__(self, standardize: bool = False) -> None:
        super().__init__(p=1.0)
        self.standardize = standardize

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        gray = input if input.shape[1] == 1 else grayscale(input)
        codes = local_intensity_order((gray.float() * 255).round()).float().div_(255)
        if self.standardize:
            deviation, mean = torch.std_mean(codes, dim=(1, 2, 3), keepdim=True)
            codes = (codes - mean) / deviation.clamp(min=1e-6)
        return codes.to(input.dtype)
