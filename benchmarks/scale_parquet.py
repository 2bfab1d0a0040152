"""Images per second from parquet files in random order: in memory, and 10 % over the memory budget.

    python -m wildfern.benchmarks.scale_parquet --images 6000 --json scale_parquet.json

Over the budget: from an unpacked copy, and by row groups as without one; beside them the package datasets, where it is installed.
"""

import io
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from wildfern.benchmarks.own_cache import cache_in, command
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Mixture, Source, open_source
from wildfern.ssl.data.copy_folder import GIB

GROUP = 1000  # images of a row group
SIZES = ((256, 200), (200, 256))  # of two sizes, or all would be kept decoded
BATCH = 64
OVER = 1.1
COPY, ROW_GROUPS, DATASETS = "over the budget, unpacked copy", "over the budget, row groups", "datasets"


def rows(folder: Path, images: int, seconds: float) -> tuple[list[dict], dict[str, float]]:
    """The rows of `compare`, and figures, for a new set of `images` images in `folder`."""
    write_set(folder / "set/train.parquet", images)
    over = _bytes_of(folder / "set/train.parquet") / OVER / GIB
    where = f"parquet:{folder / 'set'}"
    with cache_in(folder / "cache"):
        copied = open_source(where, memory_gb=over)
        began = time.perf_counter()
        copied.prepare()
        unpacking = images / (time.perf_counter() - began)
        things = {
            "in memory": batches(open_source(where, memory_gb=1e3)),
            COPY: batches(copied),
            ROW_GROUPS: batches(open_source(where, memory_gb=over, disk_gb=0)),
        }
        if find_spec("datasets") is not None:
            things[DATASETS] = with_datasets(folder, images)
        found = compare(f"{images:,} JPEGs, row groups of {GROUP:,}", BATCH, things, seconds)
    rates = {row["what"]: row["rate"] for row in found}
    figures = {"unpacked_per_second": unpacking, "copy_to_row_groups": rates[COPY] / rates[ROW_GROUPS]}
    if DATASETS in rates:
        figures["copy_to_datasets"] = rates[COPY] / rates[DATASETS]
    return found, figures


def write_set(path: Path, images: int) -> None:
    """A parquet file of JPEGs of smooth noise, in the layout of the Hugging Face hub."""
    path.parent.mkdir(parents=True)
    cells, rng = [], np.random.Generator(np.random.Philox(key("scale of parquet")))
    for number in range(images):
        buffer = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        noise.resize(SIZES[number % len(SIZES)], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        cells.append({"bytes": buffer.getvalue(), "path": f"{number}.jpg"})
    parquet.write_table(pa.table({"image": cells}), path, row_group_size=GROUP)


def batches(source: Source) -> Callable[[], object]:
    """A function that reads the next batch of shuffled images."""
    mixture, steps = Mixture([(source, 1.0)], seed=0), count()
    return lambda: mixture.read(np.arange(BATCH) + BATCH * next(steps))


def with_datasets(folder: Path, images: int) -> Callable[[], object]:
    """As `batches`, by the package datasets, which also makes a copy of its own once."""
    import datasets

    files, cache = str(folder / "set/train.parquet"), str(folder / "datasets")
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    dataset = dataset.cast_column("image", datasets.Image())
    order, steps = np.random.Generator(np.random.Philox(key("order of datasets"))).permutation(images), count()

    def read() -> list[np.ndarray]:
        places = (np.arange(BATCH) + BATCH * next(steps)) % images
        return [np.asarray(image.convert("RGB")) for image in dataset[order[places].tolist()]["image"]]

    return read


def run(seconds: float, images: int = 6_000) -> Benchmark:
    """Images per second; each alternative runs for about `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        found, figures = rows(Path(folder), images, seconds)
    words = (
        f"In batches of {BATCH} in random order, by one thread. The set is {OVER:g} × memory_gb where it is over the budget. "
        f"Unpacking, once: {figures['unpacked_per_second']:,.0f} images/s."
    )
    return Benchmark("scale_parquet", "images/s", words, found, figures)


def _bytes_of(path: Path) -> int:
    """Bytes of the encoded column in memory."""
    return sum(batch.column(0).nbytes for batch in parquet.ParquetFile(path).iter_batches(columns=["image.bytes"]))


if __name__ == "__main__":
    command(__doc__, run, images=6_000, seconds=10.0)
