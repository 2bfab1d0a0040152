"""Small folders of images for the tests of curation."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def scene(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image (width, height) with large and small structure, different for each number."""
    rng = np.random.Generator(np.random.Philox(number))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 21, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def write_scenes(folder: Path, count: int, first: int = 0) -> list[str]:
    """PNG files scene_00.png … below the folder; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"scene_{number:02d}.png" for number in range(first, first + count)]
    for number, name in enumerate(names, first):
        scene(number).save(folder / name)
    return names


def manifest_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of a manifest with the values that every image has: a kept file that was read."""
    return {
        "source": "folder:photos",
        "kind": "folder",
        "container": "/photos",
        "path": f"{number}.jpg",
        "place": -1,
        "bytes": 1000 + number,
        "modified": 10**18,
        "sha256": f"{number:064x}",
        "pixels_sha256": f"{number:064x}",
        "width": 64,
        "height": 48,
        "phash": number,
        "phash_quality": 50.0,
        "small": bytes(768),
        "group": -1,
        "cluster": -1,
        "decision": "keep",
        "reasons": [],
    } | changes
