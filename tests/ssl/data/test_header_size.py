"""Sizes from the first bytes of files: those of Pillow, or none where Pillow has to judge."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from wildfern.ssl.data import UnreadableImage
from wildfern.ssl.data.header_size import plain_size
from wildfern.ssl.data.image_file import Decoding

SIZE = (37, 21)
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 4), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def verdict(file: Path | bytes, **settings) -> tuple[int, int] | str:
    """The size or the fault: of a path after a look at its first bytes, of bytes by Pillow alone."""
    try:
        decoding = Decoding(**settings)
        return decoding.header_size(str(file)) if isinstance(file, Path) else decoding.size(file)
    except UnreadableImage as error:
        return error.reason


def exif() -> bytes:
    tags = Image.Exif()
    tags[274], tags[0x11A], tags[0x128] = 6, TiffImagePlugin.IFDRational(300, 1), 2
    return tags.tobytes()


PLAIN = {
    "jpeg": encoded("JPEG"),
    "gray jpeg": encoded("JPEG", "L"),
    "cmyk jpeg": encoded("JPEG", "CMYK"),
    "progressive jpeg": encoded("JPEG", progressive=True, comment=b"by hand"),
    "jpeg with exif and a resolution": encoded("JPEG", exif=exif(), dpi=(72, 72)),
    "jpeg with a profile": encoded("JPEG", icc_profile=bytes(100_000)),
    "jpeg with restarts": encoded("JPEG", restart_marker_rows=1),
    "png": encoded("PNG"),
    "png with opacity": encoded("PNG", "RGBA", dpi=(300, 300)),
    "gray png": encoded("PNG", "L"),
    "bilevel png": encoded("PNG", "1"),
    "palette png": encoded("PNG", "P", transparency=3),
}
OTHERS = {
    "jpeg with exif": encoded("JPEG", exif=exif()),
    "mpo": encoded("MPO", save_all=True, append_images=[Image.fromarray(PIXELS[..., :3])]),
    "webp": encoded("WEBP"),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "png with a profile": encoded("PNG", icc_profile=bytes(1000)),
    "animated png": encoded("PNG", save_all=True, append_images=[Image.fromarray(PIXELS[::-1, :, :3])]),
    "text": b"not an image",
    "nothing": b"",
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_read_without_pillow(tmp_path, name):
    (tmp_path / "a").write_bytes(PLAIN[name])
    assert plain_size(tmp_path / "a") == SIZE == Decoding().size(PLAIN[name])
    assert verdict(tmp_path / "a", min_side=22) == verdict(PLAIN[name], min_side=22)
    assert verdict(tmp_path / "a", bands=(5,)) == verdict(PLAIN[name], bands=(5,))


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_are_left_to_pillow(tmp_path, name):
    (tmp_path / "a").write_bytes(OTHERS[name])
    assert plain_size(tmp_path / "a") is None
    assert verdict(tmp_path / "a") == verdict(OTHERS[name])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [*PLAIN, "jpeg with exif"])
def test_damaged_files_get_the_verdict_of_pillow(tmp_path, name):
    data = (PLAIN | OTHERS)[name]
    rng = np.random.default_rng(len(data))
    path = tmp_path / "a"
    header = min(len(data), 700)
    damaged = [data[:length] for length in rng.integers(0, header, 15)]
    for _ in range(60):
        broken = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, header, rng.integers(1, 4))
        broken[places] = np.where(
            rng.random(len(places)) < 0.4, rng.choice([0, 255]), rng.integers(0, 256, len(places))
        )
        damaged.append(broken.tobytes())
    for broken in damaged:
        path.write_bytes(broken)
        assert verdict(path) == verdict(broken)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", 0xFF00 | marker, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


JPEG_PARTS = {
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM"),
    "quantization": segment(0xDB, bytes(64)),
    "quantization of 16 bits": segment(0xDB, b"\x10" + bytes(128)),
    "second frame": segment(0xC0, b"\x08\0\x05\0\x06\x01\x01\x11\0"),
    "12 bits": segment(0xC1, b"\x0c\0\x05\0\x06\x01\x01\x11\0"),
    "empty frame": segment(0xC0, b""),
    "lossless": segment(0xC3, b"\x08\0\x05\0\x06\x01\x01\x11\0"),
    "arithmetic": segment(0xCC, b"\0\0"),
    "padding": b"\xff\xff\xff" + segment(0xFE, b"x"),
    "restart": b"\xff\xd0",
    "junk": b"junk",
    "unknown": segment(0x02, b"x"),
    "bad exif": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(20)),
    "MPF": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"),
    "end": b"\xff\xd9",
}
PNG_PARTS = {
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "frames": chunk(b"acTL", b"\0"),
    "second IHDR": chunk(b"IHDR", bytes(13)),
    "checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    "end": chunk(b"IEND", b""),
    "no chunk": b"\0\0\0\0\xff\xff\xff\xff",
    "profile": chunk(b"iCCP", b"a\0\x07x"),
    "text": chunk(b"tEXt", b""),
    "long text": chunk(b"tEXt", bytes(300_000)),
    "compressed text": chunk(b"zTXt", b"a\0\x01x"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", JPEG_PARTS)
def test_odd_segments_get_the_verdict_of_pillow(tmp_path, name):
    for data in (PLAIN["jpeg"][:2], PLAIN["jpeg"][:20]):  # before and behind JFIF
        file = data + JPEG_PARTS[name] + PLAIN["jpeg"][len(data) :]
        (tmp_path / "a").write_bytes(file)
        assert verdict(tmp_path / "a") == verdict(file)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", PNG_PARTS)
def test_odd_chunks_get_the_verdict_of_pillow(tmp_path, name):
    file = PLAIN["png"][:33] + PNG_PARTS[name] + PLAIN["png"][33:]
    (tmp_path / "a").write_bytes(file)
    assert verdict(tmp_path / "a") == verdict(file)


@pytest.mark.parametrize(("bits", "color"), [(bits, color) for bits in (1, 2, 3, 4, 8, 16) for color in range(8)])
def test_kinds_of_png_are_those_of_pillow(tmp_path, bits, color):
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 7, bits, color, 0, 0, 1))
    file = start + chunk(b"IDAT", zlib.compress(bytes(100)))
    (tmp_path / "a").write_bytes(file)
    assert verdict(tmp_path / "a") == verdict(file)


def test_too_many_pixels_are_for_pillow_to_name(tmp_path):
    for width in (9_000, 11_000, 30_000):
        file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 10_000, 8, 2, 0, 0, 0))
        file += chunk(b"IDAT", b"")
        (tmp_path / "a").write_bytes(file)
        assert verdict(tmp_path / "a") == verdict(file)
    assert verdict(tmp_path / "a").startswith("decompression bomb")


def test_real_photographs_get_the_verdict_of_pillow(shared):
    plain = 0
    for path in sorted((shared / "data/uncurated").rglob("*")):
        if path.is_file():
            assert verdict(path, min_side=21) == verdict(path.read_bytes(), min_side=21), path
            plain += plain_size(path) is not None
    assert plain > 600
