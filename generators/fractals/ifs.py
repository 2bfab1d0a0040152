"""Fractal images on smooth backgrounds, in classes: the stream after Anderson & Farrell (WACV 2022)."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_integer
from .device_stream import DeviceStream
from .ifs_kernel import NO_SYSTEMS, render_fractals
from .ifs_parameters import NAMES, fractal_parameters
from .ifs_sampler import Sampling
from .jitter import Jitter
from .raster import Render
from .scene_table import Scene
from .settings import checked_settings


@register("generator", "ifs")
class IFSStream(DeviceStream):
    """Endless stream of fractals: sample `index` is instance index // classes of class index % classes.

    A class is an iterated function system; an instance is a jittered copy with its own colors, place and background.

    - size: pixels per side. points: points of the chaos game per image. seed: another seed gives another stream.
    - classes: number of systems; the label of a sample is its class. maps: fewest and most maps of a system (2 to 8).
    - jitter: what an instance changes in the system of its class: "svd" (a rotation or an offset), "sval" (singular values),
      "basic" (one whole map), "none".
    - render: "graded" (intensity = count / max), "binary", or "patch" (every point stamps a random 3 × 3 mask).
    - color: HSV colors, else grays. background: diamond-square clouds, else black. placement: scale, shift, flips and
      transposition on the canvas. blur: 3 × 3 Gaussian, σ ~ U(.5, 1). threads: render slices of a batch in parallel.
    - device: "cpu", or a GPU: "cuda:N", or "cuda" for the current one. On a GPU, images are torch tensors with the same
      bytes, and the threads draw the random numbers.

    A sample has the same bytes whatever the rest of the batch, the threads, the process or the machine. `parameters`: of the
    jittered system, see `ifs_parameters`.
    Raises ValueError for arguments out of range.
    """

    name = "ifs"
    kernels = (render_fractals,)
    parameter_names = NAMES

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        maps: tuple[int, int] = (2, 4),
        sampling: Sampling = "sequential",
        jitter: Jitter = "svd",
        render: Render = "graded",
        color: bool = True,
        background: bool = True,
        placement: bool = True,
        blur: bool = True,
        threads: int = 1,
        device: str = "cpu",
    ):
        super().__init__(size, seed, threads, device)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        self._settings = checked_settings(
            self.size,
            points=points,
            maps=maps,
            sampling=sampling,
            jitter=jitter,
            render=render,
            color=color,
            background=background,
            placement=placement,
            blur=blur,
        )

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        images = batch.images.reshape(indices.size, self.size, 3 * self.size)
        render_fractals(self.stream_key, indices, self.num_classes, self._settings, *NO_SYSTEMS, 0.0, images)

    def _parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.empty((indices.size, len(NAMES)))
        fractal_parameters(self.stream_key, indices, self.num_classes, self._settings, found)
        return found

    @property
    def scene(self) -> Scene:
        return Scene(self.stream_key, True, 1, 1.0, 1.0, self._settings)

    def _content(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.ascontiguousarray((indices % self.num_classes)[:, None])

    def _labels(self, indices: NDArray[np.int64], content: NDArray[np.int64]) -> NDArray[np.int64]:
        return content[:, 0]
