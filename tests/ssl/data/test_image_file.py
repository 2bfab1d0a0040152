"""Image files of every format against known pixels."""

import contextlib
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from wildfern.ssl.data import UnreadableImage, decode_image, image_size, open_source, pillow_image
from wildfern.ssl.data.image_file import EXTENSIONS, Decoding


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, np.full(x.shape, 90)], 2).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_read_exactly(kind):
    pixels = noise(7, 5)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels), kind)), pixels)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(orientation, turn):
    pixels = noise(8, 4)
    exif = Image.Exif()
    exif[274] = orientation
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(pixels), "PNG", exif=exif)), np.rot90(pixels, turn)
    )


def test_transparency_is_blended_with_white():
    pixels = noise(4, 6, 4)
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decode_image(encoded(Image.fromarray(pixels), "PNG")), expected, atol=1)
    grey = noise(4, 6, 4)[..., :2]
    both = decode_image(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_allclose(both[..., 0], grey[..., 0] * (grey[..., 1] / 255) + 255 - grey[..., 1], atol=1)


def test_a_transparent_palette_is_blended_with_white():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    pixels = decode_image(encoded(image, "PNG", transparency=0))
    np.testing.assert_array_equal(pixels, [[[255] * 3, [40, 50, 60]], [[40, 50, 60], [255] * 3]])


def test_gray_bilevel_and_palette_become_rgb():
    grey = noise(5, 5, 1)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))
    bilevel = Image.fromarray(grey).convert("1")
    assert set(np.unique(decode_image(encoded(bilevel, "PNG")))) == {0, 255}
    gif = decode_image(encoded(Image.fromarray(smooth(20, 30)).quantize(64), "GIF"))
    assert np.abs(gif.astype(int) - smooth(20, 30)).mean() < 15


