"""Views per second of small batches, with wildfern and with kornia, and what a batch takes besides its images.

    python -m wildfern.benchmarks.scale_batches --json scale_batches.json

SimCLR's two views of 32 px. A batch of n images takes about fixed + n · each: a line through the measured times, by least
squares of relative errors.
"""

import numpy as np
import torch

from wildfern.benchmarks.augmentation import kornia_chain
from wildfern.benchmarks.own_cache import command
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.ssl.augmentation import simclr

SIZE = 32
BATCHES = (1, 4, 16, 64)  # and `images`


def run(seconds: float, images: int = 256) -> Benchmark:
    """Views per second for batches of up to `images` images, on the CPU."""
    views, plain = simclr(size=SIZE), kornia_chain(SIZE)
    rows, took = [], {}
    for batch in (*BATCHES, images):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)

        def with_kornia(pixels=pixels) -> None:
            floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
            plain(torch.cat([floats, floats]))

        def ours(pixels=pixels, batch=batch) -> None:
            views(views.prepare(pixels, 0, 0, np.arange(batch)))

        found = compare(f"batches of {batch}", 2 * batch, {"kornia": with_kornia, "wildfern": ours}, seconds)
        took[batch] = [2 * batch / row["rate"] for row in found]
        rows += found
    figures = {}
    for place, what in enumerate(("kornia", "wildfern")):
        fixed, each = line({batch: times[place] for batch, times in took.items()})
        figures |= {f"{what}, ms of a batch": 1e3 * fixed, f"{what}, ms of an image": 1e3 * each}
    fixed, each = figures["wildfern, ms of a batch"], figures["wildfern, ms of an image"]
    words = (
        f"SimCLR's two views of {SIZE} px, torch on {torch.get_num_threads()} thread(s). A batch of n images takes wildfern "
        f"about {fixed:.2g} ms + n · {each:.2g} ms, kornia {figures['kornia, ms of a batch']:.2g} ms + n · "
        f"{figures['kornia, ms of an image']:.2g} ms."
    )
    return Benchmark("scale_batches", "views/s", words, rows, figures)


def line(seconds: dict[int, float]) -> tuple[float, float]:
    """(fixed, each) so that a batch of n images takes fixed + n · each, by least squares of relative errors."""
    batch, took = np.array(list(seconds), float), np.array(list(seconds.values()))
    terms = np.stack([np.ones_like(batch), batch], axis=1) / took[:, None]
    fixed, each = np.linalg.lstsq(terms, np.ones_like(took), rcond=None)[0]
    return float(fixed), float(each)


if __name__ == "__main__":
    command(__doc__, run, images=256, seconds=3.0)
