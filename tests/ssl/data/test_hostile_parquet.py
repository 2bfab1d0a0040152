"""Parquet files that are damaged, malicious or changed while they are read."""

import io
import json
import os
import random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wildfern.ssl.data import (
    DataError,
    UnreadableImage,
    label_column,
    open_source,
    parquet_bounds,
    parquet_pages,
    row_groups,
)
from wildfern.ssl.data.label_column import class_names_of
from wildfern.ssl.data.row_files import file_below


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows=range(12), *, size=4, labels=True, **options):
    columns = {"image": [png(v % 251) for v in rows]} | ({"label": [v % 3 for v in rows]} if labels else {})
    parquet.write_table(pa.table(columns), path, row_group_size=size, **options)
    return path


def damage_group(path, group, column=0):
    chunk = parquet.read_metadata(path).row_group(group).column(column)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + 5
    data[middle : middle + chunk.total_compressed_size // 2] = b"\x91" * (chunk.total_compressed_size // 2)
    path.write_bytes(data)


def varint(value: int) -> bytes:
    value, out = (value << 1) ^ (value >> 127), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def edit_footer(path, old: bytes, new: bytes, count: int = -1) -> None:
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert old in data[start:-8]
    footer = data[start:-8].replace(old, new, count)
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_a_damaged_row_group_is_skipped_and_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / "train.parquet", compression="snappy")
    damage_group(path, 1)
    source = open_source(f"parquet:{path}")
    source.reads_labels = False
    reads, read_rows = [], row_groups.read_rows
    monkeypatch.setattr(row_groups, "read_rows", lambda *a: reads.append(a[3]) or read_rows(*a))
    for _ in range(3):
        pixels = source.read(np.arange(12)).pixels[:, 0, 0, 0]
    assert [pixels[k] for k in (0, 1, 2, 3, 8, 9, 10, 11)] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert reads.count(1) == 1
    assert set(source.skipped) == {f"{path} row {row}" for row in range(4, 8)}
    assert all(reason.startswith("row group 1 is damaged: ") for reason in source.skipped.values())


def test_a_damaged_label_column_is_refused_only_where_it_is_needed(tmp_path):
    path = write(tmp_path / "train.parquet", compression="snappy")
    damage_group(path, 2, column=1)
    source = open_source(f"parquet:{path}")
    assert source.read([8]).pixels[0, 0, 0, 0] == 8
    with pytest.raises(DataError, match=f"{path}: column label of row group 2 is damaged: "):
        _ = source.class_names


@pytest.mark.parametrize("rows", [2**60, 10**12, 2**32, -5])
def test_rows_that_a_footer_claims(tmp_path, rows):
    path = write(tmp_path / "train.parquet", range(777), size=1000, labels=False)
    edit_footer(path, varint(777), varint(rows))
    with pytest.raises(DataError, match=f"{path} (is damaged: it claims|cannot be read as parquet)"):
        open_source(f"parquet:{path}")


@pytest.mark.parametrize("value", [10**12, 2**62, -1])
@pytest.mark.parametrize("what", ["total_compressed_size", "total_uncompressed_size", "data_page_offset"])
def test_sizes_that_a_footer_claims(tmp_path, what, value):
    path = write(
        tmp_path / "train.parquet", range(777), size=1000, labels=False, compression="zstd", use_dictionary=False
    )
    old = getattr(parquet.read_metadata(path).row_group(0).column(0), what)
    edit_footer(path, varint(old), varint(value))
    with pytest.raises(
        DataError, match=rf"{path}(: column image of row group 0: it claims| is damaged| cannot be read)"
    ):
        open_source(f"parquet:{path}")


