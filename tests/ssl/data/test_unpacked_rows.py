"""Parquet columns over their memory budget, read from an unpacked copy: the same bytes, made once, within limits of the disk."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from filelock import FileLock
from PIL import Image

from wildfern.ssl.data import (
    DataError,
    Mixture,
    Subset,
    UnreadableImage,
    open_source,
    row_groups,
    shared_copy,
    unpacked_rows,
)
from wildfern.ssl.data.image_column import find_image_column
from wildfern.ssl.data.row_groups import RowGroups
from wildfern.ssl.data.unpacked_rows import UnpackedRows
from wildfern.ssl.data.worker_threads import Dropped

DISK = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of copies."""
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/parquet"


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = [png(value) for value in range(10)]


def write(path, column=None, size=3, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"image": PNG if column is None else column}), path, row_group_size=size, **options)
    return path


def rows_of(*paths, budget=0, disk=DISK) -> UnpackedRows:
    columns = [find_image_column(parquet.read_schema(path), str(path), None) for path in paths]
    return UnpackedRows(list(paths), columns, budget, None, disk)


def outcome(rows: RowGroups, row: int):
    try:
        found = rows[row]
    except UnreadableImage as error:
        return error.reason
    return found if found is None or isinstance(found, Path) else bytes(found)


def copies(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.column")) if cache.exists() else []


NOT_UTF8 = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
BY_PATH = [{"bytes": None, "path": name} for name in ("x.png", "none.png", "../x.png")]
FORMS = {
    "binary": pa.array([*PNG[:4], None, b""]),
    "large binary": pa.array([None, *PNG], pa.large_binary()),
    "binary view": pa.array(PNG, pa.binary_view()),
    "dictionary": pa.array([PNG[1], PNG[0], None, PNG[1]]).dictionary_encode(),
    "lists": pa.array([list(PNG[0]), None, [], list(PNG[1])], pa.list_(pa.uint8())),
    "structs": pa.array([{"bytes": data, "path": "none.png"} for data in PNG] + [None]),
    "structs with paths": pa.array([*BY_PATH, {"bytes": PNG[3], "path": "x.png"}, {"bytes": None, "path": None}]),
    "paths alone": pa.StructArray.from_arrays([pa.array(["x.png", None, "x\0"])], ["path"]),
    "no text": pa.StructArray.from_arrays([pa.array([None], pa.binary()), NOT_UTF8], ["bytes", "path"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_has_what_the_row_groups_have(tmp_path, cache, form):
    (tmp_path / "x.png").write_bytes(PNG[0])
    paths = [write(tmp_path / f"{number}.parquet", FORMS[form], size=2) for number in range(2)]
    in_memory = rows_of(*paths, budget=DISK)
    expected = [outcome(in_memory, row) for row in range(len(in_memory))]
    assert expected[: len(expected) // 2] == expected[len(expected) // 2 :]
    without, unpacked = rows_of(*paths, disk=0), rows_of(*paths)
    for rows in (without, unpacked):
        rows.dropped = True  # also the shortest column is over the budget
        rows.prepare(random_order=True)
    assert (without._copy, without.notes) == (None, [])
    assert unpacked._copy.path == copies(cache)[0]
    unpacked._load = None  # all is read from the copy
    for rows in (without, unpacked):
        assert [outcome(rows, row) for row in range(len(rows))] == expected


def test_a_damaged_row_group_has_the_same_reason_and_is_looked_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "train.parquet", compression="snappy")
    chunk = parquet.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    middle, half = chunk.data_page_offset + 5, chunk.total_compressed_size // 2
    data[middle : middle + half] = b"\x91" * half
    path.write_bytes(data)
    plain, unpacked = rows_of(path, disk=0), rows_of(path)
    unpacked.prepare(random_order=True)
    reads, read_rows = [], row_groups.read_rows
    monkeypatch.setattr(row_groups, "read_rows", lambda *a: reads.append(a[3]) or read_rows(*a))
    expected = [outcome(plain, row) for row in range(10)]
    assert expected[3].startswith("row group 1 is damaged: ")
    reads.clear()
    assert [outcome(unpacked, row) for row in range(10)] == expected
    again = rows_of(path)
    again.prepare(random_order=False)
    assert [outcome(again, row) for row in range(10)] == expected
    assert reads == [1]  # by the second opening; the first one knows from copying


def test_a_row_group_that_is_too_large_needs_more_memory_only(tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "DECODED_BYTES", 2**20)
    write(path := tmp_path / "train.parquet", [bytes(2**16)] * 40, size=20, compression="zstd")  # as a dictionary
    rows = rows_of(path)
    rows.prepare(random_order=True)
    assert "it decodes to more than 1,048,576 bytes" in outcome(rows, 0)
    assert rows._copy.size < 1000
    rows = rows_of(path, budget=2**21)
    rows.dropped = True
    rows.prepare(random_order=False)
    assert rows._copy is not None
    assert outcome(rows, 39) == bytes(2**16)


def test_random_order_makes_the_copy_and_file_order_does_not(tmp_path, cache):
    source = open_source(f"parquet:{write(tmp_path / 'train.parquet')}", memory_gb=0)
    assert source.read(np.arange(10)).pixels[:, 0, 0, 0].tolist() == list(range(10))
    assert (copies(cache), source.notes) == ([], [])
    order = [7, 1, 8, 2, 9, 0]
    assert source.read(order).pixels[:, 0, 0, 0].tolist() == order
    (path,) = copies(cache)
    assert path.stat().st_size == 8 + 12 * 10 + sum(map(len, PNG))
    assert path.parent.stat().st_mode & 0o77 == 0
    assert source.notes == [
        f"column image of {tmp_path}/train.parquet is read from an unpacked copy of "
        f"{path.stat().st_size / 2**30:.3g} GiB, which may be deleted: {path}"
    ]


def test_two_passes_over_the_row_groups_make_the_copy(tmp_path, cache):
    source = open_source(f"parquet:{write(tmp_path / 'train.parquet')}", memory_gb=0, value_range=(0, 255))
    source._probed = True  # nothing is kept decoded
    read = [(source.read([item]), len(copies(cache)))[1] for _ in range(3) for item in range(0, 10, 3)]
    assert read == [0] * 9 + [1] * 3


def test_the_order_of_a_run_does_not_depend_on_memory_or_disk(tmp_path):
    path = write(tmp_path / "train.parquet")
    batches = []
    for memory_gb, disk_gb in ((0.5, 100.0), (0.0, 100.0), (0.0, 0.0)):
        source = open_source(f"parquet:{path}", memory_gb=memory_gb, disk_gb=disk_gb)
        batches.append(Mixture([(source, 1.0)], seed=0).read(np.arange(25)).pixels)
    np.testing.assert_array_equal(batches[0], batches[1])
    np.testing.assert_array_equal(batches[0], batches[2])


def test_a_copy_is_used_again_until_a_file_changes(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "train.parquet")
    first = rows_of(path)
    first.prepare(random_order=True)
    os.utime(first._copy.path, (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(shared_copy, "write_copy", None)
        for rows in (rows_of(path), pickle.loads(pickle.dumps(first))):
            rows.prepare(random_order=False)
            assert (rows._copy.path, outcome(rows, 4)) == (first._copy.path, PNG[4])
    assert first._copy.path.stat().st_mtime > 1
    write(path, PNG[::-1])
    os.utime(path, ns=(1, 1))
    changed = rows_of(path)
    changed.prepare(random_order=False)
    assert changed._copy is None
    changed.prepare(random_order=True)
    assert outcome(changed, 4) == PNG[5]
    assert outcome(first, 4) == PNG[4]
    assert copies(cache) == sorted([first._copy.path, changed._copy.path])


def test_a_file_written_over_with_its_size_and_time_gets_another_copy(tmp_path, cache):
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    path = write(tmp_path / "train.parquet", **plain)
    before, first = path.stat(), rows_of(path)
    first.prepare(random_order=True)
    write(path, [*PNG[:4], PNG[5], PNG[4], *PNG[6:]], **plain)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    changed = rows_of(path)
    changed.prepare(random_order=False)
    assert changed._copy is None
    changed.prepare(random_order=True)
    assert (outcome(first, 5), outcome(changed, 5)) == (PNG[5], PNG[4])
    assert copies(cache) == sorted([first._copy.path, changed._copy.path])


def test_columns_of_the_same_files_have_a_copy_each(tmp_path):
    parquet.write_table(pa.table({"image": PNG, "mask": PNG[::-1]}), tmp_path / "train.parquet")
    for column, value in (("image", 2), ("mask", 7)):
        source = open_source(f"parquet:{tmp_path}", image_column=column, memory_gb=0)
        assert source.read([2, 0]).pixels[0, 0, 0, 0] == value
        assert len(source.notes) == 1


def test_a_file_that_changes_while_it_is_copied_is_named(tmp_path, cache):
    rows = rows_of(path := write(tmp_path / "train.parquet"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=f"{path} has changed since it was opened"):
        rows.prepare(random_order=True)
    assert list(cache.glob("*.column")) == list(cache.glob(".partial*")) == []


NOTE = "is slow to read in random order, as there is no unpacked copy: it takes"


def test_no_room_is_said_and_row_groups_are_read(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "train.parquet")
    size = (rows_of(path)._claimed + 8 + 12 * 10) / 2**30
    for disk_gb, free, words in (
        (size / 2, 2**40, f"{size:.3g} GiB, and disk_gb allows {size / 2:.3g} GiB"),
        (1.0, 2**30 + 900, f"{size:.3g} GiB; {cache} has room for 8.38e-07 GiB and 1 GiB that stay free"),
        (1.0, 10, f"{size:.3g} GiB; {cache} has room for 0 GiB and 1 GiB that stay free"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        source = open_source(f"parquet:{path}", memory_gb=0, disk_gb=disk_gb)
        assert source.read([5, 1]).pixels[:, 0, 0, 0].tolist() == [5, 1]
        assert source.notes == [f"column image of {path} {NOTE} {words}"]
        assert copies(cache) == []


def test_a_copy_that_grows_beyond_its_room_is_given_up(tmp_path, cache):
    write(
        path := tmp_path / "train.parquet", [bytes([value % 2] * 1000) for value in range(100)], size=50
    )  # as a dictionary
    rows = rows_of(path, disk=20_000)
    rows.prepare(random_order=True)
    assert rows.notes[0].endswith(f"{NOTE} more than the {20_000 / 2**30:.3g} GiB that there is room for")
    assert list(cache.glob("*column")) == list(cache.glob(".*column")) == []
    assert outcome(rows, 99) == bytes([1] * 1000)


def test_a_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "file"))
    rows = rows_of(write(tmp_path / "train.parquet"))
    rows.prepare(random_order=True)
    assert rows.notes[0].endswith(f"no unpacked copy: {tmp_path}/file/parquet: Not a directory")


def test_a_file_system_without_locks_is_named(tmp_path, cache, monkeypatch):
    def acquire(*_, **__):
        raise NotImplementedError("no flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    rows = rows_of(write(tmp_path / "train.parquet"))
    rows.prepare(random_order=True)
    assert rows.notes[0].endswith(f"no unpacked copy: {cache}: no flock")


@pytest.mark.parametrize("disk_gb", [-1, float("nan")])
def test_a_limit_that_is_none_is_refused(tmp_path, disk_gb):
    with pytest.raises(DataError, match="disk_gb must be a number of GiB of at least 0, got"):
        open_source(f"parquet:{write(tmp_path / 'train.parquet')}", disk_gb=disk_gb)


def test_a_copy_that_is_not_whole_is_made_again(tmp_path):
    path = write(tmp_path / "train.parquet")
    first = rows_of(path)
    first.prepare(random_order=True)
    place = first._copy.path
    for damage in (b"", b"x" * 50, place.read_bytes()[:-1], place.read_bytes() + b"x"):
        place.write_bytes(damage)
        rows = rows_of(path)
        rows.prepare(random_order=False)
        assert rows._copy is None
        rows.prepare(random_order=True)
        assert outcome(rows, 7) == PNG[7]


def test_threads_wait_for_the_copy_of_another_process(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(shared_copy, "_POLL", 0.05)
    rows = rows_of(write(tmp_path / "train.parquet"))
    path = cache / f"{rows._copy_name()}.column"
    cache.mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool, FileLock(path.with_suffix(".lock")):
        found = [pool.submit(rows.prepare, True) for _ in range(3)]
        shared_copy.write_copy(path, rows._all_cells(""), len(rows), 0, DISK)
        monkeypatch.setattr(shared_copy, "write_copy", None)  # would be an error
        assert not any(future.done() for future in found)
    assert [future.result(0) for future in found] == [None] * 3
    assert (rows._copy.path, len(rows.notes)) == (path, 1)


def test_two_processes_make_one_copy(tmp_path, cache):
    path = write(tmp_path / "train.parquet", PNG * 100, size=10)
    program = f"""
import sys
from pathlib import Path
from wildfern.ssl.data import shared_copy
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.unpacked_rows import UnpackedRows
write_copy = shared_copy.write_copy
shared_copy.write_copy = lambda *arguments: print("written") or write_copy(*arguments)
rows = UnpackedRows([Path({str(path)!r})], [ImageColumn("image")], 0, None, {DISK})
print("ready", flush=True)
sys.stdin.read()
rows.prepare(random_order=True)
print(rows[999].hex(), rows._copy.path)
"""
    run = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", program], **run) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.close()
    lines = [process.stdout.read().splitlines() for process in processes]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sum(line == "written" for found in lines for line in found) == 1
    assert [found[-1] for found in lines] == [f"{PNG[9].hex()} {copies(cache)[0]}"] * 2


def test_blocks_are_row_groups(tmp_path):
    write(tmp_path / "data/train-0.parquet", size=4)
    write(tmp_path / "data/train-1.parquet", size=5)
    assert open_source(f"parquet:{tmp_path}").blocks.tolist() == [0, 4, 8, 10, 15, 20]
    write(tmp_path / "one/all.parquet", size=1)
    part = open_source(f"parquet:{tmp_path}/one", "test", test_fraction=0.3)
    assert part.blocks.tolist() == list(range(part.num_items + 1))


@pytest.mark.parametrize(("window", "kept"), [(10, 10), (2, 4), (0, 1)])
def test_row_groups_of_a_window_are_kept_and_not_copied(tmp_path, cache, window, kept):
    source = open_source(
        f"parquet:{write(tmp_path / 'train.parquet', size=1)}", memory_gb=0, disk_gb=1.0 if window else 0
    )
    source.reads_by_blocks = window
    source._probed = True
    order = [3, 2, 5, 4, 7, 6, 9, 8, 1, 0]
    assert source.read(order[:4]).pixels[:, 0, 0, 0].tolist() == order[:4]
    assert source.read(order).pixels[:, 0, 0, 0].tolist() == order
    assert len(source._rows._kept) == kept
    assert copies(cache) == []


@pytest.mark.parametrize("part", ["subset", "test_fraction"])
def test_row_groups_of_a_window_of_some_rows_are_decoded_once_in_an_epoch(tmp_path, part):
    path = write(tmp_path / "train.parquet", PNG * 30, size=10)
    fraction = {"test_fraction": 0.7} if part == "test_fraction" else {}
    source = open_source(f"parquet:{path}", memory_gb=0, **fraction)
    if part == "subset":
        source = Subset(source, np.arange(0, 300, 3))
    mixture = Mixture([(source, 1.0)], seed=0, buffers=[30])
    rows = (source.source if part == "subset" else source)._rows
    size = source.num_items
    assert 60 < size < 120
    for epoch in range(1, 3):
        for start in range(0, size, 5):
            mixture.read(np.arange(epoch * size + start, epoch * size + min(size, start + 5)))
    assert rows.decoded <= 2 * 30  # row groups
    assert len(rows._kept) < 20


def test_the_progress_of_a_copy_is_shown(tmp_path, monkeypatch):
    rows, lines = rows_of(write(tmp_path / "train.parquet")), []
    progress = SimpleNamespace(count=lambda *words: lines.append(words), detail=lines.append)
    for module in (unpacked_rows, shared_copy):
        monkeypatch.setattr(module, "current_progress", lambda: progress)
    rows.prepare(random_order=True)
    what = f"unpacking column image of {tmp_path}/train.parquet"
    assert lines == [*((group, 4, "row groups", what) for group in range(4)), ""]


def test_a_copy_ends_when_its_work_is_dropped(tmp_path, cache, monkeypatch):
    rows, groups = rows_of(write(tmp_path / "train.parquet")), []

    def dropped_at_the_third():
        groups.append(1)
        if len(groups) == 3:
            raise Dropped

    monkeypatch.setattr(unpacked_rows, "check_wanted", dropped_at_the_third)
    with pytest.raises(Dropped):
        rows.prepare(random_order=True)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    rows.prepare(random_order=True)
    assert copies(cache) == [rows._copy.path]
