"""Columns with nulls, in chunks of their own dictionaries, as arrays."""

import math

import numpy as np
import pyarrow as pa
import pytest

from wildfern.ssl.curation.image_table import COLUMNS, ImageTable, as_small
from wildfern.ssl.curation.manifest import SCHEMA


def table(*chunks: dict[str, list]) -> ImageTable:
    """Each chunk has dictionaries of its own, as row groups have."""
    schema = pa.schema([SCHEMA.field(name) for name in COLUMNS])
    rows = [
        pa.Table.from_pylist([dict(zip(one, row, strict=True)) for row in zip(*one.values(), strict=True)], schema)
        for one in chunks
    ]
    return ImageTable(
        pa.concat_tables(rows) if rows else schema.empty_table(), lambda _: np.zeros((0, 16, 16, 3), np.uint8)
    )


def test_all_columns_are_of_the_manifest():
    assert set(COLUMNS) <= set(SCHEMA.names)
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_numbers_and_nulls():
    images = table({"width": [3, None]}, {"width": [2**31 - 1]})
    found = images.numbers("width")
    assert found.dtype == np.float64
    assert found[[0, 2]].tolist() == [3, 2**31 - 1]
    assert math.isnan(found[1])
    assert np.isnan(images.numbers("sharpness")).all()
    assert table({"bytes": [2**40, None]}).numbers("bytes")[0] == 2**40


def test_codes_are_equal_where_texts_are():
    for column in ("format", "author"):  # a dictionary, and plain texts
        texts = ["b", None, "a", "b", "c", None, "a", ""]
        images = table({column: texts[:3]}, {column: texts[3:5]}, {column: texts[5:]})
        codes = images.codes(column)
        assert codes.dtype == np.int64
        for n, one in enumerate(texts):
            assert (codes[n] == -1) == (one is None)
            assert [code == codes[n] for code in codes] == [other == one for other in texts]
        assert images.texts(column) == texts
        assert [images.text(column, n) for n in range(len(texts))] == texts
    assert (table({"width": [1, 2]}).codes("author") == -1).all()


def test_hashes_keep_all_64_bits():
    images = table({"phash": [2**64 - 1, None, 2**53 + 1]}, {"phash": [1]})
    assert images.hashes.dtype == np.uint64
    assert images.hashes.tolist() == [2**64 - 1, 0, 2**53 + 1, 1]


def test_readable_images():
    images = table({"pixels_sha256": ["x", None]}, {"pixels_sha256": ["y"]})
    assert images.readable.tolist() == [True, False, True]
    assert images.readable.dtype == bool


def test_other_columns():
    images = table({"people": [None, None], "width": [1, 2]}, {"people": [None], "width": [3]})
    changed = images.with_columns({"people": pa.array([0.5, None, 0.25], pa.float32())})
    assert changed.numbers("people").tolist()[::2] == [0.5, 0.25]
    assert np.isnan(images.numbers("people")).all()
    assert changed.numbers("width").tolist() == [1, 2, 3]
    assert changed.column("people", 1, 2).to_pylist() == [None, 0.25]
    assert changed.column("people", 2, 10).to_pylist() == [0.25]
    assert len(changed) == 3


def test_no_images():
    images = table()
    assert len(images) == 0
    for found in (
        images.numbers("width"),
        images.codes("format"),
        images.codes("author"),
        images.hashes,
        images.readable,
    ):
        assert found.shape == (0,)
    assert images.texts("path") == []


def test_small_images():
    one, other = (np.random.default_rng(n).integers(0, 256, (16, 16, 3), dtype=np.uint8) for n in range(2))
    column = pa.chunked_array([[one.tobytes(), None], [other.tobytes()]], pa.binary(768))
    found = as_small(column)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.stack([one, np.zeros_like(one), other]))
    assert as_small(pa.chunked_array([], pa.binary(768))).shape == (0, 16, 16, 3)


def test_a_column_that_there_is_not():
    with pytest.raises(KeyError):
        table({"width": [1]}).numbers("camera")
