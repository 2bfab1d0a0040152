"""Folders, tar shards and parquet files, listed in order and read; damaged, hostile and changing ones."""

import io
import os
import socket
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wildfern.ssl.curation import listing
from wildfern.ssl.curation.listing import Folder, Listed, ParquetFile, Shard, container, containers, full_name
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.data.base import DataError, UnreadableImage

NOT_UTF8 = b"caf\xe9.jpg"


def png(seed: int = 0, size: int = 8) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_parquet(path, cells: list[bytes | None]) -> None:
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), path)


def reason(where, path: str, place: int = -1, size: int = -1) -> tuple[str, str]:
    with pytest.raises(UnreadableImage) as error:
        where.read(path, place, size)
    return error.value.fault, error.value.reason


# Folders


def test_a_folder_has_all_files_but_hidden_ones_in_one_order(tmp_path):
    for name in ("b/2.jpg", "b/10.jpg", "a.txt", "c.JPEG", "no_extension", ".hidden.jpg", ".git/x.jpg", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    os.utime(tmp_path / "c.JPEG", ns=(0, 1_234_567_891_234_567_890))
    items = list(Folder(str(tmp_path)).items())
    assert [item.path for item in items] == ["a.txt", "b/10.jpg", "b/2.jpg", "c.JPEG", "no_extension"]
    assert items[3] == Listed("c.JPEG", -1, 6, 1_234_567_891_234_567_890)
    assert [Folder(str(tmp_path)).read(item.path, -1, -1).decode() for item in items] == [item.path for item in items]
    assert list(Folder(str(tmp_path)).items()) == items


@pytest.mark.parametrize(
    "name", [NOT_UTF8, b"two\nlines.jpg", b" .jpg", b"-rf.jpg", b"'\"$(x).jpg", "\U0010ff80.jpg".encode()]
)
def test_any_name_that_a_disk_can_have(tmp_path, name):
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(b"content")
    (item,) = Folder(str(tmp_path)).items()
    assert os.fsencode(item.path) == name
    assert Folder(str(tmp_path)).read(item.path, -1, -1) == b"content"


def test_what_is_no_regular_file_is_listed_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    (tmp_path / "empty.jpg").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        folder = Folder(str(tmp_path))
        found = {item.path: reason(folder, item.path) for item in folder.items()}
    assert found == {
        "pipe.jpg": ("unreadable", "not a regular file"),
        "dangling.jpg": ("unreadable", "cannot be opened: No such file or directory"),
        "itself.jpg": ("unreadable", "cannot be opened: Too many levels of symbolic links"),
        "empty.jpg": ("unreadable", "empty file"),
        "socket.jpg": ("unreadable", "cannot be opened: No such device or address"),
    }


def test_links_are_followed_and_loops_are_not(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "sub" / "x.jpg").write_bytes(b"x")
    (tmp_path / "photos" / "sub" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "y.jpg").symlink_to(tmp_path / "photos" / "sub" / "x.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.jpg").write_bytes(b"z")
    (tmp_path / "photos" / "away").symlink_to(tmp_path / "elsewhere")
    assert [item.path for item in Folder(str(tmp_path / "photos")).items()] == ["away/z.jpg", "sub/x.jpg", "y.jpg"]


def test_a_folder_that_cannot_be_opened_is_one_item(tmp_path, monkeypatch):
    for name in ("open/x.jpg", "closed/y.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # a test may run as root
    items = list(Folder(str(tmp_path)).items())
    assert items[1:] == [Listed("closed/", -1, 0, 0)]
    assert reason(Folder(str(tmp_path)), "closed/") == ("unreadable", "a folder that cannot be opened")


def test_an_empty_folder_has_no_items(tmp_path):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    assert list(Folder(str(tmp_path / "empty")).items()) == []


def test_times_that_the_manifest_cannot_have(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    try:
        os.utime(tmp_path / "x.jpg", ns=(0, 15 * 10**18))
    except OverflowError:
        pytest.skip("not possible here")
    (item,) = Folder(str(tmp_path)).items()
    assert item.modified <= 2**63 - 1
    assert Folder(str(tmp_path)).is_as_listed(item)


def test_a_file_that_vanishes_changes_or_becomes_a_folder(tmp_path):
    for name in ("gone", "longer", "newer", "folder", "same"):
        (tmp_path / name).write_bytes(b"12345678")
    folder = Folder(str(tmp_path))
    items = {item.path: item for item in folder.items()}
    (tmp_path / "gone").unlink()
    (tmp_path / "longer").write_bytes(b"123456789")
    os.utime(tmp_path / "longer", ns=(0, items["longer"].modified))
    (tmp_path / "newer").write_bytes(b"87654321")
    os.utime(tmp_path / "newer", ns=(0, items["newer"].modified + 2 * 10**9))
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    assert {name: folder.is_as_listed(item) for name, item in items.items()} == {
        **dict.fromkeys(("gone", "longer", "newer", "folder"), False),
        "same": True,
    }
    assert reason(folder, "gone") == ("unreadable", "cannot be opened: No such file or directory")
    handles = len(os.listdir("/proc/self/fd"))
    assert reason(folder, "folder") == ("unreadable", "not a regular file")
    assert len(os.listdir("/proc/self/fd")) == handles


def test_the_first_bytes_and_the_limit(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(range(100)))
    assert Folder(str(tmp_path)).first_bytes("x") == bytes(range(16))
    monkeypatch.setattr(listing, "MOST_ENCODED_BYTES", 99)
    assert reason(Folder(str(tmp_path)), "x") == ("unreadable", "100 bytes; an image of more than 99 is not read")


def test_a_fault_of_the_machine_is_none_of_the_image(tmp_path, monkeypatch):
    def no_more_handles(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", no_more_handles)
    with pytest.raises(OSError, match="Too many open files"):
        Folder(str(tmp_path)).read("x.jpg", -1, -1)


def test_a_name_with_a_zero_byte(tmp_path):
    assert reason(Folder(str(tmp_path)), "a\0b")[0] == "unreadable"


# Tar shards


def test_a_shard_has_one_image_of_each_sample(tmp_path):
    pngs = [png(seed) for seed in range(4)]
    members = {"a/1.jpg": pngs[0], "a/1.cls": b"7", "a/2.png": pngs[1], "notes.txt": b"none", "3.webp": pngs[2]}
    members[os.fsdecode(b"4\xe9.jpg")] = pngs[3]
    write_tar(tmp_path / "x.tar", members)
    shard = Shard(str(tmp_path / "x.tar"))
    items = list(shard.items())
    assert [item.path for item in items] == ["a/1.jpg", "a/2.png", "3.webp", os.fsdecode(b"4\xe9.jpg")]
    assert [shard.read(item.path, item.place, item.bytes) for item in items] == pngs
    assert {item.modified for item in items} == {(tmp_path / "x.tar").stat().st_mtime_ns}
    assert all(shard.is_as_listed(item) for item in items)
    os.utime(tmp_path / "x.tar", (0, 0))
    assert not any(shard.is_as_listed(item) for item in items)


def test_a_truncated_shard_has_the_images_before_the_damage_and_says_so(tmp_path):
    pngs = {f"{number}.png": png(number) for number in range(3)}
    write_tar(tmp_path / "x.tar", pngs)
    content = (tmp_path / "x.tar").read_bytes()
    shard = Shard(str(tmp_path / "x.tar"))
    places = [item.place for item in shard.items()]
    (tmp_path / "x.tar").write_bytes(content[: places[2] + 10])
    items = list(shard.items())
    assert [item.path for item in items] == ["0.png", "1.png", "rest of the shard"]
    assert items[2][1:3] == (-1, 0)
    words = "the shard is truncated or damaged after 2 images: the last file is cut off"
    assert reason(shard, *items[2][:3]) == ("truncated", words)
    assert [shard.read(*item[:3]) for item in items[:2]] == [pngs["0.png"], pngs["1.png"]]


def test_a_compressed_shard_is_an_error(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(DataError, match="compressed"):
        list(Shard(str(tmp_path / "x.tar")).items())


def test_a_shard_that_is_gone_or_no_file(tmp_path):
    shard = Shard(str(tmp_path / "x.tar"))
    assert reason(shard, "1.jpg", 512, 100) == ("unreadable", "the shard: cannot be opened: No such file or directory")
    os.mkfifo(tmp_path / "x.tar")
    assert reason(shard, "1.jpg", 512, 100) == ("unreadable", "the shard: not a regular file")
    assert reason(shard, "1.jpg", 512, 0) == ("unreadable", "empty file")


# Parquet files


def test_a_parquet_file_has_a_row_an_image(tmp_path):
    cells = [png(0), None, b"", png(1)]
    write_parquet(tmp_path / "x.parquet", cells)
    file = ParquetFile(str(tmp_path / "x.parquet"))
    changed = (tmp_path / "x.parquet").stat().st_mtime_ns
    assert list(file.items()) == [Listed(f"row {row}", row, -1, changed) for row in range(4)]
    assert [file.read(f"row {row}", row, -1) for row in (0, 3)] == [cells[0], cells[3]]
    assert reason(file, "row 1", 1) == ("unreadable", "the row has no bytes")
    assert reason(file, "row 2", 2) == ("unreadable", "empty file")
    assert reason(file, "row 4", 4) == ("unreadable", "the file has 4 rows, and no row 4")
    assert reason(file, "row -1", -1)[0] == "unreadable"


def test_rows_that_name_files_are_read_below_the_folder_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png(1))
    rows = [{"bytes": None, "path": path} for path in ("in.png", "../secret.png", "/etc/passwd", "gone.png", None)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "data" / "x.parquet")
    file = ParquetFile(str(tmp_path / "data" / "x.parquet"))
    assert file.read("row 0", 0, -1) == png()
    for row in range(1, 5):
        assert reason(file, f"row {row}", row)[0] == "unreadable"


def test_a_parquet_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, [png(0), png(1)])
    os.utime(path, (1000, 1000))
    file = container("parquet", str(path))
    (first, _) = file.items()
    assert file.read("row 0", 0, -1) == png(0)
    write_parquet(path, [png(2)])
    assert container("parquet", str(path)) is file
    assert file.read("row 0", 0, -1) == png(2)
    assert not file.is_as_listed(first)
    assert reason(file, "row 1", 1) == ("unreadable", "the file has 1 rows, and no row 1")
    (item,) = file.items()
    assert file.is_as_listed(item)
    path.unlink()
    assert not file.is_as_listed(item)
    with pytest.raises(DataError, match=r"x\.parquet cannot be opened"):
        file.read("row 0", 0, -1)


def test_a_parquet_file_without_images_or_damaged_is_an_error(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    with pytest.raises(DataError, match="no column holds encoded images"):
        list(ParquetFile(str(tmp_path / "texts.parquet")).items())
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(30))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        list(ParquetFile(str(tmp_path / "x.parquet")).items())


# Sources


def test_sources_with_and_without_their_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "set/sub", "set/.cache", "spark.parquet"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "one.parquet",
        "set/b.parquet",
        "set/sub/a.PARQUET",
        "set/.cache/x.parquet",
        "spark.parquet/part.parquet",
    ):
        write_parquet(tmp_path / name, [png()])
    for name in ("s-0.tar", "s-1.tar"):
        write_tar(tmp_path / name, {"1.png": png()})
    expected = {
        "photos": ("folder", ["photos"]),
        "folder:photos": ("folder", ["photos"]),
        "one.parquet": ("parquet", ["one.parquet"]),
        "parquet:set": ("parquet", ["set/b.parquet", "set/sub/a.PARQUET"]),
        "spark.parquet": ("parquet", ["spark.parquet/part.parquet"]),
        "parquet:.": ("parquet", ["one.parquet", "set/b.parquet", "set/sub/a.PARQUET", "spark.parquet/part.parquet"]),
        "s-0.tar": ("webdataset", ["s-0.tar"]),
        "s-*.tar": ("webdataset", ["s-0.tar", "s-1.tar"]),
        "webdataset:s-{0..1}.tar": ("webdataset", ["s-0.tar", "s-1.tar"]),
        f"folder:{tmp_path}": ("folder", ["."]),
    }
    for source, (kind, names) in expected.items():
        found = containers(source)
        assert {one.kind for one in found} == {kind}, source
        assert [one.name for one in found] == [str(tmp_path / name) for name in names], source
        assert full_name(source) == f"{kind}:{Path(source.removeprefix(f'{kind}:')).absolute()}"
        assert full_name(full_name(source)) == full_name(source)


@pytest.mark.parametrize(
    "source", ["gone", "folder:gone", "parquet:gone", "webdataset:gone-*.tar", "gone.tar", "parquet:empty"]
)
def test_sources_that_do_not_exist(tmp_path, monkeypatch, source):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"gone|no \.parquet files below empty"):
        containers(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("notes.txt", "is a file, and no .parquet or .tar; a source is a folder, or folder:PATH"),
        ("gone", "gone does not exist; a source is a folder"),
        ("", "names no path"),
        ("folder:", "names no path"),
        ("s3://bucket/x", "is an address"),
    ],
)
def test_what_is_no_source(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as error:
        full_name(source)
    assert words in str(error.value)


def test_a_source_whose_name_is_no_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    os.mkdir(name)
    stored = full_name(name)
    assert stored.encode().startswith(f"folder:{tmp_path}/caf".encode())  # Unicode, as files of JSON and Parquet need
    for source in (name, f"folder:{name}", stored):
        assert full_name(source) == stored
        (folder,) = containers(source)
        assert folder.name == f"{tmp_path}/{name}"


def test_a_kind_that_there_is_not():
    with pytest.raises(CurationError, match="not in 'ftp'"):
        container("ftp", "/x")
