"""Images without metadata: what is in their files, what is not, and that they decode to the same pixels."""

import io
import re
import struct

import numpy as np
import pytest
from curated_images import scene
from images_with_metadata import PROFILE, SCAN, SECRET, exif_of, jpeg
from PIL import ExifTags, Image

from wildfern.ssl.curation.bare_image import bare_image, without_metadata
from wildfern.ssl.data import UnreadableImage, decode_image


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


METADATA = {
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>SECRET</x:xmpmeta>"),
    "IPTC": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0bSECRET\0"),
    "comment": segment(0xFE, b"SECRET"),
    "thumbnail": segment(0xE0, b"JFXX\0\x10SECRET"),
    "index of an MPO": segment(0xE2, b"MPF\0SECRET"),
    "FlashPix": segment(0xE2, b"FPXR\0SECRET"),
    "GoPro": segment(0xE6, b"GoPro\0SECRET"),
    "Content Credentials": segment(0xEB, b"JP\0\1SECRET"),
    "of a stranger": segment(0xEF, b"SECRET"),
    "behind what decoders read of Adobe": segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01SECRET"),
    "of no length": b"\xff\xe5\0\0",
}


def pixels_of(content: bytes) -> np.ndarray:
    """As decoded, without turning the image."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def assert_clean(found: bytes, content: bytes, orientation: int | None = None) -> None:
    assert SECRET not in found
    assert found[found.index(SCAN) :] in content  # the compressed pixels
    assert np.array_equal(decode_image(found), decode_image(content))
    assert np.array_equal(pixels_of(found), pixels_of(content))
    with Image.open(io.BytesIO(found)) as image:
        assert image.format == "JPEG"
        assert dict(image.getexif()) == ({} if orientation is None else {ExifTags.Base.Orientation: orientation})
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert not {"comment", "xmp", "photoshop", "mp"} & set(image.info)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"restart_marker_blocks": 2}),
        ("RGB", {"keep_rgb": True, "subsampling": 0}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
@pytest.mark.parametrize("orientation", [None, *range(2, 9)])
def test_a_jpeg_keeps_its_pixels_and_its_orientation(mode, options, orientation):
    content = jpeg(scene(1).convert(mode), exif=exif_of(orientation), comment=SECRET, icc_profile=PROFILE, **options)
    assert content.count(SECRET) == 3
    found = without_metadata(content)
    assert_clean(found, content, orientation)
    with Image.open(io.BytesIO(found)) as image:
        assert (image.mode, image.info["icc_profile"]) == (mode, PROFILE)


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("progressive", [False, True])
def test_no_segment_of_metadata_stays_in_the_header(name, progressive):
    content = jpeg(scene(2), progressive=progressive)
    behind_jfif = 20
    content = content[:behind_jfif] + METADATA[name] + content[behind_jfif:]
    found = without_metadata(content)
    assert_clean(found, content)
    assert without_metadata(found) == found


def test_metadata_between_the_scans_goes_and_tables_stay():
    whole = jpeg(scene(3), progressive=True)
    places = [match.start() for match in re.finditer(b"\xff[\xc4\xda]", whole)]
    places = [place for place in places if place > whole.index(SCAN)]
    assert len(places) > 10  # tables and scans
    for place in [*places, len(whole) - 2]:
        for name in ("comment", "XMP", "thumbnail"):
            assert without_metadata(whole[:place] + METADATA[name] + whole[place:]) == whole


def test_a_thumbnail_in_the_jfif_header_goes():
    whole = jpeg(scene(4))
    header, rest = whole[:20], whole[20:]
    thumbnail = bytes([0xFF, 0xD8, 0xFF, 0xE0]) + struct.pack(">H", 16 + 12) + header[6:18] + b"\x02\x02" + 2 * SECRET
    assert without_metadata(thumbnail + rest) == whole


@pytest.mark.parametrize(
    "behind",
    [
        jpeg(scene(5), exif=exif_of()),  # a second image, as in an MPO
        b"\0\0\0\x18ftypmp42\xff\xd9SECRET\xff\xd9",  # the film of a motion photo
        b"\xff\xfe\0\x08SECRET\xff\xd9",
    ],
)
def test_what_follows_the_image_goes(behind):
    whole = jpeg(scene(6), progressive=True)
    assert without_metadata(whole + behind) == whole


def test_the_second_image_of_an_mpo_goes():
    file = io.BytesIO()
    second = Image.open(io.BytesIO(jpeg(scene(8), exif=exif_of(3))))
    scene(7).save(file, "MPO", save_all=True, append_images=[second], exif=exif_of(6))
    content = file.getvalue()
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    found = without_metadata(content)
    assert_clean(found, content, 6)
    assert len(found) < 0.7 * len(content)


def test_fill_bytes_and_junk_between_segments_are_passed_over():
    whole = jpeg(scene(9), exif=exif_of(8))
    parts = [whole[:2], whole[2:20], whole[20:]]  # SOI, APP0, APP1 …
    content = parts[0] + b"\xff\xff\xff" + parts[1] + b"junk SECRET\xff\0" + parts[2]
    assert_clean(without_metadata(content), content, 8)
    filled = whole[:-2] + b"\xff\xff\xff" + whole[-2:]  # before the end: where the pixels are
    assert np.array_equal(decode_image(without_metadata(filled)), decode_image(whole))


def test_many_fill_bytes_take_no_quadratic_time():
    whole = jpeg(scene(9))
    assert without_metadata(whole[:2] + 2**17 * b"\xff" + whole[2:]) == whole
    assert without_metadata(whole[:-2] + 2**20 * b"\xff" + whole[-2:]).endswith(b"\xff" + whole[-2:])


def test_a_jpeg_that_ends_without_its_end_marker_gets_one():
    whole = jpeg(scene(10))
    assert without_metadata(whole[:-2]) == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"GIF89a", "not an image"),
        (jpeg(scene(1))[:400], "Truncated"),
        (jpeg(scene(1))[:2], "not an image"),
    ],
)
def test_what_is_no_jpeg_is_refused(content, message):
    with pytest.raises(UnreadableImage, match=message):
        without_metadata(content)
    file = io.BytesIO()
    scene(1).save(file, "PNG")
    with pytest.raises(UnreadableImage, match="PNG, not a JPEG"):
        without_metadata(file.getvalue())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_damaged_files_that_decode_have_the_same_pixels_afterwards():
    rng = np.random.Generator(np.random.Philox(0))
    xmp = b'<x xmlns:tiff="t"><y tiff:Orientation="6"/></x>'
    wholes = [
        jpeg(scene(n, (40, 24)), exif=exif_of(orientation), xmp=xmp, progressive=n % 2 == 1)
        for n, orientation in enumerate([6, 8, None, 3])
    ]
    decoded = turned = 0
    for number in range(1500):
        content = bytearray(wholes[number % 4])
        end = content.index(SCAN) + 14 if number % 3 else min(len(content), 120)  # most often in the EXIF
        for place in rng.integers(2, end, rng.integers(1, 4)):
            content[place] = rng.integers(256)
        try:
            pixels = decode_image(bytes(content))
        except UnreadableImage:
            continue
        found = decode_image(without_metadata(bytes(content)))
        assert np.array_equal(found, pixels), number
        decoded, turned = decoded + 1, turned + (pixels.shape[0] > pixels.shape[1])
    assert decoded > 300
    assert 50 < turned < decoded - 50


def webp(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", **options)
    return file.getvalue()


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("animated", [True, False])
@pytest.mark.parametrize("transparent", [True, False])
@pytest.mark.parametrize("described", [True, False])
def test_webp_becomes_a_jpeg_only_if_it_was_lossy(lossless, animated, transparent, described):
    image = scene(11)
    if transparent:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    options = {"save_all": True, "append_images": [scene(12)]} if animated else {}
    content = webp(image, lossless=lossless, **options, **({"exif": exif_of(), "xmp": SECRET} if described else {}))
    found, end = bare_image(content, "WEBP")
    assert SECRET not in found
    if not animated and not described:
        assert (found, end) == (content, ".webp")
        return
    assert end == (".png" if lossless else ".jpg")
    if lossless:
        assert np.array_equal(decode_image(found), decode_image(content))
    blurred, end_of_blurred = bare_image(content, "WEBP", [[8, 8, 40, 40, 0.9]])
    assert end_of_blurred == end
    assert blurred != found


def test_what_is_too_wide_for_a_jpeg_becomes_a_png():
    content = bytearray(webp(scene(13, (64, 16)), quality=80, save_all=True, append_images=[scene(14, (64, 16))]))
    assert content[24:27] == (64 - 1).to_bytes(3, "little")  # of the canvas
    content[24:27] = (65_600 - 1).to_bytes(3, "little")
    found, end = bare_image(bytes(content), "WEBP")
    assert end == ".png"
    assert decode_image(found).shape == (16, 65_600, 3)
