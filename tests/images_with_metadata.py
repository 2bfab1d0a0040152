"""JPEG files with what cameras write into them, marked SECRET, for tests that nothing of it stays."""

import io

from PIL import ExifTags, Image, ImageCms

SECRET = b"SECRET"
SCAN = b"\xff\xda"  # of JPEG
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def exif_of(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = SECRET.decode()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: (52.0, 31.0, 1.0), ExifTags.GPS.GPSMapDatum: "SECRET"}
    return exif.tobytes()
