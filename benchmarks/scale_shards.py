"""Images per second of making the index of tar shards, and what opening a set with a kept index takes.

    python -m wildfern.benchmarks.scale_shards --images 200000 --json scale_shards.json

The images are a few bytes each, so that only headers count; each has a label, in a member of its own. Beside the compiled and
the plain reading of headers: tarfile of the standard library, which gives the places of all members.
"""

import os
import tarfile
import tempfile
import time
from pathlib import Path

from wildfern.benchmarks.own_cache import cache_in, command
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.ssl.data import open_source
from wildfern.ssl.data.tar_index import index_shard

IN_A_SHARD = 10_000  # images
OLD = 1_600_000_000  # s since 1970: shards that were just written are not kept in an index


def rows(folder: Path, images: int, seconds: float) -> tuple[list[dict], dict[str, float]]:
    """The rows of `compare`, and figures, for new shards with `images` images in `folder`."""
    shards = write_shards(folder / "shards", images)
    of_one = min(images, IN_A_SHARD)
    things = {
        "tarfile": lambda: _places(shards[0]),
        "plain": lambda: index_shard(str(shards[0]), compiled=False),
        "compiled": lambda: index_shard(str(shards[0]), compiled=True),
    }
    found = compare(f"headers of {of_one:,} images with labels, one thread", of_one, things, seconds)
    with cache_in(folder / "cache"):
        times = {}
        for what in ("cold", "warm"):
            began = time.perf_counter()
            open_source(f"webdataset:{folder}/shards/*.tar")
            times[f"{what}_opening_seconds"] = time.perf_counter() - began
        kept = sum(path.stat().st_size for path in folder.glob("cache/indexes/*.index"))
    figures = {f"microseconds_an_image_{row['what']}": 1e6 / row["rate"] for row in found}
    return found, figures | times | {"index_bytes_an_image": kept / images}


def write_shards(folder: Path, images: int) -> list[Path]:
    """Shards of 10 000 samples NUMBER.jpg and NUMBER.cls, written long ago."""
    folder.mkdir(parents=True)
    paths = []
    for first in range(0, images, IN_A_SHARD):
        paths.append(folder / f"shard-{first // IN_A_SHARD:06d}.tar")
        with paths[-1].open("wb") as file:
            for number in range(first, min(images, first + IN_A_SHARD)):
                for ending, content in (("jpg", b"image"), ("cls", b"7")):
                    header = tarfile.TarInfo(f"{number:09d}.{ending}")
                    header.size = len(content)
                    file.write(header.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0"))
            file.write(bytes(1024))
        os.utime(paths[-1], (OLD, OLD))
    return paths


def _places(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as tar:
        return [(member.name, member.offset_data, member.size) for member in tar]


def run(seconds: float, images: int = 200_000) -> Benchmark:
    """Images per second; each alternative runs for about `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        found, figures = rows(Path(folder), images, seconds)
    words = (
        f"Opening {images:,} images in shards of {IN_A_SHARD:,}: {figures['cold_opening_seconds']:.2f} s, with the kept index "
        f"{figures['warm_opening_seconds']:.3f} s; the index has {figures['index_bytes_an_image']:.0f} bytes an image."
    )
    return Benchmark("scale_shards", "images/s", words, found, figures)


if __name__ == "__main__":
    command(__doc__, run, images=200_000, seconds=6.0)
