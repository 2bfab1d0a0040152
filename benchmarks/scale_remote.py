"""Images per second from tar shards on a web server: while they are downloaded, from their copies, and from local files.

    python -m wildfern.benchmarks.scale_remote --images 2000 --json scale_remote.json

The server is a process of this machine, so the network is no limit: what is measured is the work of this side. Each call reads
all images once with `order: blocks`.
"""

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from wildfern.benchmarks.own_cache import cache_in, command
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Mixture, open_source

IN_A_SHARD = 250  # images
WINDOW = 2 * IN_A_SHARD  # images that are shuffled together
SIZES = ((96, 80), (80, 96))  # of two sizes, or all would be kept decoded
BATCH = 64
LOCAL, FIRST, SECOND = "local files", "first pass (download)", "second pass (copies)"


def rows(folder: Path, images: int, seconds: float) -> list[dict]:
    """The rows of `compare` for new shards with `images` images in `folder`."""
    shards = write_shards(folder / "shards", images)
    pattern = f"shard-{{0000..{shards - 1:04}}}.tar"
    with cache_in(folder / "cache"), served(folder / "shards") as url:
        local, copied = one_pass(f"{folder / 'shards'}/{pattern}"), one_pass(f"{url}/{pattern}")

        def downloaded() -> None:
            shutil.rmtree(folder / "cache/remote", ignore_errors=True)
            one_pass(f"{url}/{pattern}")()

        # In this order: the second pass finds the copies of the first.
        things = {LOCAL: local, FIRST: downloaded, SECOND: copied}
        return compare(f"{images:,} JPEGs, shards of {IN_A_SHARD:,}", images, things, seconds)


def write_shards(folder: Path, images: int) -> int:
    """Shards of JPEGs of smooth noise; returns their number."""
    folder.mkdir(parents=True)
    rng = np.random.Generator(np.random.Philox(key("scale of remote shards")))
    firsts = range(0, images, IN_A_SHARD)
    for shard, first in enumerate(firsts):
        with tarfile.open(folder / f"shard-{shard:04}.tar", "w") as tar:
            for number in range(first, min(images, first + IN_A_SHARD)):
                buffer = io.BytesIO()
                noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
                noise.resize(SIZES[number % len(SIZES)], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
                header = tarfile.TarInfo(f"{number:09}.jpg")
                header.size = buffer.tell()
                tar.addfile(header, io.BytesIO(buffer.getvalue()))
    return len(firsts)


def one_pass(pattern: str) -> Callable[[], object]:
    """A function that reads all images of these shards once, in batches."""
    source = open_source(f"webdataset:{pattern}", labels="none")
    mixture, count = Mixture([(source, 1.0)], seed=0, buffers=[WINDOW]), source.num_items or 0

    def read() -> None:
        for first in range(0, count, BATCH):
            mixture.read(np.arange(first, min(count, first + BATCH)))

    return read


class Handler(BaseHTTPRequestHandler):
    """Serves the files of `folder`, with ranges and ETags."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, *_: object) -> None:
        """No line for each request."""

    def _answer(self, with_content: bool) -> None:
        path = self.folder / os.path.basename(self.path)
        size = path.stat().st_size if path.is_file() else 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.send_response(404 if not size else 206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{size}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if with_content and size:
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(stop - start))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server, in a process of its own, that has the files of a folder."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(folder: Path, connection: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("FolderHandler", (Handler,), {"folder": folder}))
    connection.send(server.server_port)
    server.serve_forever()


def run(seconds: float, images: int = 2000) -> Benchmark:
    """Images per second; each alternative runs for about `seconds`, and reads all images at least four times."""
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), images, seconds)
    words = (
        f"In batches of {BATCH} with order: blocks and a buffer of {WINDOW}, by one thread, from a web server on this "
        "machine. The index of the shards is there. First pass: no shard has a copy."
    )
    return Benchmark("scale_remote", "images/s", words, found)


if __name__ == "__main__":
    command(__doc__, run, images=2000, seconds=6.0)
