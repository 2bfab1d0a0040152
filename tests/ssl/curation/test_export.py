"""Exports: what is in the files, what is not, and that training reads the same pixels from them."""

import csv
import hashlib
import io
import json
import os
import tarfile
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import scene, write_scenes
from images_with_metadata import PROFILE, SCAN, SECRET, exif_of, jpeg
from PIL import ExifTags, Image, PngImagePlugin
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation import export
from wildfern.ssl.curation.curate import Tools, scan
from wildfern.ssl.curation.export import export_images
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import CurationError, Manifest
from wildfern.ssl.curation.policy import People, Policy
from wildfern.ssl.curation.takedowns import add_takedowns
from wildfern.ssl.data import open_source


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


def attributed(out) -> list[dict[str, str]]:
    with (out / "attribution.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
    lines = attributed(tmp_path / "rows")
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
    taken = find_images(curated, {"path": {"scene_00.png"}})[0]
    add_takedowns(curated.folder, taken[:1])  # the other one has its pixels
    assert len(taken) == 2
    count, _ = export_images(curated.folder, out, format)
    assert count == 4
    digests = {row["path"]: row["sha256"] for row in curated.table(["path", "sha256"]).to_pylist()}
    assert {name[:64] for name in contents(out, format)} == {digests[f"scene_0{n}.png"] for n in range(1, 5)}
    assert {"README.md", "images-1.txt", "attribution.csv"} <= {path.name for path in out.iterdir()}
    assert len(attributed(out)) == 4


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_an_export_that_was_killed_is_completed_by_the_same_again(curated, tmp_path, format, monkeypatch):
    export_images(curated.folder, tmp_path / "whole", format, 0)
    interrupted(monkeypatch, 3, curated.folder, tmp_path / "out", format, 0)
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


def files_of(out) -> set[str]:
    """All files of a folder and its empty folders, without the mark."""
    return {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.name != ".wildfern_export" and not (path.is_dir() and any(path.iterdir()))
    }


def taken_down(manifest, *paths) -> set[str]:
    """Take down images with all their copies; the SHA-256 of these."""
    taken = find_images(manifest, {"path": set(paths)})[0]
    add_takedowns(manifest.folder, taken)
    return {one.sha256 for one in taken}


def interrupted(monkeypatch, count, *arguments) -> None:
    """An export that is killed after `count` images."""
    original, done = export._one, []

    def killed(*given):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(given)
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(export, "_one", killed)
        with pytest.raises(KeyboardInterrupt):
            export_images(*arguments)


FORMATS = ["folder", "webdataset", "parquet"]
OF_THE_USER = {f"00/{'0' * 64}.jpg", f"ff/{'f' * 63}0.png", "images-000000.zip", "images-000099.tar", "README.md"}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("former", FORMATS)
@pytest.mark.parametrize("killed", [False, True])
def test_an_export_replaces_those_in_other_formats_and_nothing_else(
    curated, tmp_path, monkeypatch, former, format, killed
):
    out = tmp_path / "out"
    export_images(curated.folder, out, former, 0)
    for name in OF_THE_USER:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("of the user")
    if killed:
        scan([f"folder:{tmp_path}/images"], curated.folder, Policy())  # one of two copies: other names
        interrupted(monkeypatch, 2, curated.folder, out, next(one for one in FORMATS if one != former), 0)
    taken_down(curated, "scene_00.png", "scene_01.png")
    count, _ = export_images(curated.folder, out, format, 0)
    assert count == 3
    export_images(curated.folder, tmp_path / "new", format, 0)
    assert files_of(out) == files_of(tmp_path / "new") | OF_THE_USER
    assert all((out / name).read_text() == "of the user" for name in OF_THE_USER)
    assert (out / ".wildfern_export").read_bytes() == (tmp_path / "new" / ".wildfern_export").read_bytes()
    assert attributed(out) == attributed(tmp_path / "new")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("former", FORMATS)
def test_a_folder_of_an_export_before_there_were_lists_is_emptied_by_names(curated, tmp_path, former, format):
    out = tmp_path / "out"
    export_images(curated.folder, out, former, 0)
    (out / ".wildfern_export").write_text(
        "Written by wildfern curate export: files here are replaced and removed by the next export.\n"
    )
    mine = {f"00/{'0' * 63}.jpg", f"00/{'f' * 64}.jpg", "images-000000.zip"}  # of no export
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("of the user")
    taken_down(curated, "scene_01.png")
    export_images(curated.folder, out, format, 0)
    export_images(curated.folder, tmp_path / "new", format, 0)
    assert files_of(out) == files_of(tmp_path / "new") | mine


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [0, 1])
def test_an_export_that_is_killed_has_the_attribution_of_all_images_that_are_there(
    curated, tmp_path, monkeypatch, format, count
):
    texts = ["=Ada", "'Bo", 'Cy, "D"', "\u00c9ve"]
    with (tmp_path / "rights.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("path", "author", "title", "license"),
                *((f"scene_0{n}.png", text, f"{text} no. {n}", "cc0") for n, text in enumerate(texts)),
            ]
        )
    everything = Policy(exact_duplicate=type(Policy().animated)(action="keep"))
    scan([f"folder:{tmp_path}/images"], curated.folder, everything, metadata=[tmp_path / "rights.csv"])
    out = tmp_path / "out"
    export_images(curated.folder, out, "folder")
    before = {line["sha256"]: line for line in attributed(out)}
    gone = taken_down(Manifest(curated.folder), "scene_00.png", "scene_01.png", "scene_02.png")
    for _ in range(2):  # killed twice
        interrupted(monkeypatch, count, curated.folder, out, format, 0)
        assert {line["sha256"]: line for line in attributed(out)} == before
        assert {line["sha256"] for line in attributed(out)[:2]}.isdisjoint(gone)
    export_images(curated.folder, out, format, 0)
    assert {line["sha256"]: line for line in attributed(out)} == {
        sha256: line for sha256, line in before.items() if sha256 not in gone
    }


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"sha256\n\0", b"path,sha256\na,b\n" + b"x" * 200_000, None])
def test_a_damaged_attribution_of_an_earlier_export_does_not_hinder(curated, tmp_path, damage):
    out = tmp_path / "out"
    export_images(curated.folder, out)
    if damage is None:
        (out / "attribution.csv").unlink()
    else:
        (out / "attribution.csv").write_bytes(damage)
    assert export_images(curated.folder, out)[0] == 6
    assert len(attributed(out)) == 6


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_export_tells_what_is_in_the_folder(curated, tmp_path, format):
    (tmp_path / "images" / "scene_02.png").unlink()
    scenes = [row["path"] for row in curated.table(["path"]).to_pylist()]
    written = scenes.index("scene_02.png")
    with pytest.raises(CurationError) as caught:
        export_images(curated.folder, tmp_path / "out", format, 0)
    assert str(caught.value).endswith(
        f"out is incomplete: {written} of 6 images are written; attribution.csv lists all 6"
    )
    assert len(contents(tmp_path / "out", format)) == written
    write_scenes(tmp_path / "images", 5)
    other = tmp_path / "other"
    export_images(curated.folder, other, "folder")
    taken_down(curated, "scene_00.png")
    (tmp_path / "images" / "scene_02.png").unlink()
    with pytest.raises(CurationError, match=r"lists all 4, and those of earlier exports, which are still there$"):
        export_images(curated.folder, other, format)
    assert len(attributed(other)) == 6


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_without_images_empties_the_folder(curated, tmp_path, format):
    out = tmp_path / "out"
    export_images(curated.folder, out, format)
    taken_down(curated, *(f"scene_0{n}.png" for n in range(5)))
    assert export_images(curated.folder, out, format) == (0, 0)
    assert files_of(out) == {"attribution.csv"}
    assert attributed(out) == []


