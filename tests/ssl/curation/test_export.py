"""Exports: what is in the files, what is not, and that training reads the same pixels from them."""

import csv
import hashlib
import io
import json
import os
import re
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import scene, write_scenes
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation import export
from wildfern.ssl.curation.curate import Tools, scan
from wildfern.ssl.curation.export import export_images, without_metadata
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.policy import People, Policy
from wildfern.ssl.curation.takedowns import add_takedowns
from wildfern.ssl.data import UnreadableImage, decode_image, open_source

SECRET = b"SECRET"
SCAN = b"\xff\xda"
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


# Exports of curated folders


@pytest.fixture
def images(tmp_path):
    """Images of many formats, with and without metadata."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "camera.jpg").write_bytes(jpeg(scene(0), exif=exif_of(6), comment=SECRET, icc_profile=PROFILE))
    (folder / "progressive.jpg").write_bytes(jpeg(scene(1), progressive=True, exif=exif_of()))
    (folder / "print.jpg").write_bytes(jpeg(scene(2).convert("CMYK")))
    scene(3).save(folder / "plain.png")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "SECRET")
    scene(4).save(folder / "texts.png", pnginfo=texts, exif=exif_of(5))
    serial = Image.Exif()
    serial[ExifTags.Base.Software] = "SECRET"  # nothing that a manifest has a column for
    scene(5).save(folder / "serial.png", exif=serial)
    scene(6).save(folder / "behind.png")
    with (folder / "behind.png").open("ab") as file:
        file.write(SECRET)
    scene(7).convert("RGB").save(folder / "opaque.webp", quality=90)
    frames = [scene(n).quantize(64) for n in (8, 9)]
    frames[0].save(folder / "two.gif", save_all=True, append_images=frames[1:], comment=SECRET)
    scene(10).save(folder / "two.png", save_all=True, append_images=[scene(11)])
    scene(12).save(folder / "old.bmp")
    gray = np.linspace(0, 65535, 64 * 48).reshape(48, 64) + np.random.default_rng(0).uniform(-9000, 9000, (48, 64))
    Image.fromarray(gray.clip(0, 65535).astype(np.uint16)).save(folder / "deep.tif")
    return folder


def by_digest(source) -> dict[str, np.ndarray]:
    """The pixels of all images by their SHA-256, to compare sets of images."""
    pixels = source.read(np.arange(source.num_items)).as_lists().pixels
    return {hashlib.sha256(str(one.shape).encode() + one.tobytes()).hexdigest(): one for one in pixels}


def exported_source(out, format):
    pattern = {"folder": str(out), "webdataset": f"{out}/images-*.tar", "parquet": str(out)}[format]
    return open_source(f"{format}:{pattern}")


def contents(out, format) -> dict[str, bytes]:
    """The images of an export by their names."""
    if format == "folder":
        return {path.name: path.read_bytes() for path in out.glob("??/*")}
    if format == "parquet":
        rows = [row["image"] for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        return {row["path"]: row["bytes"] for row in rows}
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as shard:
            found |= {one.name: shard.extractfile(one).read() for one in shard if not one.name.endswith(".json")}
    return found


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_training_reads_the_same_pixels_from_an_export(images, tmp_path, format):
    found = scan([f"folder:{images}"], tmp_path / "curated", Policy())
    assert found.manifest.info.counts == {"keep": 12, "review": 0, "reject": 0}
    out = tmp_path / "out"
    count, files = export_images(tmp_path / "curated", out, format)
    assert (count, files) == (12, 12 if format == "folder" else 1)
    assert set(by_digest(exported_source(out, format))) == set(by_digest(open_source(f"curated:{tmp_path}/curated")))

    written = contents(out, format)
    assert not any(SECRET in content for content in written.values())
    rows = found.manifest.table(["path", "sha256"]).to_pylist()
    by_path = {row["path"]: [name for name in written if name.startswith(row["sha256"])] for row in rows}
    ends = {path: name.split(".")[1] for path, (name,) in by_path.items()}
    assert {path for path, end in ends.items() if end == "jpg"} == {"camera.jpg", "progressive.jpg", "print.jpg"}
    assert {path for path, end in ends.items() if end == "webp"} == {"opaque.webp"}
    for path in ("plain.png", "opaque.webp"):  # there is nothing to leave out
        assert written[by_path[path][0]] == (images / path).read_bytes()
    for path in ("texts.png", "serial.png", "behind.png", "two.png", "two.gif"):
        with Image.open(io.BytesIO(written[by_path[path][0]])) as image:
            assert (image.format, getattr(image, "n_frames", 1), dict(image.getexif()), image.info) == (
                "PNG",
                1,
                {},
                {},
            )
    for path in ("camera.jpg", "progressive.jpg", "print.jpg"):
        content = written[by_path[path][0]]
        assert content[content.index(SCAN) :] in (images / path).read_bytes()


def test_shards_and_parquet_files_have_the_rights_of_each_image(tmp_path):
    names = write_scenes(tmp_path / "images", 3)
    (tmp_path / "rights.csv").write_text(
        "path,license,author,source_url,copyright,title\n"
        + "".join(f"{name},CC-BY-4.0,Ada,https://example.org/{name},© Ada,Title\n" for name in names)
    )
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy(), metadata=[tmp_path / "rights.csv"])
    digests = {row["sha256"]: row["path"] for row in found.manifest.table(["sha256", "path"]).to_pylist()}
    about = {"license": "CC-BY-4.0", "author": "Ada"}
    export_images(tmp_path / "c", tmp_path / "shards", "webdataset", 1)
    with tarfile.open(tmp_path / "shards" / "images-000000.tar") as shard:
        texts = {one.name: json.load(shard.extractfile(one)) for one in shard if one.name.endswith(".json")}
    assert texts == {
        f"{one}.json": about | {"source_url": f"https://example.org/{path}"} for one, path in digests.items()
    }
    export_images(tmp_path / "c", tmp_path / "rows", "parquet")
    rows = pq.read_table(tmp_path / "rows" / "images-000000.parquet").drop_columns("image").to_pylist()
    assert rows == [
        {"sha256": one} | about | {"source_url": f"https://example.org/{path}"} for one, path in digests.items()
    ]
    with (tmp_path / "rows" / "attribution.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["sha256"] for line in lines] == list(digests)
    assert {(line["rights"], line["title"]) for line in lines} == {("© Ada", "Title")}
    assert lines[0]["changes"] == "metadata removed; other formats than JPEG may be encoded anew"


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_files_are_about_as_large_as_asked_for(images, tmp_path, format):
    found = scan([f"folder:{images}"], tmp_path / "curated", Policy())
    count, files = export_images(tmp_path / "curated", tmp_path / "out", format, 0)
    assert (count, files) == (12, 12)
    digests = [row["sha256"] for row in found.manifest.table(["sha256"]).to_pylist()]
    assert [name[:64] for name in contents(tmp_path / "out", format)] == digests  # in the order of the manifest
    assert len(by_digest(exported_source(tmp_path / "out", format))) == 12
    assert export_images(tmp_path / "curated", tmp_path / "out", format, 256) == (12, 1)  # the other eleven are removed
    assert len(contents(tmp_path / "out", format)) == 12


@pytest.fixture
def curated(tmp_path):
    """Six scenes, of which the last is a copy of the first with other bytes but the same pixels."""
    write_scenes(tmp_path / "images", 5)
    scene(0).save(tmp_path / "images" / "same.bmp")
    everything = Policy(exact_duplicate=type(Policy().animated)(action="keep"))
    return scan([f"folder:{tmp_path}/images"], tmp_path / "curated", everything).manifest


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_images_taken_down_are_not_exported_and_removed_from_an_earlier_export(curated, tmp_path, format):
    out = tmp_path / "out"
    assert export_images(curated.folder, out, format)[0] == 6
    (out / "README.md").write_text("of the user")
    (out / "images-1.txt").write_text("of the user")
    taken, _ = find_images(curated, {"path": {"scene_00.png"}})
    add_takedowns(curated.folder, taken[:1])  # the other one has its pixels
    assert len(taken) == 2
    count, _ = export_images(curated.folder, out, format)
    assert count == 4
    digests = {row["path"]: row["sha256"] for row in curated.table(["path", "sha256"]).to_pylist()}
    assert {name[:64] for name in contents(out, format)} == {digests[f"scene_0{n}.png"] for n in range(1, 5)}
    assert {"README.md", "images-1.txt", "attribution.csv"} <= {path.name for path in out.iterdir()}
    with (out / "attribution.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_an_export_that_was_killed_is_completed_by_the_same_again(curated, tmp_path, format, monkeypatch):
    export_images(curated.folder, tmp_path / "whole", format, 0)
    original, done = export._one, []

    def killed(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(export, "_one", killed)
        with pytest.raises(KeyboardInterrupt):
            export_images(curated.folder, tmp_path / "out", format, 0)
    assert len(contents(tmp_path / "out", format)) == 3
    assert (tmp_path / "out" / "attribution.csv").exists()  # tells that the folder is an export
    (tmp_path / "out" / ".partial_0123abcd_images").write_bytes(b"cut off")
    for path in (tmp_path / "out").glob("??"):
        (path / ".partial_0123abcd_image").write_bytes(b"cut off")
    for path in list((tmp_path / "out").glob("??/*.png"))[:1]:
        path.write_bytes(b"")  # after a power cut
    assert export_images(curated.folder, tmp_path / "out", format, 0)[0] == 6
    files = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "out", tmp_path / "whole")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: scene(30).save(path), "changed since the scan"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "empty file"),
    ],
)
def test_a_file_that_has_changed_since_the_scan_is_an_error(curated, tmp_path, format, change, message):
    change(tmp_path / "images" / "scene_02.png")
    with pytest.raises(CurationError, match=rf"images/scene_02.png cannot be exported: .*{message}.*scan again"):
        export_images(curated.folder, tmp_path / "out", format)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_a_container_that_is_gone_is_an_error(curated, tmp_path, kind):
    export_images(curated.folder, tmp_path / "first", kind)
    name = next((tmp_path / "first").glob("images-*")).name
    scan([f"{kind}:{tmp_path}/first/{name}"], tmp_path / "again", Policy())
    out, _ = export_images(tmp_path / "again", tmp_path / "second", "folder")
    assert out == 5  # without the copy
    (tmp_path / "first" / name).write_bytes(b"gone")
    with pytest.raises(CurationError, match=f"{name}.* cannot be exported.*scan again"):
        export_images(tmp_path / "again", tmp_path / "third", "folder")


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_people_are_blurred_where_the_policy_says_so(tmp_path, format):
    folder = tmp_path / "images"
    folder.mkdir()
    with_square(scene(0)).save(folder / "a.jpg", quality=95)
    with_square(scene(1)).save(folder / "b.png")
    scene(2).save(folder / "c.png")
    tools = Tools(detector=SquareDetector())

    def curated(blur, review=0.2):
        people = People(action="keep", detector="squares", blur=blur, review=review)
        return scan([f"folder:{folder}"], tmp_path / "curated", Policy(people=people), tools=tools).manifest

    def squares():
        images = by_digest(exported_source(tmp_path / "out", format)).values()
        return sum(bool(SquareDetector().detect(one)) for one in images)

    curated(blur=False)
    export_images(tmp_path / "curated", tmp_path / "out", format)
    assert (
        sum(bool(SquareDetector().detect(one)) for one in by_digest(exported_source(tmp_path / "out", format)).values())
        == 2
    )
    manifest = curated(blur=True)
    export_images(tmp_path / "curated", tmp_path / "out", format)  # into the same folder, over what is not blurred
    found = by_digest(exported_source(tmp_path / "out", format))
    assert (len(found), squares()) == (3, 0)
    kept = by_digest(open_source(f"curated:{tmp_path}/curated"))
    assert len(set(found) & set(kept)) == 2  # a PNG has the pixels that training reads
    with (tmp_path / "out" / "attribution.csv").open(newline="") as file:
        assert {line["changes"] for line in csv.DictReader(file)} == {
            "metadata removed; other formats than JPEG may be encoded anew; faces or persons blurred"
        }
    curated(blur=True, review=0.95)  # the squares score 0.9
    export_images(tmp_path / "curated", tmp_path / "out", format)
    assert (
        sum(bool(SquareDetector().detect(one)) for one in by_digest(exported_source(tmp_path / "out", format)).values())
        == 2
    )
    assert manifest.info.policy["people"]["blur"]


@pytest.mark.parametrize("boxes", ["[[1, 2", "[[1, 2]]", "[7]", "[[1, 2, 3, 4, null]]"])
def test_damaged_boxes_are_an_error(curated, tmp_path, boxes):
    table = pq.read_table(curated.path)
    place = table.schema.get_field_index("people_boxes")
    table = table.set_column(place, table.schema.field(place), pa.array([boxes] * len(table), pa.string()))
    words = json.loads(table.schema.metadata[b"wildfern"])
    words["policy"]["people"]["blur"] = True
    pq.write_table(table.replace_schema_metadata({"wildfern": json.dumps(words)}), curated.path)
    with pytest.raises(CurationError, match=r"manifest.parquet is damaged: row 0 .*: people_boxes must be JSON"):
        export_images(curated.folder, tmp_path / "out")


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_the_folder_of_an_export_may_have_any_name(curated, tmp_path, format):
    out = tmp_path / os.fsdecode(b"\xff <b> 'x'")
    assert export_images(curated.folder, out, format)[0] == 6
    assert len(list(out.rglob("*.*"))) > 1


def test_an_unknown_format_and_a_folder_without_a_manifest_are_errors(curated, tmp_path):
    with pytest.raises(CurationError, match="format must be one of folder, webdataset, parquet, got 'zip'"):
        export_images(curated.folder, tmp_path / "out", "zip")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CurationError, match=r"has no manifest.parquet"):
        export_images(tmp_path / "images", tmp_path / "out")


def test_an_image_that_a_policy_keeps_although_it_cannot_be_read_is_not_exported(tmp_path):
    write_scenes(tmp_path / "images", 2)
    (tmp_path / "images" / "cut.png").write_bytes((tmp_path / "images" / "scene_00.png").read_bytes()[:300])
    (tmp_path / "images" / "empty.png").touch()
    keep = type(Policy().animated)(action="keep")
    scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy(truncated=keep, unreadable=keep))
    assert export_images(tmp_path / "c", tmp_path / "out")[0] == 2
