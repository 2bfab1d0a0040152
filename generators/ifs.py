"""Fractal pictures on smooth backgrounds, in classes: the stream after Anderson & Farrell (WACV 2022)."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike

from .batch import Batch
from .chaos_game import rows_for
from .counter_rng import key
from .diamond_square import levels_for
from .ifs_kernel import render_slice
from .ifs_sampler import MAX_MAPS
from .jitter import JITTERS, Jitter
from .options import checked_choice, checked_integer
from .raster import RENDERS, Render


class IFSStream:
    """Endless stream of fractals: sample `index` is instance index // classes of class index % classes.

    A class is an iterated function system, an instance a jitter of it in its own colors, place and background.

    - size: pixels a side. points: points of the chaos game per picture. seed: another seed, another world.
    - classes: number of systems; the label of a sample is its class. maps: fewest and most maps of a system (2 to 8).
    - jitter: what an instance changes in its class's system: "svd" (a rotation or an offset), "sval" (singular values),
      "basic" (one whole map), "none".
    - render: "graded" (intensity = count / max), "binary", or "patch" (every point stamps a random 3 × 3 mask).
    - color: HSV colors, else grays. background: diamond-square clouds, else black. placement: scale, shift, flips and
      transposition on the canvas. blur: 3 × 3 Gaussian, σ ~ U(.5, 1). threads: that render slices of a batch.

    `batch` gives the same bytes for an index whatever the rest of the batch, the threads, the process or the machine.
    Raises ValueError for arguments that cannot be rendered.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        maps: tuple[int, int] = (2, 4),
        jitter: Jitter = "svd",
        render: Render = "graded",
        color: bool = True,
        background: bool = True,
        placement: bool = True,
        blur: bool = True,
        threads: int = 1,
    ):
        self.size = checked_integer("size", size, 8, 2048)
        self.points = checked_integer("points", points, 1, 10_000_000)
        self.seed = checked_integer("seed", seed)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        if not isinstance(maps, tuple | list) or len(maps) != 2:
            raise ValueError(f"maps must be the fewest and the most maps of a system, such as (2, 4), not {maps!r}")
        self.maps = (
            checked_integer("the fewest maps", maps[0], 2, MAX_MAPS),
            checked_integer("the most maps", maps[1], 2, MAX_MAPS),
        )
        if self.maps[0] > self.maps[1]:
            raise ValueError(f"maps must be in order, fewest first: ({maps[1]}, {maps[0]}), not ({maps[0]}, {maps[1]})")
        self.jitter = checked_choice("jitter", jitter, JITTERS)
        self.render = checked_choice("render", render, RENDERS)
        self.color, self.background, self.placement, self.blur = map(bool, (color, background, placement, blur))
        self.threads = checked_integer("threads", threads, 1, 1024)
        self._stream_key = np.uint64(key("ifs", self.seed))
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0
        self._lock = threading.Lock()

    def batch(self, indices: ArrayLike) -> Batch:
        """Pictures and labels of the samples with these indices, int64[N] of any value."""
        indices = np.asarray(indices)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise ValueError(f"indices must be a row of integers, not {indices.dtype} of shape {list(indices.shape)}")
        indices = np.ascontiguousarray(indices, np.int64)
        images = np.empty((indices.size, self.size, self.size, 3), np.uint8)
        rows = images.reshape(indices.size, self.size, self.size * 3)
        if self.threads == 1 or indices.size < 2:
            self._render(indices, rows)
        else:
            slices = min(indices.size, 4 * self.threads)
            parts = np.array_split(indices, slices), np.array_split(rows, slices)
            list(self._executor().map(self._render, *parts))
        return Batch(images, indices % self.num_classes)

    def _render(self, indices: np.ndarray, images: np.ndarray) -> None:
        render_slice(
            self._stream_key,
            indices,
            self.num_classes,
            *self.maps,
            self.points,
            JITTERS.index(self.jitter),
            RENDERS.index(self.render),
            self.color,
            self.background,
            self.placement,
            self.blur,
            rows_for(self.points),
            levels_for(self.size),
            images,
        )

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            # Threads do not survive a fork: a child process starts its own.
            if self._pool is None or self._pool_process != os.getpid():
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="wildfern-ifs")
                self._pool_process = os.getpid()
            return self._pool

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _pool=None, _lock=threading.Lock())
