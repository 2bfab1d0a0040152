"""Digests, formats, faults and metadata of images of many kinds, and of files that are none."""

import hashlib
import io
import json
import math
import os
import random
import struct
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import ExifTags, Image

from wildfern.ssl.curation.listing import Folder, Listed, ParquetFile, Shard
from wildfern.ssl.curation.manifest import MEASURED, STORED
from wildfern.ssl.curation.measure import extensions_of, has_wrong_extension, measure, measure_listed, pixels_sha256
from wildfern.ssl.curation.values import values_of
from wildfern.ssl.data.image_file import decode_image


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((10, 10, 1), np.uint8))[:height, :width]


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def table(rows: list[dict]) -> pa.Table:
    """As they are kept on disk."""
    return pa.Table.from_pylist(rows, STORED)


def animated(kind: str, **options) -> bytes:
    frames = [Image.fromarray(scene(seed=seed)) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


RGB = Image.fromarray(scene())
KINDS = {
    "JPEG": (encoded(RGB, "JPEG"), ("JPEG", "RGB", 3, 1)),
    "gray JPEG": (encoded(RGB.convert("L"), "JPEG"), ("JPEG", "L", 1, 1)),
    "CMYK JPEG": (encoded(RGB.convert("CMYK"), "JPEG"), ("JPEG", "CMYK", 4, 1)),
    "progressive JPEG": (encoded(RGB, "JPEG", progressive=True), ("JPEG", "RGB", 3, 1)),
    "MPO": (encoded(RGB, "MPO", save_all=True, append_images=[RGB, RGB]), ("JPEG", "RGB", 3, 1)),
    "PNG": (encoded(RGB, "PNG"), ("PNG", "RGB", 3, 1)),
    "palette PNG": (encoded(RGB.convert("P"), "PNG"), ("PNG", "P", 1, 1)),
    "transparent PNG": (encoded(RGB.convert("RGBA"), "PNG"), ("PNG", "RGBA", 4, 1)),
    "bilevel PNG": (encoded(RGB.convert("1"), "PNG"), ("PNG", "1", 1, 1)),
    "PNG of 16 bits": (encoded(Image.fromarray(scene()[..., 0].astype(np.uint16) * 200), "PNG"), ("PNG", "I;16", 1, 1)),
    "animated PNG": (animated("PNG"), ("PNG", "RGB", 3, 3)),
    "GIF": (encoded(RGB, "GIF"), ("GIF", "P", 1, 1)),
    "animated GIF": (animated("GIF"), ("GIF", "P", 1, 3)),
    "WebP": (encoded(RGB, "WEBP"), ("WEBP", "RGB", 3, 1)),
    "animated WebP": (animated("WEBP"), ("WEBP", "RGB", 3, 3)),
    "BMP": (encoded(RGB, "BMP"), ("BMP", "RGB", 3, 1)),
    "TIFF": (encoded(RGB, "TIFF"), ("TIFF", "RGB", 3, 1)),
    "TIFF of 3 pages": (encoded(RGB, "TIFF", save_all=True, append_images=[RGB, RGB]), ("TIFF", "RGB", 3, 1)),
    "PPM": (encoded(RGB, "PPM"), ("PPM", "RGB", 3, 1)),
}


def deep_tiff(dtype: type) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, (scene() / 255 * (60_000 if dtype is np.uint16 else 1.0)).astype(dtype), photometric="rgb")
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_formats_modes_frames_and_digests(kind):
    content, expected = KINDS[kind]
    row = measure(content)
    assert (row["format"], row["mode"], row["channels"], row["frames"]) == expected
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    pixels = decode_image(content)
    assert (row["height"], row["width"]) == pixels.shape[:2] == (60, 80)
    assert row["pixels_sha256"] == hashlib.sha256(b"60 80 " + pixels.tobytes()).hexdigest() == pixels_sha256(pixels)
    assert {name: row[name] for name in values_of(pixels)._fields} == values_of(pixels)._asdict()
    assert "fault" not in row
    assert set(row) <= {column.name for column in MEASURED}
    assert table([row]).num_rows == 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiff_of_more_than_8_bits(dtype):
    row = measure(deep_tiff(dtype))
    assert (row["width"], row["height"]) == (80, 60)
    assert "fault" not in row
    assert row["contrast"] > 10
    table([row])


def test_lossless_formats_have_one_digest_of_pixels():
    found = {measure(KINDS[kind][0])["pixels_sha256"] for kind in ("PNG", "BMP", "TIFF", "PPM", "transparent PNG")}
    assert found == {pixels_sha256(scene())}
    tall = np.ascontiguousarray(scene(40, 30).reshape(30, 40, 3))
    assert pixels_sha256(tall) != pixels_sha256(scene(40, 30))  # the same bytes in another shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_by_exif_pixels_are_upright(orientation):
    upright = scene()
    turns = [0, 0, 2, 2, 1, 1, 3, 3]
    stored = np.rot90(upright, turns[orientation - 1])
    if orientation in (2, 4, 5, 7):
        stored = stored[:, ::-1]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    row = measure(encoded(np.ascontiguousarray(stored), "PNG", exif=exif))
    assert (row["width"], row["height"]) == (80, 60)
    if orientation not in (5, 7):  # how these mirror is tested with the decoder
        assert row["pixels_sha256"] == pixels_sha256(upright)


