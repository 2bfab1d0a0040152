"""Mutated tar shards, parquet files, tables of classes and images: read, skipped or refused with DataError, in bounded time."""

import contextlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from mutations import BINARY, changed_documents, json_values, near
from PIL import Image
from time_limit import at_most

from wildfern.ssl.data import DataError, UnreadableImage, open_source
from wildfern.ssl.data.classes_csv import read_classes_csv
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.labels import number_labels
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import UnusableLabel, index_shard, read_labels

BLOCK = 512
SECONDS = 10


def image(kind: str, mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def tar(
    members: list[tuple[str, bytes]],
    form: int = tarfile.USTAR_FORMAT,
    of_all: dict[str, str] | None = None,
    each: dict[str, str] | None = None,
) -> bytes:
    """An archive; `of_all` and `each`: records of its extended headers, for all members and for each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers=of_all) as file:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.pax_headers = len(data), each or {}
            file.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


MEMBERS = [("0.png", image("PNG")), ("0.cls", b"1"), ("1.jpg", image("JPEG")), ("1.json", b'{"label": [0, 2]}')]
TARS = [
    tar(MEMBERS),
    tar([(f"{'long' * 40}/{name}", data) for name, data in MEMBERS], tarfile.GNU_FORMAT),
    tar([(f"ä{'long' * 80}/{name}", data) for name, data in MEMBERS], tarfile.PAX_FORMAT),
    tar(MEMBERS, tarfile.PAX_FORMAT, {"comment": "of all", "path": "of all.png"}),
    tar(MEMBERS, tarfile.PAX_FORMAT, each={"size": "80", "SCHILY.xattr.user.a": "b"}),
    tar(MEMBERS, tarfile.PAX_FORMAT, each={"GNU.sparse.map": "0,9,20,80", "GNU.sparse.size": "100"}),
    tar(
        [(name, b"2\n0\n9\n20\n80\n".ljust(BLOCK, b"\0") + data) for name, data in MEMBERS],
        tarfile.PAX_FORMAT,
        each={"GNU.sparse.major": "1", "GNU.sparse.realsize": "100", "GNU.sparse.name": "0.png"},
    ),
]
FIELDS = [
    (0, 100),
    (100, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (345, 155),
    (386, 96),
    (482, 1),
    (483, 12),
]
VALUES = [*BINARY, b"-1", b"77777777777", b"\x80" + b"\0" * 10 + b"\1", b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"6"]


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Fields of headers set to what parsers stumble over, with right checksums; then perhaps bytes changed anywhere."""
    data = bytearray(draw(st.sampled_from(TARS)))
    for _ in range(draw(st.integers(0, 3))):
        start = BLOCK * draw(st.integers(0, len(data) // BLOCK - 1))
        at, length = draw(st.sampled_from(FIELDS))
        value = draw(st.sampled_from(VALUES))[:length]
        data[start + at : start + at + len(value)] = value
        header = data[start : start + BLOCK]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return draw(near([bytes(data)], most=1))


@given(tars())
def test_tar_shards(content):
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        path = Path(folder) / "shard.tar"
        path.write_bytes(content)
        try:
            index = index_shard(str(path))
        except DataError as error:
            assert str(path) in str(error)
            return
        for offset, size in zip(index.offsets, index.sizes, strict=True):
            assert 0 <= offset <= offset + size <= len(content)
        places = list(zip(index.label_offsets, index.label_sizes, index.in_json, strict=True))
        assert len(read_labels(index.file, places)) == len(index.keys)
        with contextlib.suppress(DataError):
            source = open_source(f"webdataset:{path}")
            source.read(np.arange(source.num_items))
            source.labels  # noqa: B018


def parquet_file(images: Any = None, labels: Any = (0, 1, 2, 0, 1, 2), **options) -> bytes:
    buffer = io.BytesIO()
    both = [{"bytes": image("PNG"), "path": "a.png"}, {"bytes": image("JPEG"), "path": "b.jpg"}]
    table = pa.table({"image": images or both * 3, "label": pa.array(labels)})
    features = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, buffer, row_group_size=3, **options)
    return buffer.getvalue()


PLAIN = {"compression": "none", "use_dictionary": False}
PARQUETS = [
    parquet_file(),
    parquet_file(compression="zstd"),
    parquet_file(**PLAIN),
    parquet_file(pa.array([image("PNG")] * 6).dictionary_encode(), labels=["a", "b", "c"] * 2),
    parquet_file(pa.array([list(image("PNG"))] * 6, pa.list_(pa.uint8())), labels=[[0], [1, 2], None] * 2, **PLAIN),
    parquet_file([image("PNG")] * 6, data_page_version="2.0", write_page_checksum=True, write_page_index=True, **PLAIN),
    parquet_file([image("PNG")] * 6, column_encoding={"image": "DELTA_BYTE_ARRAY"}, **PLAIN),
    parquet_file([{"bytes": None, "path": path} for path in ("a.png", "../a", "/dev/zero")] * 2, **PLAIN),
]


@given(near(PARQUETS, stumbles=[*BINARY, b'"names"', b'{"info": 1}', b"[" * 3000]))
def test_parquet_files(content):
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        path = Path(folder) / "train.parquet"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            source = open_source(f"parquet:{path}")
            source.read(np.arange(min(source.num_items, 6)))
            source.labels  # noqa: B018


@given(near([b"filename, cat, dog\na.png,1,0\r\n\nb.png, 0,1\n", b'\xef\xbb\xbffile,x\n"a,b",1\n'], most=3))
def test_tables_of_classes(content):
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        (Path(folder) / "_classes.csv").write_bytes(content)
        try:
            names, rows = read_classes_csv(Path(folder))
        except DataError as error:
            assert folder in str(error)
            return
    assert all(len(row) == len(names) for row in rows.values())


@given(st.lists(json_values(), max_size=6), st.lists(json_values(), max_size=2), st.none() | st.just(["a", "b"]))
def test_labels(labels, others, names):
    with at_most(SECONDS):
        try:
            numbers, found = number_labels(labels, others, "labels", names)
        except DataError as error:
            assert str(error).startswith("labels")
            return
    if numbers is not None:
        assert len(numbers) == len(labels)
        assert numbers.ndim == 2 or numbers.max(initial=-1) < len(found)
        assert numbers.ndim == 1 or numbers.shape[1] == len(found)


@given(changed_documents([{"label": 1}, {"label": [0, 1]}, {"label": "cat"}, {"other": None}]))
def test_labels_in_json_members(documents):
    documents = documents if isinstance(documents, list) else [documents]
    content = b"".join(json.dumps(document).encode() for document in documents)
    places, start = [], 0
    for document in documents:
        size = len(json.dumps(document).encode())
        places.append((start, size, True))
        start += size
    with tempfile.NamedTemporaryFile() as file, at_most(SECONDS):
        file.write(content)
        file.flush()
        found = [
            None if isinstance(label, UnusableLabel) else label
            for label in read_labels(SteadyFile.of(file.name), places)
        ]
        with contextlib.suppress(DataError):
            number_labels(found, [], "labels")


def tiff(gray: bool = False, **options) -> bytes:
    """One page of color, or pages of gray."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 11, 9), dtype=np.uint8)
    if options.get("planarconfig") != "separate" and not gray:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    tifffile.imwrite(buffer, pixels, photometric="minisblack" if gray else "rgb", **options)
    return buffer.getvalue()


IMAGES = [
    image("PNG"),
    image("PNG", "P"),
    image("JPEG"),
    image("JPEG", progressive=True),
    image("WEBP"),
    image("GIF", "P"),
    image("BMP"),
    image("PPM"),
    image("JPEG2000"),
    image("TIFF"),
    image("TIFF", compression="tiff_lzw"),
    image("TIFF", "F"),
    image("JPEG", "CMYK"),
    image("MPO", save_all=True, append_images=[Image.new("RGB", (9, 11))]),
    image("PNG", save_all=True, append_images=[Image.new("RGB", (9, 11))]),
    tiff(bigtiff=True, tile=(16, 16), compression="deflate"),
    tiff(planarconfig="separate", byteorder=">"),
    tiff(compression="jpeg", tile=(16, 16)),
    tiff(gray=True, compression="zstd"),
    imagecodecs.png_encode(np.arange(9 * 11 * 3, dtype=np.uint16).reshape(9, 11, 3)),
]


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(max_side=6), Decoding(bands=(1,), value_range="image")])
@given(content=near(IMAGES, stumbles=[*BINARY, b"\xff\xda", b"\xff\xc2", b"IDAT", b"acTL", b"II*\0", b"\0\0\0\0IEND"]))
def test_images(decoding, content):
    with at_most(SECONDS):
        try:
            pixels = decoding.decode(content, remark=lambda kind, message: None)
        except UnreadableImage as error:
            assert error.reason
            return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == decoding.channels
