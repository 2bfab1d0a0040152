"""Rows of a manifest that no scan writes are refused, wherever a manifest is read."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import manifest_row, write_scenes

from wildfern.ssl.curation.curate import decide_again, merge, scan
from wildfern.ssl.curation.export import export_images
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import MANIFEST, SCHEMA, CurationError, Manifest
from wildfern.ssl.curation.policy import Policy
from wildfern.ssl.curation.row_check import check_rows
from wildfern.ssl.data import open_source

WRONG = {
    "kind": ["zip", None, ""],
    "container": [None, "/a\0b"],
    "path": [None, "\0"],
    "place": [None, -2],
    "bytes": [None, -1],
    "modified": [None],
    "sha256": ["zz", "", "a" * 63, "A" * 64, "a" * 65, "a" * 64 + "\n", None],
    "pixels_sha256": ["../x"],
    "width": [0, -5, None],
    "height": [0, None],
    "phash": [None],
    "phash_quality": [None, math.nan],
    "small": [None],
    "channels": [0],
    "frames": [-1],
    "contrast": [math.nan, math.inf],
    "people": [math.nan],
    "group": [None, -2],
    "cluster": [None, -7],
    "people_boxes": ["", "[[1, 2", "[7]", "[[1, 2, 3, 4]]", "[[1, 2, 3, 4, null]]", "{}[", "[[1, 2, 3, 4, NaN]]"],
    "metadata": ["[]", "{", "7"],
    "embedded": ["null"],
    "decision": [None, "", "Keep", "maybe"],
    "reasons": [None, [None], [{"rule": None, "action": "reject"}], [{"rule": "tiny", "action": "burn"}]],
}


def batch(*rows: dict) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), SCHEMA)


def test_rows_that_a_scan_writes_pass(tmp_path):
    check_rows(batch(manifest_row(0), manifest_row(1, people_boxes="[[1, 2, 3.5, 4, 0.5]]", metadata='{"a": 1}')))
    check_rows(batch(manifest_row(0, decision="reject", pixels_sha256=None, width=None, sha256=None)))
    check_rows(batch())
    write_scenes(tmp_path / "images", 3)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG")
    for rows in scan([str(tmp_path / "images")], tmp_path / "c", Policy()).manifest.batches():
        check_rows(rows)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named_with_its_row(name, value):
    rows = batch(manifest_row(0), manifest_row(1, **{name: value}))
    with pytest.raises(ValueError, match=rf"row 11\b.*{name}"):
        check_rows(rows, start=10)
    check_rows(rows.slice(0, 1))


def test_a_damaged_text_and_long_values():
    texts = pa.array([b"a", b"\xff\xfe"], pa.binary())
    path = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    with pytest.raises(ValueError, match="UTF8"):
        check_rows(pa.RecordBatch.from_arrays([path], ["path"]))
    with pytest.raises(ValueError, match="decision must be") as error:
        check_rows(batch(manifest_row(0, path="x" * 10_000, decision="y" * 10_000)))
    assert len(str(error.value)) < 400


def test_an_image_that_could_not_be_read_is_not_kept():
    with pytest.raises(ValueError, match="could not be read is kept"):
        check_rows(batch(manifest_row(0, pixels_sha256=None)))
    check_rows(batch(manifest_row(0, pixels_sha256=None, decision="review")))


@pytest.mark.parametrize(
    ("name", "value"), [("kind", "zip"), ("sha256", "zz"), ("decision", "maybe"), ("bytes", None), ("path", None)]
)
def test_no_reader_takes_them(tmp_path, name, value):
    write_scenes(tmp_path / "images", 4)
    folder = tmp_path / "c"
    scan([str(tmp_path / "images")], folder, Policy())
    table = pq.read_table(folder / MANIFEST)
    values = table.column(name).to_pylist()
    values[2] = value
    place = table.schema.get_field_index(name)
    table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    pq.write_table(table, folder / MANIFEST)
    before = (folder / MANIFEST).read_bytes()
    readers = [
        lambda: decide_again(folder, Policy()),
        lambda: merge([folder], tmp_path / "merged", Policy()),
        lambda: export_images(folder, tmp_path / "out"),
        lambda: open_source(f"curated:{folder}"),
        lambda: Manifest(folder).table(SCHEMA.names),
    ]
    if name in ("sha256", "path"):
        readers.append(lambda: find_images(Manifest(folder), {"sha256": {"0" * 64}}))
    for read in readers:
        with pytest.raises(CurationError, match=rf"{MANIFEST} is damaged: row 2\b.*{name}"):
            read()
    assert (folder / MANIFEST).read_bytes() == before
    assert not (tmp_path / "merged" / MANIFEST).exists()