def test_sixteen_bits_are_scaled():
    deep = np.array([[0, 257, 65535], [128, 129, 32896]], np.uint16)
    pixels = decode_image(encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(pixels[..., 1], [[0, 1, 255], [0, 1, 128]])
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    np.testing.assert_array_equal(decode_image(encoded(floats, "TIFF"))[0, :, 0], [0, 128, 255])


def test_cmyk_jpeg_has_the_right_colors():
    image = Image.fromarray(smooth(32, 48))
    pixels = decode_image(encoded(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - smooth(32, 48)).mean() < 4


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (6, 4), (200, 0, 0)), Image.new("RGB", (6, 4), (0, 200, 0))
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        np.testing.assert_array_equal(decode_image(data), np.full((4, 6, 3), (200, 0, 0)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(375, 500), (501, 333), (397, 405)])
@pytest.mark.parametrize("max_side", [240, 120, 61])
def test_a_jpeg_shrunk_while_it_is_decoded_is_not_shifted(width, height, max_side, orientation):
    """JPEG's own scales round sizes up, by up to half a pixel of the result; the surplus must be cropped."""
    coarse = Image.fromarray(np.random.default_rng(width).integers(0, 256, (12, 9, 3), np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encoded(coarse.resize((width, height), Image.Resampling.BICUBIC), "JPEG", quality=95, exif=exif)
    whole, shrunk = decode_image(file), decode_image(file, max_side=max_side).astype(float)
    size = shrunk.shape[1::-1]
    assert max(size) == max_side
    expected = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR)).astype(float)
    assert np.abs(shrunk - expected).mean() < 3
    for axis in (0, 1):
        slope = np.gradient(expected, axis=axis)
        shift = ((shrunk - expected) * slope).sum() / (slope**2).sum()  # in pixels, by least squares
        assert abs(shift) < 0.03


def test_max_side_shrinks_jpeg_and_png_alike():
    image = Image.fromarray(smooth(600, 900))
    jpeg = decode_image(encoded(image, "JPEG", quality=95), max_side=90)
    png = decode_image(encoded(image, "PNG"), max_side=90)
    assert jpeg.shape == png.shape == (60, 90, 3)
    assert np.abs(jpeg.astype(int) - png).mean() < 3
    assert decode_image(encoded(image, "PNG"), max_side=900).shape == (600, 900, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused(kind):
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    for keep in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImage):
            decode_image(data[: int(len(data) * keep)])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on tags
def test_damaged_bytes_raise_only_unreadable_image():
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        data = np.frombuffer(encoded(Image.fromarray(noise(24, 24)), kind), np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[rng.integers(0, len(data), 6)] = rng.integers(0, 256, 6)
            with contextlib.suppress(UnreadableImage):
                assert decode_image(broken.tobytes()).shape[2] == 3


def test_reasons_are_written_for_the_user(tmp_path):
    def reason(file, **options) -> str:
        with pytest.raises(UnreadableImage) as caught:
            decode_image(file, **options)
        with pytest.raises(UnreadableImage):
            image_size(file, **options)
        return caught.value.reason

    (tmp_path / "empty.jpg").write_bytes(b"")
    image = encoded(Image.fromarray(noise(9, 12)), "PNG")
    assert reason(b"") == reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(b"<html>") == "not an image in a known format"
    assert reason(image, pixel_limit=100) == "decompression bomb: 12 x 9 pixels, more than 100"
    assert reason(image, min_side=10) == "too small: 12 x 9, the shorter side must be 10 or more"
    assert "No such file" in reason(tmp_path / "gone.jpg")


def test_a_decompression_bomb_is_refused_by_its_header():
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 1000) + b"IDAT" + bytes(1000)
    with pytest.raises(UnreadableImage, match="bomb"):
        decode_image(bomb)


def test_sixteen_bit_color_keeps_its_bits_if_a_range_is_given():

    deep = np.random.default_rng(0).integers(0, 2500, (6, 5, 4)).astype(np.uint16)
    told: dict[str, str] = {}
    for channels in (3, 4):
        deep[..., 3] = 65535
        file = imagecodecs.png_encode(np.ascontiguousarray(deep[..., :channels]))
        assert np.array_equal(Decoding().decode(file, told.__setitem__), deep[..., :3] >> 8)
        pixels = Decoding(value_range=(0.0, 2500.0)).decode(file)
        np.testing.assert_array_equal(pixels, np.rint(deep[..., :3] * (255 / 2500)))
    assert "set value_range: [0, 4095]" in told["dark"]
    assert Decoding(bands=(3,), value_range=(0.0, 2500.0)).decode(file).shape == (6, 5, 1)


def test_eight_bits_are_scaled_only_if_a_range_is_given():
    pixels = noise(7, 5) // 4
    file = encoded(Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(Decoding().decode(file), pixels)
    np.testing.assert_array_equal(Decoding(value_range=(0.0, 63.0)).decode(file), np.rint(pixels * (255 / 63)))
    stretched = Decoding(value_range="image", percentiles=(0.0, 100.0)).decode(file)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_bands_of_files_with_colors_and_transparency():
    pixels = noise(4, 6, 4)
    file = encoded(Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(Decoding(bands=(4, 1)).decode(file), pixels[..., [3, 0]])
    gray = encoded(Image.fromarray(pixels[..., 0]), "PNG")
    np.testing.assert_array_equal(Decoding(bands=(1,)).decode(gray), pixels[..., :1])
    np.testing.assert_array_equal(Decoding(bands=(1, 1)).decode(gray, None), np.repeat(pixels[..., :1], 2, axis=2))
    with pytest.raises(UnreadableImage, match="has 1 band, but bands names 2"):
        Decoding(bands=(2,)).size(gray)
    opacity = imagecodecs.png_encode(np.full((4, 6, 2), 2**15, np.uint16))
    assert Decoding(bands=(2, 1)).decode(opacity).shape == (4, 6, 2)
    with pytest.raises(UnreadableImage, match="has 2 bands, but bands names 4"):
        Decoding(bands=(4,)).size(opacity)
    small = Decoding(bands=(4, 1), max_side=3).decode(file)
    assert small.shape == (2, 3, 2)


def test_a_partly_transparent_palette_and_cmyk_without_adobe_marker():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    pixels = decode_image(encoded(image, "PNG", transparency=b"\x80\xff"))
    np.testing.assert_allclose(pixels[0], [[132, 137, 142], [40, 50, 60]], atol=1)
    ink = encoded(Image.fromarray(smooth(32, 48)).convert("CMYK"), "TIFF")
    assert np.abs(decode_image(ink).astype(int) - smooth(32, 48)).mean() < 1


def test_heic_is_read_or_the_package_is_named(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    file = encoded(Image.fromarray(smooth(64, 64)), "HEIF", quality=95)
    assert np.abs(decode_image(file).astype(int) - smooth(64, 64)).mean() < 4
    with pytest.raises(UnreadableImage, match="damaged"):
        image_size(file[:20])
    monkeypatch.setattr(pillow_image, "_known_formats", lambda: ("PNG",))
    for start, package in (
        (file, "a HEIC image, which needs a package: pip install pillow-heif"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "pip install --upgrade pillow"),
        (b"\xff\x0a" + bytes(20), "pip install pillow-jxl-plugin"),
    ):
        with pytest.raises(UnreadableImage, match=package):
            image_size(start)


def test_extensions_are_those_of_formats_that_are_read():
    known = {extension for extension, kind in Image.registered_extensions().items() if kind in pillow_image._FORMATS}
    assert known - set(EXTENSIONS) <= {".jpeg", ".heifs", ".heics", ".hif", ".avifs", ".icb"}
    assert {".heic", ".jxl", ".jpe", ".j2k", ".pnm", ".tif"} < set(EXTENSIONS)
    assert not {".eps", ".pdf", ".svg", ".tga"} & set(EXTENSIONS)


def test_the_range_of_a_data_set_is_that_of_a_fixed_sample(tmp_path):
    for number in range(6):
        deep = np.full((4, 4), 400 * number, np.uint16)
        deep[0] = 400 * number + 100
        Image.fromarray(deep).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    settings = {"value_range": "dataset", "percentiles": (0.0, 100.0)}
    one, other = (open_source(f"folder:{tmp_path}", **settings) for _ in range(2))
    np.testing.assert_array_equal(one.read([4]).pixels, other.read(np.arange(6)).pixels[4:5])
    assert one.read([0, 5]).pixels[:, ::3, 0, 0].tolist() == [[12, 0], [255, 243]]
    assert any("value_range: dataset is [0, 2100] here" in note for note in one.notes)


def test_a_source_notes_what_it_assumes_about_values_once(tmp_path):
    for number in range(3):
        Image.fromarray(np.array([[0, 3000 + number]], np.uint16)).save(tmp_path / f"{number}.png")
    source = open_source(f"folder:{tmp_path}")
    source.read(np.arange(3))
    assert len(source.notes) == 1
    assert "0.png: uses only 0 … 3,000 of the range of uint16" in source.notes[0]
    assert "value_range: [0, 4095]" in source.notes[0]
