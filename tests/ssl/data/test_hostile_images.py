"""Image files that are made to take minutes or gigabytes, and files that are no files."""

import errno
import gc
import io
import os
import struct
import time
import zlib
from contextlib import nullcontext, suppress

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wildfern.ssl.data import (
    UnreadableImage,
    decode_image,
    decoding_limits,
    image_file,
    image_size,
    open_source,
    pillow_image,
)
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.tiff_pages import MOST_PAGES, count_pages
from wildfern.ssl.data.value_range import RawImage


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg_of_scans(number: int, progressive: bool = True) -> bytes:
    data = encoded(noise(64, 64), "JPEG", progressive=progressive, quality=50)
    last, scans = data.rindex(b"\xff\xda"), data.count(b"\xff\xda")
    return data[:last] + data[last:-2] * (number - scans + 1) + data[-2:]


@pytest.mark.parametrize("by_path", [True, False])
def test_a_jpeg_has_a_limited_number_of_scans(tmp_path, by_path):
    for number in (99, 100, 101, 3000):
        data = jpeg_of_scans(number)
        (tmp_path / "a.jpg").write_bytes(data)
        file = tmp_path / "a.jpg" if by_path else data
        if number <= 100:
            assert decode_image(file).shape == (64, 64, 3)
        else:
            with pytest.raises(
                UnreadableImage, match=r"decompression bomb: \d+ scans or more of 4,096 pixels; at most 100"
            ):
                decode_image(file)


def test_scans_are_counted_behind_the_header_only(monkeypatch):
    thumbnails = encoded(noise(8, 8), "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 5000)
    np.testing.assert_array_equal(decode_image(thumbnails), decode_image(encoded(noise(8, 8), "JPEG")))
    monkeypatch.setattr(decoding_limits, "MOST_SCANNED_PIXELS", 4096 * 50)
    assert decode_image(jpeg_of_scans(50)).shape == (64, 64, 3)
    with pytest.raises(
        UnreadableImage, match=r"\d+ scans or more of 4,096 pixels; .* and 204,800 pixels in all of them"
    ):
        decode_image(jpeg_of_scans(60), max_side=8)


class Bytes(io.BytesIO):
    """A file that is read one byte at a time, so that markers are split."""

    def read(self, count=-1):
        return super().read(count if count < 1000 else 1)


def test_a_baseline_jpeg_of_many_scans():
    whole = encoded(noise(64, 64), "JPEG")
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        decode_image(whole[:-2] + scan * 300 + whole[-2:])
    start = whole.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImage, match=r"decompression bomb: \d+ scans"):
        decode_image(whole[:start] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 102 + whole[-2:])


def test_scans_are_counted_across_reads():
    watched = decoding_limits.Watched(Bytes(b"\xff\xda\xff\0\xda\xff\xda"))
    watched.count_scans(1)
    while watched.read(1000):
        pass
    assert watched._scans == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_ends_after_a_time(monkeypatch, kind):
    data = encoded(noise(200, 200), kind, **({"progressive": True} if kind == "JPEG" else {}))
    assert decode_image(data).shape == (200, 200, 3)
    monkeypatch.setattr(decoding_limits, "MOST_SECONDS", -1.0)
    with pytest.raises(UnreadableImage, match="took more than -1 s to decode"):
        decode_image(data)
    assert image_size(data) == (200, 200)


PLAIN = b"P3 9 7 255 " + b" ".join(b"%d" % n for n in range(9 * 7 * 3))
LONG_FILES = {  # of more than 256 KiB
    "JPEG": encoded(noise(600, 600), "JPEG", quality=95),
    "progressive JPEG": encoded(noise(600, 600), "JPEG", quality=95, progressive=True),
    **{kind: encoded(noise(600, 600), kind) for kind in ("PNG", "GIF", "BMP", "PPM")},
    "text": PLAIN.replace(b"255", b"255\n" + b"#\n" * 2**17),
    "header": encoded(noise(9, 7), "PPM").replace(b"P6\n", b"P6\n#" + b"a" * 2**18 + b"\n"),
    "TIFF": encoded(noise(600, 600), "TIFF"),
}