def test_rows_of_the_file_and_of_its_row_groups_must_agree(tmp_path):
    path = write(tmp_path / "train.parquet", range(777), size=1000, labels=False)
    edit_footer(path, varint(777), varint(776), 1)
    with pytest.raises(DataError, match="is damaged: it claims 776 rows, and its row groups 777"):
        open_source(f"parquet:{path}")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(50) + b"\xff\xff\xff\x7fPAR1", b"x" * 99]
)
def test_footers_that_are_none(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as parquet: "):
        open_source(f"parquet:{tmp_path / 'train.parquet'}")


FORMS = {
    "plain": {"use_dictionary": False},
    "dictionary": {"use_dictionary": True, "dictionary_pagesize_limit": 2**30},
    "delta": {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_row_group_that_decodes_to_far_more_than_is_stored(tmp_path, form, monkeypatch):
    monkeypatch.setattr(row_groups, "DECODED_BYTES", 2**20)
    path = tmp_path / "train.parquet"
    for count, fits in ((15, True), (17, False)):
        table = pa.table({"image": [bytes(2**16)] * count})
        parquet.write_table(table, path, compression="zstd", **FORMS[form])
        if form == "plain" and not fits:
            with pytest.raises(
                DataError,
                match=r"it claims 1,114,.* bytes in memory, stored in .* at most 1,048,576 are possible; .* memory_gb to more",
            ):
                open_source(f"parquet:{path}", memory_gb=0)
            assert open_source(f"parquet:{path}", memory_gb=1).encoded(16) == bytes(2**16)
            continue
        source = open_source(f"parquet:{path}", memory_gb=0)
        if fits:
            assert source.encoded(14) == bytes(2**16)
        else:
            with pytest.raises(
                DataError, match=r"row group 0 is damaged: it decodes to more than 1,048,576 bytes.* memory_gb"
            ):
                source.encoded(3)


def test_a_dictionary_of_names_is_in_memory_once(tmp_path, monkeypatch):
    monkeypatch.setattr(label_column, "MOST_LABEL_BYTES", 2**21)
    names = pa.array([f"{n:05d} {'name' * 5}" for n in range(5000)])
    labels = pa.DictionaryArray.from_arrays(pa.array(np.arange(20_000, dtype=np.int32) % 5000), names)
    images = pa.array([png(1)] + [None] * 19_999)
    parquet.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    source = open_source(f"parquet:{tmp_path / 'train.parquet'}")
    assert source.class_names == names.to_pylist()
    assert source.labels[[0, 5001]].tolist() == [0, 1]


def test_lists_that_decode_to_far_more_than_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "DECODED_BYTES", 2**20)
    array = pa.ListArray.from_arrays(pa.array([0, 2**20], pa.int32()), pa.array(np.zeros(2**20, np.uint8)))
    parquet.write_table(pa.table({"image": array}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="it claims 4,194,304 bytes in memory"):
        open_source(f"parquet:{tmp_path / 'train.parquet'}", memory_gb=0)


def header(size: int, stored: int, values: int) -> bytes:
    return b"\x15\0\x15" + varint(size) + b"\x15" + varint(stored) + b"\x2c\x15" + varint(values) + b"\x15\0\0\0"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(2**31 - 1, 10, 1) + bytes(10), "its pages claim more than 1,048,576 bytes"),
        ((header(2**19, 0, 1)) * 3, "its pages claim more than 1,048,576 bytes"),
        (header(10, 10, 2**31 - 1) + bytes(10), "its pages claim more than 1,048,576 bytes"),
        (header(10, 0, 0) * 100_001, "more than 100,000 pages"),
        (header(-1, 10, 1), "no header of a page"),
        (header(10, -10, 1), "no header of a page"),
        (header(10, 10, -1), "no header of a page"),
        (b"\x15" + b"\xff" * 20, "more than 64 bits"),
        (b"\x15", "no header of a page"),
        (b"\x18\xff\xff\xff\x7f", "no header of a page"),
        (b"\x1c" * 50_000, "a field of an unknown type"),
    ],
)
def test_headers_of_pages(content, reason):
    column = SimpleNamespace(
        **{"data_page_offset": 0, "dictionary_page_offset": None, "has_dictionary_page": False, "num_values": 9},
        **{"total_compressed_size": len(content), "total_uncompressed_size": 5, "physical_type": "BYTE_ARRAY"},
    )
    metadata = SimpleNamespace(
        row_group=lambda group: SimpleNamespace(column=lambda number: column, num_rows=0),
        schema=SimpleNamespace(column=lambda number: SimpleNamespace(path="image")),
        num_columns=1,
    )
    reader = SimpleNamespace(metadata=metadata)
    with pytest.raises(parquet_pages.DamagedRows, match=reason):
        parquet_bounds.read_rows(reader, io.BytesIO(content), len(content), 0, "image", 2**20)


def test_mutated_files_are_refused_or_skipped(tmp_path):
    """Without a check of the footer some of them end the process: a C++ exception that pyarrow does not catch."""
    rng, path = random.Random(0), tmp_path / "train.parquet"
    rows = [{"bytes": png(v) if v % 3 else None, "path": f"{v}.png"} for v in range(6)]
    parquet.write_table(pa.table({"image": rows, "label": ["a", "b", "c"] * 2}), path, row_group_size=3)
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    opened, messages = 0, []
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.choice([1, 2])):
            data[rng.randrange(0 if rng.random() < 0.3 else footer, len(data))] = rng.choice(
                [0, 127, 255, rng.randrange(256)]
            )
        path.write_bytes(data)
        try:
            source = open_source(f"parquet:{path}")
            opened += 1
            source.read([0, 5])
            _ = source.class_names
        except DataError as error:
            messages.append(str(error))
    assert opened > 20
    assert len(messages) > 20
    assert all(str(tmp_path) in message for message in messages)


