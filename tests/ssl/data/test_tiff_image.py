"""TIFF files with any number of bands: chosen by number, refused with what to set, compressed, turned, truncated."""

import contextlib
import io
import sys

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from wildfern.ssl.data import UnreadableImage
from wildfern.ssl.data.image_file import Decoding

BANDS = np.random.default_rng(0).integers(0, 10_000, (6, 8, 13)).astype(np.uint16)
CONTIGUOUS = {"photometric": "minisblack", "planarconfig": "contig"}


def tiff(values, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def read(file: bytes, **settings) -> np.ndarray:
    return Decoding(**{"value_range": (0.0, 10_000.0), **settings}).decode(file)


def scaled(values) -> np.ndarray:
    return np.rint(values * (255 / 10_000))


def reason(file: bytes, **settings) -> str:
    with pytest.raises(UnreadableImage) as caught:
        Decoding(**settings).decode(file)
    with pytest.raises(UnreadableImage) as from_header:
        Decoding(**settings).size(file)
    assert caught.value.reason == from_header.value.reason
    return caught.value.reason


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw"}, {"compression": "zlib", "predictor": 2}, {"tile": (16, 16)}]
)
def test_bands_are_read_in_the_order_of_their_numbers(options):
    file = tiff(BANDS, **CONTIGUOUS, **options)
    assert_array_equal(read(file, bands=(4, 3, 2)), scaled(BANDS[..., [3, 2, 1]]))
    assert_array_equal(read(file, bands=tuple(range(1, 14))), scaled(BANDS))
    assert read(file, bands=(13,)).shape == (6, 8, 1)
    assert Decoding(bands=(4, 3, 2)).size(file) == (8, 6)


def test_planes_and_pages_count_as_bands():
    stack = np.ascontiguousarray(BANDS.transpose(2, 0, 1))
    for file in (
        tiff(stack, photometric="minisblack", planarconfig="separate"),
        tiff(stack),
        tiff(stack.astype(np.float32)),
    ):
        assert_array_equal(read(file, bands=(13, 1)), scaled(BANDS[..., [12, 0]]))


def test_without_bands_the_first_page_is_read_and_the_user_is_told():
    for values in (BANDS[..., :3], BANDS[..., :3].astype(np.float32)):
        told: dict[str, str] = {}
        file = tiff(np.ascontiguousarray(values.transpose(2, 0, 1)), photometric="minisblack")
        pixels = Decoding(value_range=(0.0, 10_000.0)).decode(file, told.__setitem__)
        assert_array_equal(pixels, np.repeat(scaled(BANDS[..., :1]), 3, axis=2))
        assert "has 3 pages, of which the first is read" in told["pages"]


def test_the_user_is_told_of_pages_of_scans():
    told: dict[str, str] = {}
    Decoding().decode(tiff(np.zeros((2, 5, 6, 3), np.uint8), photometric="rgb"), told.__setitem__)
    assert told == {"pages": "has 2 pages, of which the first is read; store each as a file to read all"}


def test_pages_of_other_sizes_do_not_count():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(BANDS[..., 0], contiguous=False)
        writer.write(BANDS[:3, :4, 0], contiguous=False)
    assert reason(buffer.getvalue(), bands=(2,)) == "has 1 band, but bands names 2 (the first band is 1)"
    assert_array_equal(read(buffer.getvalue(), bands=(1,)), scaled(BANDS[..., :1]))


def test_too_many_or_too_few_bands_are_refused_with_what_to_set():
    assert reason(tiff(BANDS, **CONTIGUOUS)) == (
        "has 13 bands of uint16; choose three: bands: [3, 2, 1], or all: "
        "bands: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13] (the first band is 1)"
    )
    assert reason(tiff(BANDS[..., :2], **CONTIGUOUS)) == (
        "has 2 bands of uint16; choose both: bands: [1, 2], or one: bands: [1] (the first band is 1)"
    )
    planes = np.ascontiguousarray(BANDS[..., :4].transpose(2, 0, 1))
    assert "has 4 bands of uint16" in reason(tiff(planes, photometric="minisblack", planarconfig="separate"))
    assert "has 4 bands of uint8" in reason(tiff(BANDS[..., :4].astype(np.uint8), **CONTIGUOUS))
    assert reason(tiff(BANDS, **CONTIGUOUS), bands=(14,)) == "has 13 bands, but bands names 14 (the first band is 1)"