@pytest.mark.parametrize("what", LONG_FILES)
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_the_time_of_large_images_is_limited_from_the_first_byte(tmp_path, monkeypatch, what, by_name):
    data = LONG_FILES[what]
    assert len(data) > decoding_limits._SMALL
    file = tmp_path / "image"
    file.write_bytes(data)
    found = decode_image(file if by_name else data)
    gc.collect()
    assert not [name for name in open_files() if name == str(file)]
    with monkeypatch.context() as change:
        change.setattr(decoding_limits, "_SMALL", len(data) + 1)
        np.testing.assert_array_equal(found, decode_image(file if by_name else data))
    monkeypatch.setattr(decoding_limits, "MOST_SECONDS", -1.0)
    with nullcontext() if what == "TIFF" else pytest.raises(UnreadableImage, match="took more than -1 s to decode"):
        image_size(file if by_name else data)


def open_files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def test_comments_in_a_text_image_take_time_in_proportion_to_their_number(monkeypatch):
    """Pillow takes comments out of what it has read in quadratic time, so that it may read only a little at once."""
    read = []
    pieces = decoding_limits.Watched.read
    monkeypatch.setattr(decoding_limits.Watched, "read", lambda self, n=-1: read.append(p := pieces(self, n)) or p)
    assert decode_image(LONG_FILES["text"]).shape == (7, 9, 3)
    assert max(map(len, read)) == decoding_limits._PIECE


def test_a_slow_image_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "SLOW_SECONDS", -1.0)
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(encoded(noise(4, 4), "PNG"))
    source = open_source(f"folder:{tmp_path}")
    source.read([0, 1])
    (note,) = source.notes
    assert note.startswith(f"{tmp_path}/0.png: took 0 s to decode; training waits for such images")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_of(kind: bytes, start: bytes) -> bytes:
    good = encoded(noise(4, 4), "PNG")
    return good[:33] + chunk(kind, start + zlib.compress(bytes(4 * 2**20), 9)) + good[33:]


def ifd(entries, following: int) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


GRAY = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1),
        (278, 3, 1, 4), (279, 4, 1, 16)]  # fmt: skip
PAGE = len(ifd(GRAY, 0))


def tiff_of_pages(number: int, last: int = 0) -> bytes:
    pages = (ifd(GRAY, 24 + PAGE * (n + 1) if n < number - 1 else last) for n in range(number))
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + b"".join(pages)


