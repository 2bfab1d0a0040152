"""Rows that are kept on disk, found again by their place, through kills, damage and many files."""

import os
import resource
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wildfern.ssl.curation import measured_parts
from wildfern.ssl.curation.manifest import MANIFEST, PLACE, SCHEMA, STORED, CurationError
from wildfern.ssl.curation.measured_parts import PARTS, MeasuredParts


def row(number: int, **changes) -> dict:
    found = {
        "kind": "folder",
        "container": "/photos",
        "path": f"{number}.jpg",
        "place": -1,
        "bytes": 100 + number,
        "modified": 10**18 + number,
        "sha256": f"{number:064x}",
        "format": ["JPEG", "PNG", "GIF", None][number % 4],
        "width": number + 1,
    }
    return found | changes


def places(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(
        [{field.name: one.get(field.name) for field in PLACE} for one in rows], pa.schema(PLACE)
    )


def kept(folder, *parts: list[dict]) -> MeasuredParts:
    """These rows in parts of these sizes, opened anew."""
    writer = MeasuredParts(folder)
    for rows in parts:
        writer.add(rows)
        writer.flush()
    return MeasuredParts(folder)


def bytes_of(table: pa.Table, path) -> bytes:
    pq.write_table(table, path, compression="zstd", row_group_size=4)
    return path.read_bytes()


def test_rows_are_found_by_their_places_in_any_order(tmp_path):
    rows = [row(number) for number in range(20)]
    parts = kept(tmp_path, rows[:7], rows[7:8], rows[8:])
    order = np.random.default_rng(0).permutation(20)
    wanted = [rows[n] for n in order] + [row(99)]
    known = parts.known(places(wanted))
    assert known[-1] == -1
    assert (known[:-1] >= 0).all()
    found = parts.take(known[:-1])
    assert found.schema == STORED
    assert [{name: value for name, value in one.items() if value is not None} for one in found.to_pylist()] == [
        {name: value for name, value in rows[n].items() if value is not None} for n in order
    ]
    assert parts.take(known[[3, 3, 0]]).column("path").to_pylist() == [wanted[n]["path"] for n in (3, 3, 0)]
    assert parts.take(np.zeros(0, np.int64)).num_rows == 0


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"modified": 5}, False),
        ({"bytes": 5}, False),
        ({"path": "other"}, False),
        ({"container": "/other"}, False),
        ({"place": 5}, False),
        ({"sha256": "other", "width": 5}, True),
    ],
)
def test_what_makes_an_image_the_same(tmp_path, change, is_same):
    parts = kept(tmp_path, [row(1)])
    assert (parts.known(places([row(1, **change)])) >= 0).tolist() == [is_same]


def test_rows_of_containers_are_known_whatever_their_bytes(tmp_path):
    parts = kept(tmp_path, [row(1, place=512), row(2, place=1024)])
    assert (parts.known(places([row(1, place=512, bytes=-1), row(2, place=1025, bytes=-1)])) >= 0).tolist() == [
        True,
        False,
    ]


def test_names_do_not_run_into_one_another(tmp_path):
    parts = kept(tmp_path, [row(1, container="/a/b", path="c"), row(2, path="x\n1")])
    assert (parts.known(places([row(1, container="/a", path="b/c"), row(2, path="x")])) == -1).all()


def test_the_latest_row_counts(tmp_path):
    parts = kept(tmp_path, [row(1, width=1)], [row(1, width=2), row(1, width=3)], [row(2)], [row(1, width=4)])
    assert parts.take(parts.known(places([row(1)]))).column("width").to_pylist() == [4]
    pq.write_table(pa.Table.from_pylist([row(1, width=9)], SCHEMA), tmp_path / MANIFEST)  # of the scan before
    parts = MeasuredParts(tmp_path)
    assert parts.take(parts.known(places([row(1), row(2)]))).column("width").to_pylist() == [4, 3]


def test_rows_of_the_manifest_are_known(tmp_path):
    rows = [row(n) for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / MANIFEST, row_group_size=3)
    parts = MeasuredParts(tmp_path)
    found = parts.take(parts.known(places(rows[::-1])))
    assert found.schema == STORED
    assert found.column("width").to_pylist() == [*range(10, 0, -1)]


def test_unread_images(tmp_path):
    faults = ["unreadable", "truncated", None, "not_an_image", "unreadable", "bomb"]
    rows = [row(n, fault=fault) for n, fault in enumerate(faults)]
    parts = kept(tmp_path, rows[:3], rows[3:])
    known = parts.known(places(rows))
    assert parts.unread(known).tolist() == [True, False, False, False, True, False]
    again = kept(tmp_path, [row(0)])
    assert again.unread(again.known(places(rows))).tolist() == [False] * 4 + [True, False]


