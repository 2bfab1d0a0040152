"""Scanning and auditing images, beside imagededup and cleanvision on the same files; and searches that grow with the square.

    wildfern bench curation

Both are optional (`pip install imagededup cleanvision`); what is not installed is left out, and said. Each alternative works in
one process, so that rates are per core. The images are made here: scenes of shapes and textures, as JPEG files.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from wildfern.benchmarks.result import Benchmark, compare
from wildfern.generators import make_stream
from wildfern.ssl.curation.curate import scan
from wildfern.ssl.curation.hash_pairs import hash_pairs
from wildfern.ssl.curation.listing import Folder
from wildfern.ssl.curation.measure import measure_listed
from wildfern.ssl.curation.similar_pairs import similar_pairs

IMAGES = 400
SIZES = ((500, 375), (213, 160))  # pixels: of ImageNet and of small thumbnails
CHUNK, WIDTH, MILLION = 4096, 512, 1_000_000


def run(seconds: float) -> Benchmark:
    """Files per second of hashing and of an audit, and pairs per second of the searches; figures project these to a million."""
    rows: list[dict] = []
    missing = [name for name in ("imagededup", "cleanvision") if find_spec(name) is None]
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1, "blas"):
        for size in SIZES:
            folder = Path(name) / f"{size[0]}x{size[1]}"
            write_images(folder, size)
            rows += _hashing(folder, seconds) + _audit(folder, seconds)
    searching, figures = _searching(seconds)
    without = f" Not installed, and not measured: {', '.join(missing)}." if missing else ""
    return Benchmark(
        "curation",
        "files/s, pairs/s",
        "JPEG files of quality 90, one process each; wildfern's scan has two threads. hashes: imagededup's pHash; wildfern also "
        "has SHA-256 of file and pixels, "
        f"all values and the metadata. audit: cleanvision's default issues; wildfern's scan with all decisions.{without}",
        rows + searching,
        figures,
    )


def write_images(folder: Path, size: tuple[int, int]) -> None:
    """Dead leaves and textures with the spectrum of photographs, cropped to the size, as JPEG files."""
    folder.mkdir()
    streams = [make_stream(name, size=max(size), seed=7) for name in ("dead_leaves", "texture")]
    for number in range(IMAGES):
        pixels = streams[number % 2].batch(np.array([number])).images[0][: size[1], : size[0]]
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=90)


def _hashing(folder: Path, seconds: float) -> list[dict]:
    items = list(Folder(str(folder)).items())
    things: dict[str, Callable[[], object]] = {}
    if find_spec("imagededup") is not None:
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
        things["imagededup pHash"] = lambda: hasher.encode_images(image_dir=str(folder), num_enc_workers=0)
    things["wildfern: hashes, values, metadata"] = lambda: measure_listed("folder", str(folder), items)
    return compare(f"hashes, {folder.name}", len(items), things, seconds)


def _audit(folder: Path, seconds: float) -> list[dict]:
    things: dict[str, Callable[[], object]] = {}
    if find_spec("cleanvision") is not None:
        from cleanvision import Imagelab

        def audit() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                Imagelab(data_path=str(folder)).find_issues(n_jobs=1, verbose=False)

        things["cleanvision, default issues"] = audit

    def curate() -> None:
        with tempfile.TemporaryDirectory() as out:
            scan([str(folder)], out)

    things["wildfern: scan and decide"] = curate
    return compare(f"audit, {folder.name}", IMAGES, things, seconds)


def _searching(seconds: float) -> tuple[list[dict], dict[str, float]]:
    """The search of features in blocks, and that of hashes, with a projection to a million images."""
    rng = np.random.Generator(np.random.Philox(3))
    features = torch.from_numpy(rng.standard_normal((CHUNK, WIDTH), np.float32))
    rows = compare(
        f"features, {CHUNK:,} x {WIDTH}",
        CHUNK * (CHUNK - 1) // 2,
        {f"exact cosine, {torch.get_num_threads()} threads": lambda: similar_pairs(features, 0.9)},
        seconds,
    )
    hashes = rng.integers(0, 2**64, MILLION, np.uint64)
    figures = {"features_of_a_million_seconds": MILLION * (MILLION - 1) / 2 / rows[0]["rate"]}
    for bits in (4, 6):
        began = time.perf_counter()
        hash_pairs(hashes, bits)
        figures[f"hashes_of_a_million_{bits}_bits_seconds"] = time.perf_counter() - began
    return rows, figures
