"""How a network with a decoder is applied to whole images: windows, scale and threshold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SegmentationSettings:
    """What a run was trained with, and the threshold of its probabilities.

    size: side of a window in pixels. crop_pixels: sides, in pixels of an image, of the squares that training resized to `size`;
    or None: these were `crop_scale`, shares of the area of the image. threshold: chosen on rendered images that training did not
    see; None: .5. chosen_on: which ones, in words.
    """

    size: int
    crop_pixels: tuple[float, float] | None = None
    crop_scale: tuple[float, float] = (1.0, 1.0)
    threshold: float | None = None
    chosen_on: str = ""

    def scale(self, height: int, width: int) -> float:
        """By which an image of this size is resized, so that objects have the width that they had in training."""
        if self.crop_pixels is not None:
            return self.size / (sum(self.crop_pixels) / 2)
        share = (sum(self.crop_scale) / 2) ** 0.5
        return self.size / max(1.0, share * min(height, width))
