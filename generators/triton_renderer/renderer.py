"""Batches of fractal scenes on a GPU: the table is drawn and sent; all further work is queued without waiting.

The lower bound for a sample of 224 pixels and 100 000 points on an H100, counted and not measured: 43 and 75 instructions a point
in the two passes of the chains are 0.4 µs on 132 × 128 lanes at 1.7 GHz; 1.5 MB of counts, random words, fields and images are
0.5 µs at 3 TB/s; 100 000 atomic additions to 50 000 cells are of that order if the second-level cache makes 10^11 a second.
A chain is 1 600 dependent steps, so a batch takes 0.3 ms however small it is, and half of that again for each time that one or
two in a hundred are judged and repeated; some 500 images fill the machine in that time. The processor needs 2 µs a
sample for the table and half a millisecond a batch for 26 launches.
"""

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fractals.fractal import ATTEMPTS
from ..fractals.raster import RENDERS
from ..fractals.scene_table import Scene, Table, fill_table, table_in, table_layout
from .attractor import count_points, find_brightest, judge, stamp_patches
from .canvas import blur, paint
from .field import draw_words, find_extremes, refine

#: Samples are rendered in parts whose counts, fields and unblurred images take at most this many bytes.
MEMORY = 2**29
#: Per program: cells searched at a time, independent pixels or cells, and blurred rows.
_SEARCHED, _ALONE, _ROWS = 4096, 1024, 16

#: For every launch. The CPU rounds a product before adding; a fused multiply-add would give other images.
OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}

Work = Callable[[int, int], None]


