"""Colored noise: the stream of random images with natural spectra after Baradad et al. (NeurIPS 2021)."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..counter_rng import fold, uniform
from ..options import checked_flags, checked_span
from ..stream import Stream
from .colored_noise import grid_for
from .kernel import EXPONENTS, SAMPLE_KEYS, render_slice


@register("generator", "spectrum")
class SpectrumStream(Stream):
    """Endless stream of colored noise with the amplitude spectrum 1 / (|fx|^a + |fy|^b), a and b drawn for each image.

    - size: pixels per side; the image is a crop of a torus whose side is the power of two not below it (and 16).
    - seed: another seed, other images. exponent: least and most of a and b, 0 (white noise) to 6 (a few soft waves).
    - color: fields of one spectrum mixed along random color axes, else grays. threads: render slices of a batch in parallel.

    Batches have no labels. `parameters`: a and b, standardized. Raises ValueError for arguments out of range.
    """

    name = "spectrum"
    kernels = (render_slice,)
    parameter_names = ("horizontal_exponent", "vertical_exponent")

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        exponent: tuple[float, float] = (0.5, 3.5),
        color: bool = True,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.exponent = checked_span("exponent", exponent, 0.0, 6.0)
        (self.color,) = checked_flags(color=color)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        render_slice(self.stream_key, indices, *self.exponent, self.color, grid_for(self.size), batch.images)

    def _parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """The draws of `render_slice`."""
        least, most = self.exponent
        sample_keys = fold(fold(self.stream_key, int(SAMPLE_KEYS)), indices)
        return least + (most - least) * uniform(fold(sample_keys, int(EXPONENTS)), 2)
