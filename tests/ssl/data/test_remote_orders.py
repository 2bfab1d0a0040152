"""Parquet files and shards of a web server in the orders of training, from the start and where a resumed run goes on."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from range_server import served_to
from tar_bytes import member

from wildfern.ssl.data import Mixture, open_source

FILES, EACH = 3, 8


def image(value: int) -> bytes:
    """Of several sizes, so that images are not kept decoded."""
    written = io.BytesIO()
    Image.new("RGB", (4 + value % 3, 4), (value, 0, 0)).save(written, "PNG")
    return written.getvalue()


def table(values, rows=3) -> bytes:
    written = io.BytesIO()
    columns = {"image": [{"bytes": image(v), "path": None} for v in values], "label": [f"kind {v % 5}" for v in values]}
    parquet.write_table(pa.table(columns), written, rows)
    return written.getvalue()


def shard(values) -> bytes:
    samples = (member(b"%04d.png" % v, image(v)) + member(b"%04d.cls" % v, b"kind %d" % (v % 5)) for v in values)
    return b"".join(samples) + bytes(1024)


KINDS = {"parquet": ("parquet", table), "webdataset": ("tar", shard)}


@pytest.fixture
def files(tmp_path):
    with served_to(tmp_path) as files:
        yield files


def read(mixture, start, stop, step=4) -> list[tuple[int, int]]:
    """(value, label) of the images of a range of indices, by batches."""
    found = []
    for first in range(start, stop, step):
        images = mixture.read(np.arange(first, min(first + step, stop)))
        found += [
            (int(pixels[0, 0, 0]), int(label)) for pixels, label in zip(images.pixels, images.labels, strict=True)
        ]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffer", [None, 8, 100])
@pytest.mark.parametrize("fitting", [True, False])
def test_a_resumed_run_reads_the_images_and_labels_of_local_files(files, tmp_path, kind, buffer, fitting):
    ending, written = KINDS[kind]
    (tmp_path / "set").mkdir()
    for number in range(FILES):
        values = range(EACH * number, EACH * (number + 1))
        files[f"/set/{number}.{ending}"] = content = written(values)
        # Blocks of remote parquet files are files, and of local ones row groups.
        (tmp_path / f"set/{number}.{ending}").write_bytes(table(values, EACH) if kind == "parquet" else content)
    sizes = 10 if fitting or buffer == 100 else 2.2
    arguments = {"cache_gb": sizes * max(map(len, files.values())) / 2**30}
    arguments |= {"memory_gb": 0} if kind == "parquet" else {}
    local = tmp_path / "set" if kind == "parquet" else tmp_path / "set/{0..2}.tar"

    def opened(place, **arguments) -> Mixture:
        return Mixture([(open_source(f"{kind}:{place}", **arguments), 1.0)], 5, buffers=[buffer])

    def served_set() -> Mixture:
        return opened(f"{files.url}/set/{{0..2}}.{ending}", **arguments)

    count = FILES * EACH
    expected = read(opened(local), 0, 3 * count)
    assert sorted(value for value, _ in expected[:count]) == list(range(count))
    assert {label == value % 5 for value, label in expected} == {True}
    assert read(served_set(), 0, 3 * count) == expected
    assert read(served_set(), count + 4, 3 * count) == expected[count + 4 :]