def tiff_of_strip(compression: int, strip: bytes) -> bytes:
    entries = [e for e in GRAY if e[0] not in (259, 279)] + [(259, 3, 1, compression), (279, 4, 1, len(strip))]
    strip += bytes(len(strip) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + ifd(entries, 0)


def with_tag(tag: int, kind: int) -> bytes:
    entries = [e for e in GRAY if e[0] != tag] + [(tag, kind, 2**31 - 1, 8)]
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + ifd(entries, 0)


ZEROS = bytes(2**22)
LARGE = Image.new("L", (3000, 3000))
BOMBS = {
    "PNG text": (bomb_of(b"zTXt", b"k\0\0"), "too large"),
    "PNG international text": (bomb_of(b"iTXt", b"k\0\1\0\0\0"), "too large"),
    "PNG profile": (bomb_of(b"iCCP", b"k\0\0"), "too large"),
    "TIFF pages": (tiff_of_pages(MOST_PAGES + 1), "has more than 10,000 pages"),
    "TIFF pages in a circle": (tiff_of_pages(3, 24), "its pages lead back"),
    "TIFF page after itself": (tiff_of_pages(1, 24), "its pages lead back"),
    "TIFF strip of JPEG": (tiff_of_strip(7, encoded(LARGE, "JPEG")), "claims 3000 x 3000 pixels"),
    "TIFF strip of JPEG 2000": (tiff_of_strip(34712, encoded(LARGE, "JPEG2000")), "claims 3000 x 3000 pixels"),
    "TIFF strip of PNG": (tiff_of_strip(34933, encoded(LARGE, "PNG")), "claims 3000 x 3000 pixels"),
    "TIFF strip of WebP": (tiff_of_strip(50001, encoded(LARGE.convert("RGB"), "WEBP")), "claims 3000 x 3000 pixels"),
    "TIFF deflate": (tiff_of_strip(8, zlib.compress(ZEROS, 9)), "INSUFFICIENT"),
    "TIFF zstd": (tiff_of_strip(50000, imagecodecs.zstd_encode(ZEROS)), "too small"),
    "TIFF strips": (with_tag(273, 4), "damaged"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    data, reason = BOMBS[name]
    began = time.thread_time()
    with pytest.raises(UnreadableImage, match=reason):
        Decoding(bands=(1,)).decode(data)
    assert time.thread_time() - began < 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tag", [(270, 2), (279, 4), (320, 3), (34675, 7), (258, 3), (339, 3), (42113, 2)])
def test_tags_that_claim_more_values_than_the_file_has(tag):
    for decoding in (Decoding(), Decoding(bands=(1,))):
        assert decoding.decode(with_tag(*tag)).shape[:2] == (4, 4)


def test_pages_are_counted():
    assert [count_pages(io.BytesIO(tiff_of_pages(n))) for n in (1, 2, 500)] == [1, 2, 500]
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((5, 4, 4), np.uint16), bigtiff=True, photometric="minisblack")
    assert count_pages(file) == 5
    for end in (b"\xff" * 4, b"\xff\xff\xff\x7f", b""):
        assert count_pages(io.BytesIO(b"II*\0" + end)) == 1
    assert count_pages(io.BytesIO(b"II+\0\x08\0\0\0" + b"\xff" * 8)) == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_without_the_others(kind):
    frames = [Image.new("RGB", (4, 4), (20 * n, 0, 0)) for n in range(12)]
    data = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert decode_image(data).max() == 0


def test_values_take_limited_bytes(tmp_path):
    """A sparse file of 3 GB."""
    tifffile.imwrite(tmp_path / "a.tif", shape=(9400, 9400, 4), dtype=np.float64, photometric="rgb")
    with pytest.raises(
        UnreadableImage, match="decompression bomb: 9400 x 9400 pixels of 32 bytes, more than 1,431,655,760"
    ):
        decode_image(tmp_path / "a.tif")


def test_scaling_takes_little_more_memory_than_the_values():
    import tracemalloc

    values = np.linspace(-1, 2, 3000 * 2000, dtype=np.float32).reshape(3000, 2000, 1)
    values[5, 5] = np.nan
    raw = RawImage(values, None)
    tracemalloc.start()
    low, high = raw.own_range()
    remarks = list(raw.remarks([(low, high)], given=False))
    pixels = raw.to_bytes([(low, high)])
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < values.nbytes
    expected = np.rint(
        (np.clip(np.nan_to_num(values, nan=low).astype(np.float64), low, high) - low) * (255 / (high - low))
    )
    np.testing.assert_array_equal(pixels, expected)
    assert remarks[0][1].startswith("1 of 6,000,000 values")


@pytest.mark.parametrize("free", [True, False])
def test_lack_of_memory_skips_an_image_only_if_there_is_enough_for_images(monkeypatch, free):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(pillow_image, "to_pixels", fails)
    monkeypatch.setattr(image_file, "is_free", lambda count: free)
    with pytest.raises(UnreadableImage if free else MemoryError):
        decode_image(encoded(noise(4, 4), "PNG"))


def test_faults_of_the_machine_skip_no_image(monkeypatch):
    def fails(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pillow_image, "to_pixels", fails)
    with pytest.raises(OSError, match="Too many open files"):
        decode_image(encoded(noise(4, 4), "PNG"))


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "link", "folder"])
def test_what_is_no_file_is_never_opened(tmp_path, kind):
    import socket

    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif kind == "folder":
        path.mkdir()
    else:
        here = os.open(tmp_path, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/x.png")
        os.close(here)
    with pytest.raises(UnreadableImage, match="not a regular file"):
        decode_image(path)
    (tmp_path / "good.png").write_bytes(encoded(noise(4, 4), "PNG"))
    source = open_source(f"folder:{tmp_path}", check_headers=False)
    assert source.num_items == 1


@pytest.mark.parametrize("change", ["removed", "pipe", "unreadable", "damaged"])
def test_an_image_that_vanishes_while_training_is_skipped(tmp_path, change):
    for value in range(3):
        (tmp_path / f"{value}.png").write_bytes(encoded(Image.new("RGB", (4 + value, 4), (value, 0, 0)), "PNG"))
    source = open_source(f"folder:{tmp_path}")
    source.read([0, 1, 2])
    path = tmp_path / "1.png"
    path.unlink()
    if change == "pipe":
        os.mkfifo(path)
    elif change == "unreadable":
        path.symlink_to(path)
    elif change == "damaged":
        path.write_bytes(b"II*\0")
    assert source.read([1]).pixels[0, 0, 0, 0] in (0, 2)
    assert list(source.skipped) == [str(path)]