def test_coordinates_are_noted_and_not_kept():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)})
    row = measure(encoded(RGB, "JPEG", exif=exif))
    assert row["has_gps"] is True
    assert json.loads(row["embedded"]) == {"author": "Ada"}
    plain = measure(encoded(RGB, "JPEG"))
    assert plain["has_gps"] is False
    assert "embedded" not in plain


def test_the_metadata_of_an_animation_is_read():
    row = measure(animated("GIF", comment=b"noai"))
    assert row["frames"] == 3
    assert "noai" in json.loads(row["embedded"])["optout"]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 4000)])
def test_tiny_and_long_images(size):
    row = measure(encoded(Image.new("RGB", size, (9, 99, 199)), "PNG"))
    assert (row["width"], row["height"]) == size
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    table([row])


# Faults


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (KINDS["JPEG"][0][:1000], "truncated"),
        (KINDS["PNG"][0][:-60], "truncated"),
        (KINDS["JPEG"][0][:100], "unreadable"),  # within the header
        (b"", "unreadable"),
        (b"<html>404 Not Found</html>", "not_an_image"),
        (b"%PDF-1.7 " + bytes(100), "not_an_image"),
        (bytes(5000), "not_an_image"),
        (png_header(100_000, 100_000), "bomb"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "unreadable"),
        (b"\xff\x0a" + bytes(100), "unreadable"),
    ],
)
def test_faults(content, fault):
    row = measure(content)
    assert row["fault"] == fault
    assert row["fault_detail"]
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert "pixels_sha256" not in row
    table([row])


def test_a_truncated_image_still_has_its_metadata():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    content = encoded(RGB, "JPEG", exif=exif)
    row = measure(content[: len(content) // 2])
    assert (row["fault"], row["format"]) == ("truncated", "JPEG")
    assert json.loads(row["embedded"]) == {"author": "Ada"}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_bytes_give_a_row_whatever_they_are():
    rng = random.Random(0)
    kinds = [KINDS[kind][0] for kind in ("JPEG", "animated GIF", "animated WebP", "animated PNG", "TIFF", "MPO")]
    rows = []
    for _ in range(300):
        content = bytearray(rng.choice(kinds))
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(min(len(content), rng.choice((100, 10**6))))] = rng.randrange(256)
        rows.append(measure(bytes(content[: rng.randrange(1, len(content) + 1)] if rng.random() < 0.3 else content)))
    found = table(rows)
    faults = found.column("fault").cast(pa.string()).to_pylist()
    for fault, digest in zip(faults, found.column("pixels_sha256").to_pylist(), strict=True):
        assert (fault is None) == (digest is not None)
    assert {None, "truncated"} <= set(faults)


# Images of containers


def measured(folder) -> dict[str, dict]:
    where = Folder(str(folder))
    rows = measure_listed("folder", where.name, list(where.items()))
    table(rows)
    return {row["path"]: row for row in rows}


def test_a_folder_of_all_kinds_of_files(tmp_path):
    files = {
        "a.jpg": KINDS["JPEG"][0],
        "no_extension": KINDS["JPEG"][0],
        "named.png": KINDS["JPEG"][0],
        "photo.jpg_large": KINDS["PNG"][0],
        "photo.webp.tmp": KINDS["WebP"][0],
        "raw.data": deep_tiff(np.uint16),
        "notes.txt": b"not an image",
        "fake.jpg": b"not an image",
        "empty.jpg": b"",
        "empty.txt": b"",
        "two\nlines.png": KINDS["PNG"][0],
        "video.mp4": b"\0\0\0\x20ftypisom" + bytes(100),
        "live.mov": b"\0\0\0\x14ftypqt  " + bytes(100),
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "unnamed heic": b"\0\0\0\x18ftypmif1" + bytes(100),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "dangling.jpg").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb") as file:
        file.write(KINDS["JPEG"][0])
    rows = measured(tmp_path)
    faults = {path: row["fault"] for path, row in rows.items() if "fault" in row}
    assert faults == {
        **dict.fromkeys(("notes.txt", "fake.jpg", "video.mp4", "live.mov"), "not_an_image"),
        **dict.fromkeys(("empty.jpg", "empty.txt", "phone.heic", "unnamed heic"), "unreadable"),
        **dict.fromkeys(("dangling.jpg", "pipe.jpg", "pipe"), "unreadable"),
    }
    assert (
        rows["named.png"]["format"] == rows["no_extension"]["format"] == rows["caf\U0010ffe9.jpg"]["format"] == "JPEG"
    )
    for name in ("a.jpg", "notes.txt", "fake.jpg", "empty.jpg", "video.mp4"):
        assert rows[name]["bytes"] == len(files[name])
        assert rows[name]["modified"] == (tmp_path / name).stat().st_mtime_ns
    assert rows["a.jpg"]["container"] == str(tmp_path)
    assert "sha256" not in rows["video.mp4"]  # was not read
    assert rows["fake.jpg"]["sha256"] == hashlib.sha256(files["fake.jpg"]).hexdigest()


def test_files_that_change_during_the_scan(tmp_path):
    for name in ("gone.jpg", "written.jpg", "touched.jpg", "same.jpg"):
        (tmp_path / name).write_bytes(KINDS["JPEG"][0])
    where = Folder(str(tmp_path))
    items = list(where.items())
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "written.jpg").write_bytes(KINDS["PNG"][0])
    os.utime(tmp_path / "touched.jpg", (0, 0))
    rows = {row["path"]: row for row in measure_listed("folder", where.name, items)}
    assert {path: row.get("fault_detail") for path, row in rows.items()} == {
        "gone.jpg": "cannot be opened: No such file or directory",
        "written.jpg": "changed during the scan: scan again",
        "touched.jpg": "changed during the scan: scan again",
        "same.jpg": None,
    }
    listed = {item.path: item for item in items}
    assert all((row["bytes"], row["modified"]) == listed[path][2:] for path, row in rows.items())  # are found again


