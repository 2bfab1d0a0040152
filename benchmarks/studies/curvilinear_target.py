"""Images of a domain that training did not see: rendered branches on photographs, with exact masks.

Branches: masks of the stream `lsystem` with the numbers of `BRANCHES`: the preset `vessels`, the other set of rules (mostly its
third), always two first branches, larger turns and bends, and its own seed. Only the masks are used, no color of the stream.

Ground: one of `PHOTOGRAPHS`, which come with scikit-image. A square of 160 to 256 px, turned by quarters, mirrored, resized
to 256 px, with a contrast reduced to a standard deviation of at most 10 to 22 gray levels, so that branches are seen. Unlabeled
images have squares of the left half of a photograph, test images of the right half. The fundus photograph of scikit-image is
left out: its vessels would be objects without a mask.

Image: under the mask, and only there, the ground is mixed with black or with white, one of the two for the whole image, each
equally often; with black where the ground is brighter than 150 on average. The share is 0.35 to 0.6 in the middle of a branch
and falls over 1 to 3 px to its edge. Then follow a Gaussian blur (σ of 0.4 to 0.9 px) and Gaussian noise (σ of 2 to 6 gray
levels, equal in all channels). All ranges are uniform.

Every image is a function of (seed, split, number) alone.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from wildfern.files import replacing, write_text
from wildfern.generators import make_stream

SIDE = 256
COUNTS = {"unlabeled": 200, "test": 40}
Split = Literal["unlabeled", "test"]
SPLITS: tuple[Split, ...] = ("unlabeled", "test")
PHOTOGRAPHS = ("brick", "grass", "gravel", "moon", "camera", "immunohistochemistry")
BRANCHES = {
    "size": SIDE,
    "preset": "vessels",
    "trees": (1, 3),
    "iterations": (1, 2),
    "rule_weights": (0.2, 0.2, 0.6),
    "second_set": 1.0,
    "bracketed": 1.0,
    "width": (0.006, 0.03),
    "turn": (20.0, 60.0),
    "bend": (20.0, 70.0),
    "jag": 6.0,
}
BLACK, BRIGHT, WHITE = 0.0, 150.0, 255.0


def write_target(folder: Path, seed: int = 0) -> None:
    """Write unlabeled/0000.png …, labeled/test/images/0000.png … and labeled/test/masks/0000.png …, unless they are there."""
    done = folder / "seed.txt"
    if done.exists() and done.read_text() == str(seed):
        return
    places = {"unlabeled": folder / "unlabeled", "test": folder / "labeled" / "test" / "images"}
    masks = folder / "labeled" / "test" / "masks"
    for place in (*places.values(), masks):
        place.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for number in range(COUNTS[split]):
            pixels, mask = target_image(seed, split, number)
            _save(pixels, places[split] / f"{number:04d}.png")
            if split == "test":
                _save(mask * np.uint8(255), masks / f"{number:04d}.png")
    write_text(done, str(seed))


def target_image(seed: int, split: Split, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image, uint8[256, 256, 3], and its mask of 0 and 1, uint8[256, 256]."""
    rng = np.random.Generator(np.random.Philox([seed, SPLITS.index(split), number]))
    mask = branches(seed, split, number)
    photograph = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    pasted = paste(ground(photograph, split, rng), mask, rng)
    return finish(pasted, rng), mask


def branches(seed: int, split: Split, number: int) -> NDArray[np.uint8]:
    """The mask of an image, uint8[256, 256] of 0 and 1."""
    stream = make_stream("lsystem", seed=1000 + 2 * seed + SPLITS.index(split), **BRANCHES)
    masks = stream.batch([number]).masks
    assert masks is not None  # as of every lsystem
    return np.asarray(masks[0])


def ground(photograph: str, split: Split, rng: np.random.Generator) -> NDArray[np.float64]:
    """A square of a photograph, float64[256, 256, 3] in 0 … 255, from the half that is for the split."""
    from skimage import data

    whole = np.asarray(getattr(data, photograph)())
    whole = whole if whole.ndim == 3 else np.repeat(whole[..., None], 3, axis=2)
    middle = whole.shape[1] // 2
    half = whole[:, :middle] if split == "unlabeled" else whole[:, middle:]
    side = int(rng.integers(160, min(SIDE, *half.shape[:2]) + 1))
    top, left = (int(rng.integers(0, length - side + 1)) for length in half.shape[:2])
    square = np.rot90(half[top : top + side, left : left + side], int(rng.integers(4)))
    square = square[:, ::-1] if rng.random() < 0.5 else square
    resized = Image.fromarray(np.ascontiguousarray(square)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float64)
    mean = pixels.mean(axis=(0, 1))
    return mean + min(1.0, rng.uniform(10.0, 22.0) / pixels.std(axis=(0, 1)).max()) * (pixels - mean)


def paste(pixels: NDArray[np.float64], mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """The ground with branches that are all darker or all brighter than it, float64[256, 256, 3]; others stay as they are."""
    end = BLACK if rng.random() < 0.5 or pixels.mean() > BRIGHT else WHITE
    edge = rng.uniform(1.0, 3.0)
    share = rng.uniform(0.35, 0.6) * np.minimum(distance_transform_edt(mask) / edge, 1.0)
    return pixels + share[..., None] * (end - pixels)


def finish(pixels: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur and noise, rounded to uint8."""
    blurred = gaussian_filter(pixels, (*[rng.uniform(0.4, 0.9)] * 2, 0.0))
    noise = rng.normal(0.0, rng.uniform(2.0, 6.0), pixels.shape[:2])
    return np.clip(np.round(blurred + noise[..., None]), 0, 255).astype(np.uint8)


def _save(pixels: NDArray[np.uint8], file: Path) -> None:
    with replacing(file) as beside:
        Image.fromarray(pixels).save(beside, "PNG")