@pytest.mark.parametrize("change", ["touched", "longer", "removed", "pipe"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, change):
    path = write(tmp_path / "train.parquet")
    source = open_source(f"parquet:{path}", memory_gb=0)
    assert source.encoded(0)
    if change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()
    if change == "pipe":
        os.mkfifo(path)
    words = "is gone" if change == "removed" else "has changed since it was opened"
    for use in (lambda: source.read([8]), lambda: source.class_names):
        with pytest.raises(DataError, match=f"{path} {words}.* the same data to the end"):
            use()


def by_path(path, *names):
    parquet.write_table(pa.table({"image": [{"bytes": None, "path": name} for name in names]}), path)
    return path


def test_rows_name_files_below_their_folder_only(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "images").mkdir(parents=True)
    outside.mkdir()
    for number, folder in enumerate((data, data / "images", outside)):
        (folder / "x.png").write_bytes(png(number))
    (data / "link.png").symlink_to(outside / "x.png")
    (data / "inner.png").symlink_to(data / "images/x.png")
    (data / "folder").symlink_to(outside)
    os.mkfifo(data / "pipe.png")
    names = ["x.png", "images/../x.png", "images/x.png", str(data / "x.png"), "inner.png"]
    refused = [
        "../outside/x.png",
        str(outside / "x.png"),
        "link.png",
        "folder/x.png",
        "/dev/zero",
        "images/../../outside/x.png",
    ]
    others = ["~/x.png", "~root/x.png", "pipe.png", "images", "", "x\0.png", "y" * 300, "y" * 5000, "a\nb"]
    path = by_path(data / "train.parquet", *names, *refused, *others)
    source = open_source(f"parquet:{path}")
    pixels = source.read(np.arange(len(names))).pixels
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 1, 0, 1]
    source.read(np.arange(len(names), source.num_items))
    assert len(source.skipped) == len(refused) + len(others)
    reasons = [source.skipped[f"{path} row {item}"] for item in range(len(names), source.num_items)]
    for name, reason in zip(refused, reasons, strict=False):
        assert reason == (
            f"the row has no bytes, and names {os.path.join(data, name)}, which is not below {data}; image_folder allows "
            "another folder, the one that links lead to"
        )
    words = (
        ["there is no file"] * 2 + ["is not a regular file"] * 3 + ["there is no file"] * 2 + ["5,000 char", r"a\nb'"]
    )
    for word, reason in zip(words, reasons[len(refused) :], strict=True):
        assert word in reason
        assert "\n" not in reason


def test_image_folder_may_be_where_a_link_beside_the_rows_leads(tmp_path):
    for folder in ("data", "disk/pixels", "disk/secret"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.png").write_bytes(png(6))
    (tmp_path / "data/images").symlink_to(tmp_path / "disk/pixels")
    path = by_path(tmp_path / "data/train.parquet", "images/x.png", "images/../secret/x.png", "x.png", "none.png")
    source = open_source(f"parquet:{path}", image_folder=str(tmp_path / "disk/pixels"))
    assert source.encoded(0) == source.encoded(2) == tmp_path / "disk/pixels/x.png"
    for row, reason in (
        (1, "data/images/../secret/x.png, which is not below"),
        (3, "there is no file"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            source.encoded(row)


def test_files_of_rows_in_a_cache_of_the_hub_are_links_to_its_blobs(tmp_path):
    snapshot, blobs = tmp_path / "datasets--me--x/snapshots/abc", tmp_path / "datasets--me--x/blobs"
    for folder in (snapshot / "images", blobs):
        folder.mkdir(parents=True)
    (blobs / "0").write_bytes(png(3))
    (tmp_path / "x.png").write_bytes(png(4))
    (snapshot / "images/0.png").symlink_to("../../../blobs/0")
    (snapshot / "images/1.png").symlink_to(tmp_path / "x.png")
    by_path(blobs / "table", "images/0.png", "images/1.png")
    (snapshot / "train.parquet").symlink_to("../../blobs/table")
    source = open_source(f"parquet:{snapshot}")
    assert source.read([0]).pixels[0, 0, 0, 0] == 3
    with pytest.raises(UnreadableImage, match=f"not below {snapshot} or {blobs}; image_folder allows"):
        source.encoded(1)


def test_files_of_rows_may_be_below_one_of_several_folders(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(png(1))
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert file_below(folders, "x.png") == tmp_path / "a/x.png"
    assert file_below(folders, str(tmp_path / "b/x.png")) == tmp_path / "b/x.png"
    with pytest.raises(UnreadableImage, match=f"c/x.png, which is not below {folders[0]} or {folders[1]}$"):
        file_below(folders, str(tmp_path / "c/x.png"))
    assert file_below(["/"], str(tmp_path / "c/x.png")) == tmp_path / "c/x.png"


def test_another_folder_for_the_files_of_rows(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(png(5))
    path = by_path(
        tmp_path / "data/train.parquet", "x.png", str(tmp_path / "images/x.png"), "../images/x.png", "../data/x"
    )
    source = open_source(f"parquet:{path}", image_folder=str(tmp_path / "images"))
    assert source.read(range(3)).pixels[:, 0, 0, 0].tolist() == [5, 5, 5]
    assert source.read([3]).pixels[0, 0, 0, 0] == 5
    assert f"which is not below {tmp_path / 'images'}" in source.skipped[f"{path} row 3"]
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"parquet:{path}", image_folder=str(tmp_path / "imges"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"info": ' * 900,
        '{"info": {"features": {"label": {"names": "abc"}}}}',
        '{"info": {"features": 1}}',
        "1" * 5000,
    ],
)
def test_metadata_of_class_names_that_is_none(text):
    assert class_names_of(SimpleNamespace(metadata={b"huggingface": text.encode()}), "label") is None
    good = json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}}).encode()
    assert class_names_of(SimpleNamespace(metadata={b"huggingface": good}), "label") == ["a", "b"]
