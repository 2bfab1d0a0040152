"""Scenes of several fractals, with the classes in them; and pairs of images of the same fractals."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_integer, checked_span
from .device_stream import DeviceStream
from .ifs_sampler import Sampling
from .jitter import Jitter
from .raster import Render
from .scene_kernel import draw_contents, render_scenes
from .scene_table import Scene
from .settings import checked_settings

MOST_FRACTALS = 16
#: Most classes of a stream with multi-hot labels.
MOST_CLASSES = 100_000


class _SceneStream(DeviceStream):
    """Base class of scene streams: the settings of the kernel."""

    kernels = (render_scenes,)
    images = 1

    def __init__(self, size, seed, classes, fractals, sides, threads, device, **settings) -> None:
        super().__init__(size, seed, threads, device)
        self.fractals = checked_span("fractals", fractals, 1, MOST_FRACTALS, whole=True)
        self.sides = checked_span("sides", sides, 0.01, 4.0)
        self.num_classes = checked_integer("classes", classes, 1, MOST_CLASSES if self.multi_label else 2**62)
        self._settings = checked_settings(self.size, **settings)

    @property
    def multi_label(self) -> bool:
        """Whether labels are multi-hot rows rather than single classes."""
        return True

    def _empty(self, indices: NDArray[np.int64]) -> ImageBatch:
        shape = (indices.size, self.size, self.size, 3)
        labels = indices % self.num_classes
        if self.multi_label:
            labels = np.zeros((indices.size, self.num_classes), np.uint8)
        images = [np.empty(shape, np.uint8) for _ in range(self.images)]
        return ImageBatch(images[0], labels, paired_images=images[1] if self.images == 2 else None)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        content = np.empty((indices.size, self.fractals[1]), np.int64)
        rows = (self.size, 3 * self.size)
        paired_images = (
            np.empty((0, self.size, self.size, 3), np.uint8) if batch.paired_images is None else batch.paired_images
        )
        render_scenes(
            self.stream_key,
            indices,
            self.num_classes,
            not self.multi_label,
            *self.fractals,
            *self.sides,
            self._settings,
            content,
            batch.images.reshape(-1, *rows),
            paired_images.reshape(-1, *rows),
        )
        if self.multi_label:
            _mark(batch.labels, content)

    @property
    def scene(self) -> Scene:
        return Scene(self.stream_key, False, self.images, *self.sides, self._settings)

    def _content(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        content = np.empty((indices.size, self.fractals[1]), np.int64)
        by_index = not self.multi_label
        draw_contents(self.stream_key, indices, self.num_classes, by_index, *self.fractals, content)
        return content

    def _labels(self, indices: NDArray[np.int64], content: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.uint8]:
        if not self.multi_label:
            return indices % self.num_classes
        labels = np.zeros((indices.size, self.num_classes), np.uint8)
        _mark(labels, content)
        return labels


def _mark(labels: NDArray[np.uint8], content: NDArray[np.int64]) -> None:
    """1 in a row of labels (uint8[N, classes]) for every class in that row of content (int64[N, K], -1 for none)."""
    sample, place = np.nonzero(content >= 0)
    labels[sample, content[sample, place]] = 1


@register("generator", "ifs_multi")
class IFSMultiStream(_SceneStream):
    """Scenes for multi-instance prediction: several fractals on one background, new for each sample.

    After Anderson & Farrell (WACV 2022, section 4.3), whose objects come from a cache of recent ones. Labels are multi-hot,
    uint8[N, classes].

    - fractals: fewest and most in an image. sides: smallest and largest side of a fractal's square, in canvases.
    - size, points (of each fractal), seed, classes, maps, sampling, jitter, render, color, background, blur, threads, device:
      as in `IFSStream`.

    Raises ValueError for arguments out of range.
    """

    name = "ifs_multi"

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        fractals: tuple[int, int] = (1, 5),
        sides: tuple[float, float] = (0.15, 0.6),
        maps: tuple[int, int] = (2, 4),
        sampling: Sampling = "sequential",
        jitter: Jitter = "svd",
        render: Render = "graded",
        color: bool = True,
        background: bool = True,
        blur: bool = True,
        threads: int = 1,
        device: str = "cpu",
    ):
        super().__init__(
            size,
            seed,
            classes,
            fractals,
            sides,
            threads,
            device,
            points=points,
            maps=maps,
            sampling=sampling,
            jitter=jitter,
            render=render,
            color=color,
            background=background,
            blur=blur,
        )


@register("generator", "ifs_pair")
class IFSPairStream(_SceneStream):
    """Positive pairs without augmentation: two renderings of the same fractal code, or of the same set of codes.

    Each image has its own jitter, colors, sizes, places and background: the self-supervised stream of Anderson & Farrell
    (WACV 2022) and, with `fractals=(2, 2)`, fractal pair similarity (Chen et al., ICLR 2023). Batches hold the first images
    in `images` and the second in `paired_images`. With one fractal the label is its class, index % classes; with more, labels are
    multi-hot.

    - fractals: fewest and most in an image. sides: smallest and largest side of a fractal's square, in canvases; of a
      square larger than the canvas a part is seen.
    - size, points (of each fractal), seed, classes, maps, sampling, jitter, render, color, background, blur, threads, device:
      as in `IFSStream`.

    Raises ValueError for arguments out of range.
    """

    name = "ifs_pair"
    images = 2

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 100_000,
        fractals: tuple[int, int] = (1, 1),
        sides: tuple[float, float] = (0.25, 1.25),
        maps: tuple[int, int] = (2, 4),
        sampling: Sampling = "sequential",
        jitter: Jitter = "svd",
        render: Render = "graded",
        color: bool = True,
        background: bool = True,
        blur: bool = True,
        threads: int = 1,
        device: str = "cpu",
    ):
        super().__init__(
            size,
            seed,
            classes,
            fractals,
            sides,
            threads,
            device,
            points=points,
            maps=maps,
            sampling=sampling,
            jitter=jitter,
            render=render,
            color=color,
            background=background,
            blur=blur,
        )

    @property
    def multi_label(self) -> bool:
        """Whether labels are multi-hot rows: when an image may hold several fractals."""
        return self.fractals[1] > 1
