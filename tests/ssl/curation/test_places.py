"""Images by their places in folders, shards and parquet files, and what has changed since the scan."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wildfern.ssl.curation.manifest import SCHEMA, CurationError
from wildfern.ssl.curation.places import PLACE_COLUMNS, Place, PlacedImages, places_of
from wildfern.ssl.curation.scan import list_images, measure_images, measured
from wildfern.ssl.data.base import UnreadableImage

COUNT = 6


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sources(tmp_path) -> list[str]:
    """A folder whose name and files are no UTF-8, a shard and a parquet file, of the same images."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    contents = [png(seed) for seed in range(COUNT)]
    for number, content in enumerate(contents):
        (folder / os.fsdecode(b"%d\xe9\n.png" % number)).write_bytes(content)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    pq.write_table(pa.table({"image": pa.array(contents, pa.binary())}), tmp_path / "x.parquet", row_group_size=4)
    return [f"folder:{folder}", str(tmp_path / "x.tar"), str(tmp_path / "x.parquet")]


@pytest.fixture
def rows(sources, tmp_path) -> pa.Table:
    places = list_images(sources)
    measure_images(places, tmp_path / "out")
    return pa.concat_tables(measured(places, tmp_path / "out"))


def all_places(rows: pa.Table, wanted: np.ndarray | None = None, size: int = 4) -> list[Place]:
    chosen = np.ones(len(rows), bool) if wanted is None else wanted
    return list(places_of(iter(rows.select(PLACE_COLUMNS).combine_chunks().to_batches(size)), chosen))


def test_every_kind_of_place_is_read(rows):
    places = all_places(rows)
    assert [place.kind for place in places] == ["folder"] * COUNT + ["webdataset"] * COUNT + ["parquet"] * COUNT
    for number, place in enumerate(places):
        content = png(number % COUNT)
        assert place.read() == place.read_checked() == content
        assert place.sha256 == hashlib.sha256(content).hexdigest()
        assert place.size == len(content)
    assert os.fsencode(places[2].path) == b"2\xe9\n.png"
    assert os.fsencode(places[2].container).endswith(b"caf\xe9")


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_some_places(rows, size):
    wanted = np.random.default_rng(0).random(len(rows)) < 0.4
    found = all_places(rows, wanted, size)
    assert found == [place for place, chosen in zip(all_places(rows), wanted, strict=True) if chosen]
    assert all_places(rows, np.zeros(len(rows), bool), size) == []


def test_a_place_whose_content_has_changed(rows, sources, tmp_path):
    places = all_places(rows)
    folder = os.path.join(places[0].container, places[0].path)
    with open(folder, "wb") as file:
        file.write(png(77))
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[places[COUNT].place + 50] ^= 1
    (tmp_path / "x.tar").write_bytes(bytes(content))
    pq.write_table(pa.table({"image": pa.array([png(77)], pa.binary())}), tmp_path / "x.parquet")
    for number in (0, COUNT, 2 * COUNT):
        assert places[number].read() != png(0)
        with pytest.raises(UnreadableImage, match="changed since the scan"):
            places[number].read_checked()
    assert places[1].read_checked() == places[COUNT + 1].read_checked() == png(1)
    with pytest.raises(UnreadableImage):  # the file has fewer rows now
        places[2 * COUNT + 1].read()


def test_a_place_that_is_gone(rows, tmp_path):
    place = all_places(rows)[0]
    os.unlink(os.path.join(place.container, place.path))
    for read in (place.read, place.read_checked):
        with pytest.raises(UnreadableImage, match="No such file"):
            read()


@pytest.mark.parametrize("path", ["a\0b", "", "/dev/zero", "sub/"])
def test_hostile_places(tmp_path, path):
    for kind in ("folder", "webdataset"):
        with pytest.raises(UnreadableImage):
            Place("0" * 64, kind, str(tmp_path), path, 512, 10).read()
    with pytest.raises(CurationError, match="images are in folder"):
        Place("0" * 64, "http", str(tmp_path), path, -1, 10).read()


def test_a_source_of_places(rows):
    places = all_places(rows)
    source = PlacedImages(places)
    assert source.num_items == 3 * COUNT
    assert source.class_names is None
    found = source.read([1, COUNT + 1, 2 * COUNT + 1]).pixels
    expected = np.asarray(Image.open(io.BytesIO(png(1))))
    for pixels in found:
        np.testing.assert_array_equal(pixels, expected)
    assert source.item_name(COUNT + 1) == f"{places[COUNT].container}/1.png"
    shrunk = PlacedImages(places, max_side=10)
    assert shrunk.decode(0).shape == (5, 10, 3)


def test_columns_are_of_the_manifest():
    assert set(PLACE_COLUMNS) <= set(SCHEMA.names)