class Renderer:
    """Renders the samples of one scene on one device; thread-safe.

    `share(n, work)` calls work(start, stop) for consecutive parts of range(n), possibly in several threads.
    """

    _one_at_a_time = threading.Lock()  # triton's caches of compiled kernels are shared

    def __init__(self, scene: Scene, device: torch.device, share: Callable[[int, Work], None]) -> None:
        self.scene, self.device, self._share = scene, device, share

    def draw(self, indices: NDArray[np.int64], content: NDArray[np.int64]) -> Tensor:
        """The images of samples indices (int64[N]) with objects of the classes `content` (int64[N, K], -1 after the last).

        Returns uint8[images, N, S, S, 3]; like any result on a GPU, it is ready for later work on the current stream.
        """
        total, size = indices.size, self.scene.settings.size
        images = torch.empty((self.scene.images, total, size, size, 3), dtype=torch.uint8, device=self.device)
        part = max(1, MEMORY // self._bytes_of_a_sample(content.shape[1]))
        with torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext():
            for place in range(0, total, part):
                table, sides = self._table(indices[place : place + part], content[place : place + part], place, total)
                with self._one_at_a_time:
                    self._render(table, sides, images)
        return images

    def _bytes_of_a_sample(self, objects: int) -> int:
        """At most, in `_render`."""
        scene, size = self.scene, self.scene.settings.size
        side = size if scene.alone else min(size, int(scene.largest * size) + 4)
        counts = 4 * side * side * objects * (2 if self._is("patch") else 1)
        half = 2 ** (scene.settings.levels - 1)
        field = 4 * self._words() + 5 * half * half + (size + 1) ** 2
        return scene.images * (counts + field + 3 * size * size)

    def _is(self, render: str) -> bool:
        return RENDERS[self.scene.settings.render] == render

    def _words(self) -> int:
        """Random words of a field: for a level of m columns 1 + m rows of m, at the last only as many rows as are visible."""
        size, levels = self.scene.settings.size, self.scene.settings.levels
        rows = [2**level for level in range(levels - 1)] + [(size + 1) // 2]
        return sum(2**level * (1 + rows[level]) for level in range(levels))

    def _table(
        self, indices: NDArray[np.int64], content: NDArray[np.int64], place: int, total: int
    ) -> tuple[Table, NDArray[np.int64]]:
        """The table of samples place … of `total`, its arrays on the device, and the sides of its objects' squares."""
        scene = self.scene
        counts = (content >= 0).sum(1)
        firsts = counts.cumsum() - counts
        layout, length = table_layout(
            int(scene.images * counts.sum()), scene.images * indices.size, scene.settings.levels
        )
        memory = torch.empty(length, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        table = table_in(memory.numpy(), layout)
        self._share(
            indices.size,
            lambda start, stop: fill_table(scene, indices, content, firsts, place, total, start, stop, table),
        )
        sides = table.square[:, 3].astype(np.int64)
        table.first_cell[:] = (sides * sides).cumsum() - sides * sides
        sent = memory.to(self.device, non_blocking=True)
        columns = {
            name: sent[first : first + getattr(table, name).nbytes].view(getattr(torch, kind)).view(shape)
            for name, (first, kind, shape) in layout.items()
        }
        return Table(**columns), sides

    def _render(self, table: Table, sides: NDArray[np.int64], images: Tensor) -> None:
        settings = self.scene.settings
        size, count = settings.size, len(table.canvas)
        cells = torch.zeros(int((sides * sides).sum()), dtype=torch.int32, device=self.device)
        self._count(table, cells)
        scales = torch.empty(len(sides), dtype=torch.float32, device=self.device)
        objects = table.first_cell, table.square
        if self._is("patch"):
            stamped = torch.empty_like(cells)
            grid = len(sides), -(-(int(sides.max()) ** 2) // _ALONE)
            self._launch(stamp_patches, grid, 4, *objects, cells, stamped, BLOCK=_ALONE)
            cells = stamped
        constants = {"BINARY": self._is("binary"), "BLOCK": _SEARCHED}
        self._launch(find_brightest, (len(sides),), 8, *objects, cells, scales, **constants)
        field = self._field(table) if settings.background else images
        sharp = images
        if settings.blur:
            sharp = torch.empty((count, size, size, 3), dtype=torch.uint8, device=self.device)
        self._launch(
            paint, (count, -(-size * size // _ALONE)), 4,
            *objects, table.canvas, table.colors, table.backdrop, field, cells, scales, sharp, size,
            BACKGROUND=settings.background, BINARY=self._is("binary"), FINISHED=not settings.blur, BLOCK=_ALONE,
        )  # fmt: skip
        if settings.blur:
            width = 1 << (3 * size - 1).bit_length()
            grid = count, -(-size // _ROWS)
            self._launch(blur, grid, 4, table.canvas, sharp, images, size, ROWS=_ROWS, WIDTH=width)

    def _count(self, table: Table, cells: Tensor) -> None:
        """Count the points of all objects, with repeated attempts where too little is visible."""
        objects, points = len(table.square), self.scene.settings.points
        boxes = torch.empty((objects, 4), dtype=torch.float32, device=self.device)
        done = torch.zeros(objects, dtype=torch.int32, device=self.device)
        placement = table.across, table.middle
        place = (table.first_cell, *placement, table.square, boxes, done, cells, points)

        def count(find_box: bool, even: bool) -> None:
            self._launch(
                count_points, (objects,), 2,
                table.chaos_key, table.first_cell, *placement, table.maps, table.starts, table.limits, table.square,
                boxes, done, cells, points, MOST=self.scene.settings.most, FIND_BOX=find_box, EVEN=even,
            )  # fmt: skip

        count(True, False)
        for attempt in range(ATTEMPTS):
            self._launch(judge, (objects,), 8, *place, attempt, BLOCK=_SEARCHED)
            last = attempt == ATTEMPTS - 1
            count(last, last)

    def _field(self, table: Table) -> Tensor:
        """The fields of all images, uint8[P, M, M], M the even number not below the size."""
        size, levels = self.scene.settings.size, self.scene.settings.levels
        images, seen = len(table.canvas), (size + 1) // 2
        words = torch.empty((images, self._words()), dtype=torch.uint32, device=self.device)
        each = words.shape[1]
        self._launch(draw_words, (images,), 4, table.columns_key, words, each, levels, seen, COLUMNS=2 ** (levels - 1))
        extremes = torch.empty((images, 2), dtype=torch.float32, device=self.device)
        grid = torch.zeros((images, 1, 1), dtype=torch.float32, device=self.device)
        first = 0
        for level in range(levels):
            m, last = 2**level, level == levels - 1
            used = seen if last else m
            if last:
                self._launch(find_extremes, (images,), 8, grid, m * m, extremes, BLOCK=_SEARCHED)
            kind = torch.uint8 if last else torch.float32
            finer = torch.empty((images, 2 * used, 2 * used), dtype=kind, device=self.device)
            self._launch(
                refine, (images, -(-used * used // _ALONE)), 4,
                grid, words, table.steps, extremes, finer, m, used, first, each, level, levels,
                LAST=last, BLOCK=_ALONE,
            )  # fmt: skip
            first += m * (1 + used)
            grid = finer
        return grid

    def _launch(self, kernel, grid: tuple[int, ...], warps: int, *arguments, **constants) -> None:
        kernel[grid](*arguments, num_warps=warps, **constants, **OPTIONS)