def test_the_same_rows_have_the_same_bytes_however_they_were_kept(tmp_path):
    rows = [row(n, fault=["unreadable", None][n % 2]) for n in range(40)]
    order = np.random.default_rng(1).permutation(40)
    splits = {
        "one": [rows],
        "many": [[one] for one in rows],
        "shuffled": [[rows[n] for n in order[:9]], [rows[n] for n in order[9:]]],
    }
    splits["more than needed"] = [[row(n, format=f"other {n}", path=f"other {n}") for n in range(30)] + rows[::-1]]
    found = set()
    for name, split in splits.items():
        parts = kept(tmp_path / name, *split)
        found.add(bytes_of(parts.take(parts.known(places(rows))), tmp_path / "x.parquet"))
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / MANIFEST, row_group_size=7)
    parts = MeasuredParts(tmp_path)
    found.add(bytes_of(parts.take(parts.known(places(rows))), tmp_path / "x.parquet"))
    assert len(found) == 1


def test_rows_are_on_the_disk_after_some_thousand_or_some_seconds(tmp_path, monkeypatch):
    parts = MeasuredParts(tmp_path)
    monkeypatch.setattr(measured_parts, "ROWS", 10)
    folder = tmp_path / PARTS
    parts.add([row(n) for n in range(9)])
    assert list(folder.iterdir()) == []
    parts.add([row(9)])
    assert [path.name for path in folder.iterdir()] == ["part-000000.parquet"]
    parts.add([row(10)])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 21)
    parts.add([row(11)])
    assert sorted(path.name for path in folder.iterdir()) == ["part-000000.parquet", "part-000001.parquet"]
    parts.add([row(12)])  # is lost with a kill
    again = MeasuredParts(tmp_path)
    assert (again.known(places([row(n) for n in range(13)])) >= 0).tolist() == [True] * 12 + [False]
    again.flush()
    assert len(list(folder.iterdir())) == 2  # no rows, no file
    again.add([row(12)])
    again.flush()
    assert (folder / "part-000002.parquet").is_file()


def test_damaged_parts_and_other_files_count_as_missing(tmp_path):
    kept(tmp_path, [row(0)], [row(1)], [row(2)], [row(3)])
    folder = tmp_path / PARTS
    content = (folder / "part-000000.parquet").read_bytes()
    (folder / "part-000000.parquet").write_bytes(content[:100])
    (folder / "part-000001.parquet").write_bytes(b"")
    (folder / "part-000002.parquet").write_bytes(b"PAR1" + b"\x05" * 60 + (30).to_bytes(4, "little") + b"PAR1")
    (folder / "part-copy.parquet").write_bytes(content)
    (folder / "merged.parquet").write_bytes(content)
    (folder / ".partial_x").write_bytes(content)
    (tmp_path / MANIFEST).write_bytes(content[:-20])
    parts = MeasuredParts(tmp_path)
    assert (parts.known(places([row(n) for n in range(4)])) >= 0).tolist() == [False, False, False, True]
    parts.add([row(0)])
    parts.flush()
    assert (folder / "part-000004.parquet").is_file()


@pytest.mark.parametrize("name", ["screenshot", "container", "fault"])
def test_files_of_another_version_count_as_missing(tmp_path, name):
    """They lack a column, or have it as another type."""
    without = pa.schema([field for field in SCHEMA if field.name != name])
    pq.write_table(pa.Table.from_pylist([row(0)], SCHEMA).select(without.names), tmp_path / MANIFEST)
    assert MeasuredParts(tmp_path).known(places([row(0)])).tolist() == [-1]
    other = pa.schema([pa.field(name, pa.int64()) if field.name == name else field for field in SCHEMA])
    pq.write_table(pa.Table.from_pylist([row(0) | {name: None}], other), tmp_path / MANIFEST)
    assert MeasuredParts(tmp_path).known(places([row(0)])).tolist() == [-1]


def test_nulls_in_a_manifest_of_a_stranger(tmp_path):
    nothing = dict.fromkeys(SCHEMA.names)
    pq.write_table(pa.Table.from_pylist([nothing, row(1), nothing | {"path": "2.jpg"}], SCHEMA), tmp_path / MANIFEST)
    parts = MeasuredParts(tmp_path)
    assert (parts.known(places([row(n) for n in range(3)])) >= 0).tolist() == [False, True, False]


def test_rows_that_turn_out_to_be_damaged(tmp_path):
    parts = kept(tmp_path, [row(n, embedded="x" * 500 + str(n)) for n in range(50)])
    known = parts.known(places([row(3)]))
    path = tmp_path / PARTS / "part-000000.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        CurationError, match=r"part-000000.parquet cannot be read: .* Delete it, and run the same again"
    ):
        parts.take(known)


def test_there_may_be_more_parts_than_open_files(tmp_path):
    rows = [row(n) for n in range(80)]
    kept(tmp_path, *([one] for one in rows))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        parts = MeasuredParts(tmp_path)
        known = parts.known(places(rows))
        assert (known >= 0).all()
        assert parts.take(known).column("width").to_pylist() == [*range(1, 81)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_row_groups_are_in_memory(tmp_path):
    rows = [row(n) for n in range(30)]
    parts = kept(tmp_path, *([one] for one in rows))
    parts.take(parts.known(places(rows)))
    assert len(parts._groups) <= 8