def test_types_that_pillow_does_not_read():
    colors = np.random.default_rng(1).random((5, 4, 3))
    for dtype in (np.float32, np.float64, np.float16):
        pixels = Decoding().decode(tiff(colors.astype(dtype), photometric="rgb"))
        np.testing.assert_allclose(pixels, colors * 255, atol=0.7)
    high = np.array([[0, 2**31, 2**32 - 1]], np.uint32)  # Pillow would make them negative
    assert_array_equal(Decoding().decode(tiff(high))[0, :, 0], [0, 128, 255])
    sixteen = tiff(BANDS[..., :3], photometric="rgb")
    assert_array_equal(read(sixteen), scaled(BANDS[..., :3]))
    assert np.abs(Decoding().decode(sixteen).astype(int) - BANDS[..., :3] // 256).max() == 0


def test_white_is_zero_and_data_can_be_missing():
    inverted = tiff(65535 - BANDS[..., 0], photometric="miniswhite")
    assert_array_equal(read(inverted, bands=(1,)), scaled(BANDS[..., :1]))
    values = BANDS[..., 0].astype(np.float32)
    values[0, 0] = -9999
    pixels = Decoding().decode(tiff(values, extratags=[(42113, 2, 0, "-9999", True)]))
    assert pixels[0, 0, 0] == 0
    np.testing.assert_allclose(pixels[1:, :, 0], BANDS[1:, :, 0] * (255 / values.max()), atol=0.51)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation):
    buffer = io.BytesIO()
    gray = (BANDS[..., 0] % 256).astype(np.uint8)
    Image.fromarray(gray).save(buffer, "TIFF", tiffinfo={274: orientation})
    whole = Decoding().decode(buffer.getvalue())[..., :1]
    assert_array_equal(Decoding(bands=(1,)).decode(buffer.getvalue()), whole)


def test_truncated_files_and_missing_packages_are_named(monkeypatch):
    file = tiff(BANDS, **CONTIGUOUS)
    with pytest.raises(UnreadableImage, match="truncated or damaged: the file ends before"):
        read(file[: len(file) // 2], bands=(1,))
    compressed = tiff(BANDS, **CONTIGUOUS, compression="lzw")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tifffile", "imagecodecs")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnreadableImage, match="compressed by LZW, which needs a package: pip install imagecodecs"):
        read(compressed, bands=(1,))


def test_an_image_of_too_many_values_is_refused_by_its_header():
    assert "decompression bomb: 8 x 6 pixels of 13 bands" in refused(tiff(BANDS, **CONTIGUOUS), 100)


def refused(file: bytes, pixel_limit: int) -> str:
    with pytest.raises(UnreadableImage) as caught:
        Decoding(bands=(1,)).decode(file, pixel_limit=pixel_limit)
    return caught.value.reason


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on tags
def test_damaged_bytes_raise_only_unreadable_image():
    draws = np.random.default_rng(2)
    for options in ({}, {"compression": "lzw"}, {"compression": "zlib"}):
        data = np.frombuffer(tiff(BANDS, **CONTIGUOUS, **options), np.uint8)
        for number in range(60):
            broken = data.copy()
            end = min(400, len(data)) if number % 2 else len(data)
            broken[draws.integers(0, end, 6)] = draws.integers(0, 256, 6)
            with contextlib.suppress(UnreadableImage):
                assert Decoding(bands=(1, 5)).decode(broken.tobytes()).shape[2] == 2