def test_the_lock_is_taken_before_anything_is_written(curated, tmp_path):
    out, seen = tmp_path / "out", []

    @contextmanager
    def lock(folder):
        seen.append((folder, sorted(folder.iterdir())))
        (folder / ".lock").write_text("mine")
        yield
        seen.append(len(contents(folder, "folder")))

    assert export_images(curated.folder, out, lock=lock)[0] == 6
    assert seen == [(out, []), 6]
    (out / ".wildfern_export").unlink()
    with pytest.raises(CurationError, match="no export wrote"):
        export_images(curated.folder, out, lock=lock)
    assert len(seen) == 2  # a folder of the user stays as it is, without a lock


def test_only_the_folder_of_a_source_is_refused_also_when_it_is_gone(curated, tmp_path):
    (tmp_path / "images").rename(tmp_path / "renamed")
    for out in (tmp_path / "images", tmp_path / "images" / "copy"):
        with pytest.raises(CurationError, match=f"{out} is, or lies in or around, {tmp_path}/images, where the images"):
            export_images(curated.folder, out)
    with pytest.raises(CurationError, match=r"same.bmp cannot be exported: .*No such file"):
        export_images(curated.folder, tmp_path / "out")
    (tmp_path / "renamed").rename(tmp_path / "images")
    assert export_images(curated.folder, tmp_path / "out")[0] == 6
    scan([f"parquet:{rows(curated, tmp_path)}"], tmp_path / "again", Policy())
    for path in (tmp_path / "rows").glob("*.parquet"):
        path.unlink()
    with pytest.raises(CurationError, match=f"is, or lies in or around, {tmp_path}/rows, where the images"):
        export_images(tmp_path / "again", tmp_path / "rows" / "copy")


def rows(curated, tmp_path):
    export_images(curated.folder, tmp_path / "rows", "parquet")
    return tmp_path / "rows"


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
    digests = {row["sha256"]: row["path"] for row in manifest.table(["path", "sha256"]).to_pylist()}
    changes = "metadata removed; other formats than JPEG may be encoded anew"
    assert {digests[line["sha256"]]: line["changes"] for line in attributed(tmp_path / "out")} == {
        **dict.fromkeys(("a.jpg", "b.png"), f"{changes}; faces or persons blurred"),
        "c.png": changes,  # it shows nobody
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
