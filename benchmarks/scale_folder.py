"""Opening a folder of many images: the first start, later starts, and torchvision's ImageFolder.

python -m wildfern.benchmarks.scale_folder 100000 --json folder.json
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from torchvision.datasets import ImageFolder

from wildfern.benchmarks.arguments import at_least_one
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.cache_folder import cache_folder
from wildfern.ssl.data import open_source

A_CLASS = 1000  # images
LINKS = 50_000  # to one file: file systems have limits
READ_BY_PILLOW = 20_000  # files
AT_REST = 2.5  # s after the last change of a folder, from which on its index is kept


def make_tree(root: Path, files: int) -> None:
    """A folder for each class of up to `A_CLASS` images of 16 px, which are hard links to a few files beside `root`."""
    originals = []
    for number in range(max(8, -(-files // LINKS))):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16 + number % 8, 3), dtype=np.uint8)
        originals.append(root.with_name(f"original_{number}.jpg"))
        Image.fromarray(pixels).save(originals[-1])
    for number in range(files):
        folder = root / f"n{number // A_CLASS:08d}"
        if number % A_CLASS == 0:
            folder.mkdir(parents=True)
        os.link(originals[number % len(originals)], folder / f"{folder.name}_{number:08d}.jpg")


def rows(files: int, seconds: float = 0.0) -> list[dict]:
    """Rows for a tree of `files` images in a temporary folder: images per second of opening it, with labels.

    Starts without headers are timed three times, those that read all headers once; Pillow reads at most `READ_BY_PILLOW` of them.
    """
    with _tree(files) as root:

        def opened(check_headers: bool, first: bool) -> None:
            if first:
                shutil.rmtree(cache_folder("indexes"), ignore_errors=True)
            source = open_source(f"folder:{root}", labels="folders", check_headers=check_headers)
            assert source.num_items == files

        case = f"{files:,} images"
        first = {
            "torchvision ImageFolder": lambda: ImageFolder(root),
            "wildfern, first start without headers": lambda: opened(check_headers=False, first=True),
        }
        found = compare(case, files, first, seconds)
        later = {
            "wildfern, first start": lambda: opened(check_headers=True, first=True),
            "wildfern, later start": lambda: opened(check_headers=True, first=False),
        }
        few = [path for path, _ in ImageFolder(root).samples[:READ_BY_PILLOW]]
        timed = {"Pillow's size of each image": (len(few), lambda: [_size_of(path) for path in few])}
        timed |= {what: (files, call) for what, call in later.items()}
        for what, (count, call) in timed.items():
            found += compare(case, count, {what: call}, seconds, rounds=1, warm_up=False)
            found[-1]["ratio"] = found[-1]["rate"] / found[0]["rate"]
        return found


def _size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@contextmanager
def _tree(files: int) -> Iterator[Path]:
    """The tree, and a cache folder of its own."""
    former = os.environ.get("WILDFERN_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WILDFERN_CACHE"] = str(Path(folder) / "cache")
        try:
            make_tree(Path(folder) / "images", files)
            time.sleep(AT_REST)
            yield Path(folder) / "images"
        finally:
            del os.environ["WILDFERN_CACHE"]
            if former is not None:
                os.environ["WILDFERN_CACHE"] = former


def benchmark(sizes: list[int]) -> Benchmark:
    """The rows for each number of images."""
    words = "opening a folder with labels, from a warm file system; a later start maps the index of the first"
    return Benchmark("scale_folder", "images/s", words, [row for files in sizes for row in rows(files)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=at_least_one, nargs="+", help="images in the folder")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    result = benchmark(arguments.files)
    Console().print(result.table())
    if arguments.json:
        arguments.json.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
