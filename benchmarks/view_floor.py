"""Lower bounds on the cost of views: bytes moved and operations per pixel, at this machine's measured speeds."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from wildfern.generators.threads import Threads
from wildfern.ssl.augmentation.table import ViewSettings

_CHAIN = 16  # multiply-adds one after the other on a number that has been read


@dataclass(frozen=True)
class Cost:
    """The expected cost of a view over its random parameters."""

    read: float  # bytes
    written: float
    operations: float

    def __str__(self) -> str:
        return f"{self.read / 1024:,.1f} KiB read, {self.written / 1024:,.1f} written, {self.operations / 1e6:.2g} M operations"


@dataclass(frozen=True)
class Speeds:
    """Speeds of a machine: bytes per second to fill memory, and float32 operations per second (infinite if not measured)."""

    bytes: float
    operations: float

    def seconds(self, cost: Cost) -> float:
        """Lower bound on the time of a view: its bytes, then its operations."""
        return (cost.read + cost.written) / self.bytes + cost.operations / self.operations

    def __str__(self) -> str:
        operations = f", {self.operations / 1e9:,.0f} G multiply-adds/s" if np.isfinite(self.operations) else ""
        return f"{self.bytes / 1e9:,.0f} GB/s{operations}"


def crop_cost(view: ViewSettings, height: int, width: int) -> Cost:
    """Cropped from uint8[height, width, 3] and resized, to bytes.

    A source pixel under an output pixel takes 4 operations to be unpacked and 3 to be weighted, and 3 to be weighted down.
    """
    area = np.mean(view.crop_scale) * height * width
    scale = np.sqrt(area) / view.size
    taps = (4 if view.interpolation == "bicubic" else 2) * max(1.0, scale)
    return Cost(3 * area, 3 * view.size**2, view.size**2 * (7 * taps * scale + 3 * taps))


def view_cost(view: ViewSettings, height: int, width: int) -> Cost:
    """The whole chain, from uint8[height, width, 3] to normalized float32.

    Jitter takes 79 operations a pixel, 56 of them hue; blur, across and down, 6 for the middle and 12 for each further pixel on a
    side; the rest one or two for each of three channels.
    """
    crop = crop_cost(view, height, width)
    sigma = np.linspace(*view.blur_sigma, 101)
    radius = np.minimum(max(1, view.size // 20), np.floor(5.68 * sigma)).mean()  # beyond it weights are below 1e-7
    pixel = view.jitter * 79 + view.gray * 3 + view.blur * (6 + 12 * radius) + view.solarize * 6 + 3
    return Cost(crop.read, 12 * view.size**2, crop.operations + view.size**2 * pixel)


def mean_cost(costs: list[Cost]) -> Cost:
    """Mean cost of a view when an image has several."""
    return Cost(*(float(np.mean([getattr(c, name) for c in costs])) for name in ("read", "written", "operations")))


def speeds(device: torch.device, threads: int) -> Speeds:
    """Measure the best of a few fills of 256 MiB and, on a CPU, of multiply-adds in the L1 cache."""
    memory = torch.empty(2**26, device=device)

    def fill() -> None:
        memory.fill_(1.0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    filled = memory.numel() * memory.element_size() / _best(fill)
    if device.type != "cpu":
        return Speeds(filled, np.inf)
    values = [np.ones(2048, np.float32) for _ in range(threads)]
    team, rounds = Threads(threads, "floor"), 500

    def calculate() -> None:
        team.share(threads, lambda part: _multiply_add(values[part], rounds, np.float32(0.5), np.float32(0.5)))

    return Speeds(filled, threads * values[0].size * _CHAIN * rounds / _best(calculate))


@njit(nogil=True, fastmath={"contract"})
def _multiply_add(values, rounds, factor, shift):
    for _ in range(rounds):
        for i in range(values.size):
            x = values[i]
            for _ in range(_CHAIN):
                x = x * factor + shift
            values[i] = x


def _best(work) -> float:
    """Seconds of the fastest of several calls, after one that is not counted."""
    work()
    times = []
    for _ in range(7):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