def test_a_shard_and_a_parquet_file(tmp_path):
    contents = [KINDS["JPEG"][0], KINDS["GIF"][0]]
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    pq.write_table(pa.table({"image": pa.array([*contents, None, b"text"], pa.binary())}), tmp_path / "x.parquet")
    for where, faults in ((Shard, [None] * 2), (ParquetFile, [None, None, "unreadable", "not_an_image"])):
        name = str(tmp_path / ("x.tar" if where is Shard else "x.parquet"))
        items = list(where(name).items())
        rows = measure_listed(where.kind, name, items)
        table(rows)
        assert [row.get("fault") for row in rows] == faults
        assert [row["sha256"] for row in rows[:2]] == [hashlib.sha256(content).hexdigest() for content in contents]
        assert [row["bytes"] for row in rows[:2]] == [*map(len, contents)]
        os.utime(name, (0, 0))
        rows = measure_listed(where.kind, name, items)
        assert {row["fault_detail"] for row in rows[:2]} == {"changed during the scan: scan again"}


def test_a_parquet_file_that_is_gone_and_whose_name_is_no_utf8(tmp_path):
    name = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.parquet"))
    rows = measure_listed("parquet", name, [Listed("row 0", 0, -1, 5)])
    (row,) = table(rows).to_pylist()
    assert (row["fault"], row["bytes"]) == ("unreadable", 0)
    assert "cannot be opened" in row["fault_detail"]
    assert row["container"].encode()


# Extensions


@pytest.mark.parametrize(
    ("path", "image_format", "wrong"),
    [
        ("a.jpg", "JPEG", False),
        ("a.JPEG", "JPEG", False),
        ("a.jfif", "JPEG", False),
        ("a.mpo", "JPEG", False),
        ("a.png", "JPEG", True),
        ("a.jpg", "PNG", True),
        ("a.apng", "PNG", False),
        ("a.tif", "TIFF", False),
        ("a.dib", "BMP", False),
        ("a.bmp", "DIB", False),
        ("a.jp2", "JPEG2000", False),
        ("a.pgm", "PPM", False),
        ("a.txt", "JPEG", True),
        ("a.webp", "GIF", True),
        ("folder.png/a", "JPEG", False),
        ("row 17", "JPEG", False),
        ("a.", "JPEG", False),
        (".jpg", "PNG", False),
        ("photo.jpg_large", "JPEG", False),
        ("IMG 2021.06.01", "JPEG", False),
        ("Dr. Who", "JPEG", False),
        ("a.jpg", None, False),
        ("a.jpg", "UNKNOWN", False),
    ],
)
def test_wrong_extensions(path, image_format, wrong):
    assert has_wrong_extension(path, image_format) is wrong


def test_extensions_of_formats():
    assert {".jpg", ".jpeg", ".jpe", ".jfif"} <= extensions_of("JPEG")
    assert {".tif", ".tiff"} <= extensions_of("TIFF")
    assert extensions_of("UNKNOWN") == frozenset()


def test_pages_that_lead_back_are_a_fault_as_in_training():
    content = bytearray(encoded(scene(), "TIFF"))
    start = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[start : start + 2], "little")
    after = start + 2 + 12 * entries
    content[after : after + 4] = content[4:8]  # the next page is the first
    row = measure(bytes(content))
    assert "lead back" in row["fault_detail"]
    assert "pixels_sha256" not in row
