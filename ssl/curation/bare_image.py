"""Images without what cameras and programs write into files: EXIF, coordinates, thumbnails, comments."""

import io
import re
from collections.abc import Iterator, Sequence

from PIL import ExifTags, Image, ImageOps

from wildfern.ssl.curation.blur_boxes import blur_boxes
from wildfern.ssl.data import pillow_image
from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.image_file import Decoding

_QUALITY = 95  # of a JPEG that must be encoded anew
_MOST_SIDE = 65_500  # pixels, of a JPEG that libjpeg writes
# Files that are copied as they are: those with no other chunks than these, of pixels and color. An animation has others.
_COPIED = {"PNG": ".png", "WEBP": ".webp"}
_CHUNKS = {
    "PNG": {
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs"),
        *(b"cICP", b"mDCV", b"cLLI"),
    },
    "WEBP": {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"},
}
# Of JPEG (ITU-T T.81, table B.1).
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_TABLES = {*range(0xC0, 0xD0), _SCAN, 0xDB, 0xDC, 0xDD}  # frames, scans, tables, lines and restart intervals
_ALONE = {0x01, *range(0xD0, 0xD9)}  # without a length
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN_ENDS = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # other bytes after 0xff belong to the compressed pixels


def bare_image(content: bytes, format: str | None, boxes: Sequence[Sequence[float]] = ()) -> tuple[bytes, str]:
    """An encoded image without metadata, its `boxes` blurred (see `blur_boxes`), and the ending of its file: .jpg, .png or .webp.

    - format: of Pillow, as in the manifest.

    JPEG files keep their pixels, PNG and WebP files without metadata stay as they are. All others, and those with boxes, are
    decoded and written anew: as JPEG of quality 95 if they were lossy and are not too wide for one, else as PNG. Raises
    UnreadableImage.
    """
    if format == "JPEG" and not boxes:
        return without_metadata(content), ".jpg"
    if format in _COPIED and not boxes and _is_bare(content, format):
        return content, _COPIED[format]
    pixels = Decoding().decode(content)
    image = Image.fromarray(blur_boxes(pixels, boxes) if boxes else pixels)
    written = io.BytesIO()
    lossy = format in ("JPEG", "AVIF", "HEIF") or (format == "WEBP" and not _is_lossless(content))
    if lossy and max(image.size) <= _MOST_SIDE:
        image.save(written, "JPEG", quality=_QUALITY, subsampling=0)
        return written.getvalue(), ".jpg"
    image.save(written, "PNG")
    return written.getvalue(), ".png"


def without_metadata(content: bytes) -> bytes:
    """A JPEG without metadata (EXIF, XMP, IPTC, thumbnails, comments, whatever other segments hold) but for the orientation.

    Color profiles and what decoders need (APP0 of JFIF, APP14 of Adobe) stay, and so do the compressed pixels, byte by byte. What
    follows the image, such as a second one or a film, is left out. Raises UnreadableImage for what is no JPEG.
    """
    turned = _orientation(content)
    kept, scanned = [content[:2]], False
    for marker, segment in _segments(content):
        needed = segment if marker in _TABLES else b"" if scanned else _needed(marker, segment)
        if needed:
            kept.append(bytes([0xFF, marker]) + needed)
        scanned |= marker == _SCAN
    if not scanned:
        raise UnreadableImage("damaged: a JPEG without pixels")
    if turned != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turned
        block = exif.tobytes()
        first = 2 if kept[1].startswith(b"\xff\xe0") else 1  # JFIF comes first
        kept.insert(first, bytes([0xFF, _EXIF]) + (len(block) + 2).to_bytes(2, "big") + block)
    return b"".join([*kept, bytes([0xFF, _END])])


def _orientation(content: bytes) -> int:
    """2 to 8 where decoders turn a JPEG by its EXIF or XMP, else 1."""
    with pillow_image.opened(io.BytesIO(content)) as image:
        if image.format not in ("JPEG", "MPO"):
            raise UnreadableImage(f"{image.format}, not a JPEG")
        pixel = Image.new("L", (1, 1))
        pixel.info = dict(image.info)
    try:
        turned = pixel.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(pixel)  # fails for EXIF that is partly damaged, and such an image is not turned
        return int(turned) if turned in range(2, 9) else 1
    except Exception:  # Pillow raises almost anything for damaged EXIF
        return 1


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG up to its end: marker, and what follows it with its length; scans with their compressed pixels.

    Bytes between segments are passed over, as decoders do.
    """
    at = 2
    while (found := _MARKER.search(content, at)) is not None:
        marker, at = content[found.start() + 1], found.end()
        if marker == _END:
            return
        if marker in _ALONE:
            continue
        end = at + max(2, int.from_bytes(content[at : at + 2], "big"))
        if marker == _SCAN:
            behind = _SCAN_ENDS.search(content, end)
            end = len(content) if behind is None else behind.start()
        yield marker, content[at:end]
        at = end


def _needed(marker: int, segment: bytes) -> bytes:
    """What decoders need of an application segment, with its length: none but those of JFIF, Adobe and color profiles."""
    if marker == 0xE0 and segment[2:7] == b"JFIF\0" and len(segment) >= 16:
        return b"\0\x10" + segment[2:14] + b"\0\0"  # without the thumbnail
    if marker == 0xE2 and segment[2:14] == b"ICC_PROFILE\0":
        return segment
    if marker == 0xEE and segment[2:7] == b"Adobe" and len(segment) >= 14:
        return b"\0\x0e" + segment[2:14]
    return b""


def _is_bare(content: bytes, format: str) -> bool:
    """Whether a PNG or WebP file has only chunks of `_CHUNKS`, and ends with the last one."""
    at, kinds = 8 if format == "PNG" else 12, set[bytes]()
    while at + 8 <= len(content):
        first, second = content[at : at + 4], content[at + 4 : at + 8]
        if format == "PNG":
            kind, length = second, int.from_bytes(first, "big") + 4  # of the checksum
        else:
            kind, length = first, (int.from_bytes(second, "little") + 1) // 2 * 2
        kinds.add(kind)
        at += 8 + length
        if kind == b"IEND":
            break
    return kinds <= _CHUNKS[format] and at == len(content)


def _is_lossless(content: bytes) -> bool:
    """Whether the pixels of a WebP file, of an animation those of its first frame, are in a lossless chunk."""
    at = 12
    while at + 8 <= len(content):
        kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        at += (
            24 if kind == b"ANMF" else 8 + (length + 1) // 2 * 2
        )  # of a frame the chunks behind its header of 16 bytes
    return False
