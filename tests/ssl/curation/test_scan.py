"""Scans of whole sources: resumed, repeated, in several processes, while files change; always the same bytes."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wildfern.ssl.curation import measured_parts, scan
from wildfern.ssl.curation.listing import Folder
from wildfern.ssl.curation.manifest import MANIFEST, PLACE, SCHEMA, STORED, CurationError
from wildfern.ssl.curation.measure import measure_listed
from wildfern.ssl.curation.measured_parts import PARTS, MeasuredParts
from wildfern.ssl.curation.scan import list_images, measure_images, measured
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.image_file import decode_image


def encoded(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16 + seed % 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, contents: list[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03d}.png").write_bytes(encoded(number, ["PNG", "JPEG", "GIF", "BMP"][number % 4]))
    return folder


@pytest.fixture
def sources(tmp_path) -> list[str]:
    """Images of three sources, some of which cannot be read."""
    photos = write_photos(tmp_path / "photos", 30)
    (photos / "notes.txt").write_text("none")
    (photos / "truncated.png").write_bytes(encoded(1)[:-40])
    (photos / "empty.jpg").touch()
    (photos / "dangling.jpg").symlink_to("gone")
    os.mkfifo(photos / "pipe.jpg")
    with open(os.path.join(os.fsencode(photos), b"caf\xe9\n.png"), "wb") as file:
        file.write(encoded(99))
    for number in range(2):
        write_tar(tmp_path / f"s-{number}.tar", [encoded(100 + 20 * number + n) for n in range(20)])
    content = (tmp_path / "s-1.tar").read_bytes()
    (tmp_path / "s-1.tar").write_bytes(content[: len(content) // 2])
    cells = [encoded(200 + n) if n % 5 else None for n in range(20)]
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "x.parquet", row_group_size=6)
    return [str(photos), f"{tmp_path}/s-*.tar", f"parquet:{tmp_path}/x.parquet"]


def written(places: pa.Table, folder: Path, rows: int = 1 << 14) -> bytes:
    """The bytes of a file of all that was measured, written as a manifest is."""
    path = folder / "all.parquet"
    with pq.ParquetWriter(path, STORED, compression="zstd") as writer:
        for table in measured(places, folder, rows):
            writer.write_table(table.cast(STORED), row_group_size=4096)
    return path.read_bytes()


def rows_of(places: pa.Table, folder: Path) -> dict[str, dict]:
    """What was measured, by "container/path"."""
    rows = [row for table in measured(places, folder) for row in table.to_pylist()]
    return {f"{Path(row['container']).name}/{row['path']}": row for row in rows}


def as_manifest(folder: Path) -> None:
    """Finish a scan as a curation does: a manifest, and no parts."""
    table = pq.read_table(folder / "all.parquet")
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    pq.write_table(table.select(SCHEMA.names).cast(SCHEMA), folder / MANIFEST)
    for path in (folder / PARTS).iterdir():
        path.unlink()


# Listing


def test_all_images_of_all_sources_are_listed(sources, tmp_path):
    table = list_images(sources)
    assert table.schema == pa.schema(PLACE)
    rows = table.to_pylist()
    kinds = [row["kind"] for row in rows]
    assert kinds == sorted(kinds, key=["folder", "webdataset", "parquet"].index)
    names = [row["path"] for row in rows]
    assert names[:36] == sorted(names[:36], key=lambda name: name.replace("\U0010ffe9", "\xff").encode("latin-1"))
    assert "caf\U0010ffe9\n.png" in names
    assert names[36:56] == [f"{n:03d}.png" for n in range(20)]
    assert names[-21] == "rest of the shard"
    assert names[-20:] == [f"row {n}" for n in range(20)]
    assert {row["source"] for row in rows} == {f"folder:{sources[0]}", f"webdataset:{sources[1]}", sources[2]}
    assert {row["container"] for row in rows} == {
        str(tmp_path / name) for name in ("photos", "s-0.tar", "s-1.tar", "x.parquet")
    }
    assert list_images(sources).equals(table)


def test_long_lists_are_one_table(tmp_path, monkeypatch):
    photos = write_photos(tmp_path / "photos", 30)
    whole = list_images([str(photos)])
    monkeypatch.setattr(scan, "_LISTED", 7)
    assert list_images([str(photos)]).to_pylist() == whole.to_pylist()
    assert len(list(scan._tasks(list_images([str(photos)]), np.ones(30, bool)))) == 5


@pytest.mark.parametrize("again", ["photos", "folder:photos", "./photos", "photos/", "photos/../photos", "link"])
def test_a_folder_is_named_once(tmp_path, monkeypatch, again):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CurationError, match="is named twice; name each source once"):
        list_images(["photos", again])


def test_shards_are_named_once(tmp_path):
    write_tar(tmp_path / "a.tar", [encoded(0)])
    with pytest.raises(CurationError, match=r"a\.tar is named twice"):
        list_images([f"{tmp_path}/*.tar", str(tmp_path / "a.tar")])
    (tmp_path / "b.tar").symlink_to("a.tar")  # a cache has equal files once
    assert len(list_images([f"{tmp_path}/*.tar"])) == 2


def test_folders_and_names_that_are_alike_in_several_sources(tmp_path):
    """Each image is found again in its own container."""
    for name, seed in (("a/x", 1), ("b/x", 2)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(encoded(seed))
        os.utime(tmp_path / name / "1.png", (0, 0))
        write_tar(tmp_path / name / "s.tar", [encoded(seed + 10)])
        os.utime(tmp_path / name / "s.tar", (0, 0))
    places = list_images([f"{tmp_path}/{name}" for name in ("a/x", "b/x", "a/x/s.tar", "b/x/s.tar")])
    measure_images(places, tmp_path / "out")
    (table,) = measured(places, tmp_path / "out")
    names = zip(table.column("container").to_pylist(), table.column("path").to_pylist(), strict=True)
    found = dict(zip(names, table.column("sha256").to_pylist(), strict=True))
    assert found[str(tmp_path / "a/x"), "1.png"] != found[str(tmp_path / "b/x"), "1.png"]
    assert found[str(tmp_path / "a/x/s.tar"), "000.png"] != found[str(tmp_path / "b/x/s.tar"), "000.png"]


def test_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "empty.tar", [])
    for source in ("empty", "empty.tar"):
        with pytest.raises(CurationError, match="no images in"):
            list_images([str(tmp_path / source)])
    with pytest.raises(DataError, match="gone"):
        list_images([str(tmp_path / "gone")])


# Measuring


def test_rows_are_those_of_single_images_in_order(sources, tmp_path):
    places = list_images(sources)
    assert measure_images(places, tmp_path / "out") == len(places)
    tables = list(measured(places, tmp_path / "out", 20))
    assert [len(table) for table in tables] == [20, 20, 20, 20, len(places) - 80]
    rows = pa.concat_tables(tables).to_pylist()
    for name in ("source", "kind", "container", "path", "place", "modified"):
        assert [row[name] for row in rows] == places.column(name).to_pylist()
    where = Folder(sources[0])
    alone = measure_listed("folder", where.name, list(where.items()))
    expected = pa.Table.from_pylist(alone, STORED).to_pylist()
    assert rows[: len(alone)] == [row | {"source": f"folder:{sources[0]}"} for row in expected]
    faults = {row["path"]: row["fault"] for row in rows if row["fault"]}
    assert faults == {
        **dict.fromkeys(("empty.jpg", "dangling.jpg", "pipe.jpg", "row 0", "row 5", "row 10", "row 15"), "unreadable"),
        "notes.txt": "not_an_image",
        **dict.fromkeys(("truncated.png", "rest of the shard"), "truncated"),
    }
    by_path = {row["path"]: row for row in rows}
    assert by_path["row 7"]["bytes"] == len(encoded(207))
    pixels = decode_image(encoded(99))
    assert by_path["caf\U0010ffe9\n.png"]["width"] == pixels.shape[1]


def test_a_second_scan_measures_only_what_is_new_changed_or_was_unreadable(sources, tmp_path):
    photos, out = Path(sources[0]), tmp_path / "out"
    unreadable = 7
    for finish in (lambda: None, lambda: as_manifest(out)):
        measure_images(list_images(sources), out)
        before = written(list_images(sources), out)
        finish()
        assert measure_images(list_images(sources), out) == unreadable
        assert written(list_images(sources), out) == before
    (photos / "new.png").write_bytes(encoded(300))
    changed = photos / "004.png"
    content = encoded(4)[:-1] + b"x"
    changed.write_bytes(content)  # as many bytes as before
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 10**9))
    (photos / "005.png").unlink()
    places = list_images(sources)
    assert measure_images(places, out) == unreadable + 2
    rows = rows_of(places, out)
    assert rows["photos/004.png"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert rows["photos/new.png"]["width"] == 16
    assert "photos/005.png" not in rows
    write_tar(tmp_path / "s-0.tar", [encoded(400 + n) for n in range(3)])
    os.utime(tmp_path / "s-0.tar", (0, 0))
    pq.write_table(pa.table({"image": pa.array([encoded(500)], pa.binary())}), tmp_path / "x.parquet")
    os.utime(tmp_path / "x.parquet", (0, 0))
    places = list_images(sources)
    assert measure_images(places, out) == 3 + 3 + 1
    rows = rows_of(places, out)
    assert rows["x.parquet/row 0"]["bytes"] == len(encoded(500))
    assert rows["s-0.tar/002.png"]["bytes"] == len(encoded(402))


def test_an_image_that_can_be_read_now_is_measured_again(tmp_path):
    """The file is the same, but a permission, or what a link leads to, is there now."""
    photos = write_photos(tmp_path / "photos", 3)
    (photos / "link.png").symlink_to(tmp_path / "elsewhere.png")
    places = list_images([str(photos)])
    assert measure_images(places, tmp_path / "out") == 4
    (tmp_path / "elsewhere.png").write_bytes(encoded(7))
    os.utime(tmp_path / "elsewhere.png", (0, 0))
    places = list_images([str(photos)])
    assert measure_images(places, tmp_path / "out") == 1
    assert written(places, tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "all.parquet").column("fault").to_pylist() == [None] * 4


def test_files_that_change_between_listing_and_measuring(tmp_path):
    photos = write_photos(tmp_path / "photos", 4)
    places = list_images([str(photos)])
    (photos / "000.png").unlink()
    (photos / "001.png").write_bytes(b"longer than it was" * 100)
    os.utime(photos / "002.png", (0, 0))
    assert measure_images(places, tmp_path / "out") == 4
    (table,) = measured(places, tmp_path / "out")
    details = table.column("fault_detail").to_pylist()
    assert details == [
        "cannot be opened: No such file or directory",
        *["changed during the scan: scan again"] * 2,
        None,
    ]
    again = list_images([str(photos)])
    assert measure_images(again, tmp_path / "out") == 2
    (table,) = measured(again, tmp_path / "out")
    assert table.column("fault").to_pylist() == ["not_an_image", None, None]


def test_the_same_bytes_with_one_process_and_with_two(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_FEW", 1)  # so that few images start processes
    monkeypatch.setattr(scan, "_TASK", 5)
    places = list_images(sources)
    found = set()
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert measure_images(places, out, processes=processes) == len(places)
        found.add(written(places, out))
    assert len(found) == 1


def test_parts_in_any_order_and_number_give_the_same_bytes(sources, tmp_path, monkeypatch):
    places = list_images(sources)
    measure_images(places, tmp_path / "whole")
    expected = written(places, tmp_path / "whole")
    monkeypatch.setattr(scan, "_TASK", 3)
    monkeypatch.setattr(measured_parts, "_SECONDS", 0.0)  # a part for each task
    rest = list_images(sources[1:])
    out = tmp_path / "parts"
    measure_images(rest, out)  # the last sources first, as if the others were added later
    assert len(list((out / PARTS).iterdir())) > 10
    assert measure_images(places, out) == len(places) - len(rest) + 4  # and those that were unreadable
    assert written(places, out) == expected


def test_a_scan_that_failed_goes_on_where_it_was(sources, tmp_path, monkeypatch):
    places, out = list_images(sources), tmp_path / "out"
    monkeypatch.setattr(scan, "_TASK", 4)
    done = []

    def failing(kind, name, items):
        if len(done) == 6:
            raise OSError(24, "Too many open files")
        done.append(len(items))
        return measure_listed(kind, name, items)

    monkeypatch.setattr(scan, "measure_listed", failing)
    with pytest.raises(OSError, match="Too many open files"):
        measure_images(places, out)
    kept = MeasuredParts(out)
    known = kept.known(places)
    assert 0 < (known >= 0).sum() <= 24
    retried = int(kept.unread(known[known >= 0]).sum())
    monkeypatch.setattr(scan, "measure_listed", measure_listed)
    assert measure_images(places, out) == int((known < 0).sum()) + retried
    measure_images(places, tmp_path / "whole")
    assert written(places, out) == written(places, tmp_path / "whole")


def test_a_scan_that_was_killed_goes_on_where_it_was(tmp_path):
    photos = write_photos(tmp_path / "photos", 300)
    script = tmp_path / "kill.py"
    script.write_text(
        textwrap.dedent(f"""
            import time
            from pathlib import Path
            from wildfern.ssl.curation import measured_parts, scan
            measured_parts._SECONDS, scan._TASK = 0.0, 10
            slowly = scan.measure_listed
            def measure_listed(*arguments):
                time.sleep(0.02)
                return slowly(*arguments)
            scan.measure_listed = measure_listed
            scan.measure_images(scan.list_images([{str(photos)!r}]), Path({str(tmp_path / "out")!r}))
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)])
    parts = tmp_path / "out" / PARTS
    waited = time.monotonic() + 60
    while time.monotonic() < waited and process.poll() is None and len(list(parts.glob("part-*"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    places = list_images([str(photos)])
    known = int((MeasuredParts(tmp_path / "out").known(places) >= 0).sum())
    assert 50 <= known < 300
    assert measure_images(places, tmp_path / "out") == 300 - known
    measure_images(places, tmp_path / "whole")
    assert written(places, tmp_path / "out") == written(places, tmp_path / "whole")


def test_what_was_not_measured_is_an_error(tmp_path):
    places = list_images([str(write_photos(tmp_path / "photos", 3))])
    with pytest.raises(CurationError, match="run the same again"):
        list(measured(places, tmp_path / "out"))


def test_sources_whose_names_are_no_utf8(tmp_path):
    name = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    write_photos(Path(name), 3)
    places = list_images([name])
    assert list_images(places.column("source").unique().to_pylist()).equals(places)  # as a manifest names it
    measure_images(places, tmp_path / "out")
    (table,) = measured(places, tmp_path / "out")
    assert table.column("fault").to_pylist() == [None] * 3


def test_many_images_of_one_container_are_tasks_of_some(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_LISTED", 50)
    monkeypatch.setattr(scan, "_TASK", 48)
    write_photos(tmp_path / "a", 70)
    write_photos(tmp_path / "b", 3)
    places = list_images([str(tmp_path / "a"), str(tmp_path / "b")])
    missing = np.ones(len(places), bool)
    missing[[0, 5, 71]] = False
    tasks = list(scan._tasks(places, missing))
    assert [(kind, Path(name).name, len(items)) for kind, name, items in tasks] == [
        ("folder", "a", 48),
        ("folder", "a", 20),
        ("folder", "b", 2),
    ]
    paths = [item.path for _, _, items in tasks for item in items]
    assert paths == [path for path, wanted in zip(places.column("path").to_pylist(), missing, strict=True) if wanted]
    assert list(scan._tasks(places, np.zeros(len(places), bool))) == []
