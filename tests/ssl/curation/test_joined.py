"""What a user's table and the file itself say, joined."""

import json
import os

import pyarrow as pa
import pytest

from wildfern.ssl.curation.joined import join
from wildfern.ssl.curation.manifest import JOINED, STORED, CurationError, stored_path
from wildfern.ssl.curation.user_metadata import UserMetadata


def rows(*images: dict) -> pa.Table:
    full = []
    for image in images:
        own = {"container": "/data/photos", "kind": "folder", "source": "folder:photos"} | image
        own["embedded"] = json.dumps(own["embedded"]) if own.get("embedded") else None
        full.append({name: own.get(name) for name in STORED.names})
    return pa.Table.from_pylist(full, STORED)


def table(folder, text: str, name: str = "rights.csv") -> UserMetadata:
    (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return UserMetadata.read(folder / name)


def joined(found: pa.Table, *names: str) -> list[tuple]:
    return list(zip(*(found.column(name).to_pylist() for name in names), strict=True))


INSIDE = {
    "author": "Inside",
    "credit": "Agency",
    "rights": "© Inside",
    "license": "CC-BY-SA-4.0",
    "license_text": "CC BY-SA 4.0",
    "license_from": "xmp",
    "source_url": "https://inside.example",
    "date": "2001-02-03",
    "camera": "Canon",
    "optout": "xmp: noai",
}


def test_without_a_table_the_file_itself_tells():
    found = join(rows({"path": "a/b.jpg", "embedded": INSIDE}, {"path": "c.jpg"}), [])
    assert found.schema.names == [*STORED.names, *(column.name for column in JOINED)]
    assert [field.type for field in found.schema][len(STORED) :] == [column.type for column in JOINED]
    first, second = found.select([column.name for column in JOINED]).to_pylist()
    assert first == INSIDE | {"album": "a", "metadata": None}
    assert set(second.values()) == {None}


def test_the_table_wins_over_the_file_column_by_column(tmp_path):
    metadata = table(tmp_path, "path,author,license,date,title\na/b.jpg,Table,CC0 1.0,2020,T\nc.jpg,,,,\n")
    found = join(rows({"path": "a/b.jpg", "embedded": INSIDE}, {"path": "c.jpg", "embedded": INSIDE}), [metadata])
    first, second = found.select([column.name for column in JOINED]).to_pylist()
    assert first == INSIDE | {
        "author": "Table",
        "license": "CC0-1.0",
        "license_text": "CC0 1.0; the file says CC-BY-SA-4.0",
        "license_from": "metadata",
        "date": "2020",
        "album": "a",
        "metadata": '{"title": "T"}',
    }
    assert second == INSIDE | {"album": None, "metadata": None}  # empty cells say nothing


def test_a_license_of_the_table_that_is_not_known_is_not_that_of_the_file(tmp_path):
    metadata = table(tmp_path, "path,license\na.jpg,ask me\nb.jpg,CC BY-SA 4.0\n")
    found = join(rows({"path": "a.jpg", "embedded": INSIDE}, {"path": "b.jpg", "embedded": INSIDE}), [metadata])
    assert joined(found, "license", "license_text", "license_from") == [
        (None, "ask me; the file says CC-BY-SA-4.0", "metadata"),
        ("CC-BY-SA-4.0", "CC BY-SA 4.0", "metadata"),
    ]


def test_a_reservation_in_the_file_stays_whatever_the_table_says(tmp_path):
    metadata = table(tmp_path, "path,optout\na.jpg,no\nb.jpg,asked by mail\nc.jpg,no\n")
    images = [{"path": "a.jpg", "embedded": INSIDE}, {"path": "b.jpg", "embedded": INSIDE}, {"path": "c.jpg"}]
    found = join(rows(*images), [metadata])
    assert found.column("optout").to_pylist() == ["xmp: noai", "metadata: asked by mail", None]


def test_coordinates_in_the_table_or_the_file_set_the_flag_and_are_not_copied(tmp_path):
    metadata = table(tmp_path, "path,latitude,longitude,note\na.jpg,52.5,13.4,x\nb.jpg,,,x\nc.jpg,52.5,13.4,\n")
    images = [{"path": f"{name}.jpg", "has_gps": flag} for name, flag in zip("abc", [False, True, None], strict=True)]
    images += [{"path": "d.jpg", "has_gps": flag} for flag in (False, None)]
    found = join(rows(*images), [metadata])
    assert found.column("has_gps").to_pylist() == [True, True, True, False, None]
    assert not any("52.5" in str(row) for row in found.to_pylist())


def test_the_album_is_that_of_the_table_else_the_folder_else_the_container(tmp_path):
    metadata = table(tmp_path, "path,album\nx/y/a.jpg,Holidays\n")
    images = [
        {"path": "x/y/a.jpg"},
        {"path": "x/y/b.jpg"},
        {"path": "c.jpg"},
        {"path": "0001", "kind": "webdataset", "container": "/data/shard-7.tar"},
        {"path": "row 3", "kind": "parquet", "container": "/data/x.parquet"},
    ]
    found = join(rows(*images), [metadata])
    assert found.column("album").to_pylist() == ["Holidays", "x/y", None, "shard-7.tar", "x.parquet"]


def test_the_first_table_that_knows_an_image_tells(tmp_path):
    one = table(tmp_path, "path,author\na.jpg,One\n", "one.csv")
    two = table(tmp_path, "path,author,license\na.jpg,Two,CC0-1.0\nb.jpg,Two,CC0-1.0\n", "two.csv")
    found = join(rows({"path": "a.jpg"}, {"path": "b.jpg"}), [one, two])
    assert joined(found, "author", "license") == [("One", None), ("Two", "CC0-1.0")]
    assert one.unmatched() == (0, [])


def test_a_path_in_the_table_is_one_of_several_forms(tmp_path):
    """Relative, full, without an extension, with folders of another machine; and one folder in another."""
    metadata = table(
        tmp_path,
        "path,author\na.jpg,A\nx/a.jpg,XA\n/data/photos/b.jpg,B\nc,C\n/home/ada/photos/d.jpg,D\nold/name/e.jpg,E\n",
    )
    paths = ["a.jpg", "x/a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    found = join(rows(*({"path": path} for path in paths)), [metadata])
    assert found.column("author").to_pylist() == ["A", "XA", "B", "C", "D", "E", None]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_sources_with_the_same_paths_have_their_own_rows(tmp_path, order):
    """Of which only one has a row for b.jpg, and the folders were moved."""
    here = "path,author\none/a.jpg,A1\ntwo/a.jpg,A2\none/b.jpg,B1\n"
    there = "path,author\n/ada/one/a.jpg,A1\n/ada/two/a.jpg,A2\n/ada/one/b.jpg,B1\n"
    images = [
        {"container": f"/data/{folder}", "path": path} for folder in ("one", "two") for path in ("a.jpg", "b.jpg")
    ]
    images = [images[2 * n + m] for n in order for m in range(2)]
    expected = {"/data/one": ["A1", "B1"], "/data/two": ["A2", None]}
    for number, text in enumerate((here, there)):
        metadata = table(tmp_path, text, f"{number}.csv")
        found = join(rows(*images), [metadata]).column("author").to_pylist()
        assert {images[n]["container"]: found[n : n + 2] for n in (0, 2)} == expected
        assert metadata.unmatched()[0] == 0


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_a_row_that_fits_images_of_two_sources_is_an_error(tmp_path, kind):
    path = {"folder": "a.jpg", "webdataset": "0001", "parquet": "row 0"}[kind]
    metadata = table(tmp_path, f"path,license\n{path},CC0-1.0\n")
    images = [{"kind": kind, "container": f"/data/{name}", "path": path} for name in ("one", "two")]
    with pytest.raises(CurationError, match=f"'{path}' fits more than one image, /data/two/{path} among them"):
        join(rows(*images), [metadata])
    (tmp_path / "own").mkdir()
    own = table(tmp_path / "own", f"path,author\none/{path},One\ntwo/{path},Two\n")
    assert join(rows(*images), [own]).column("author").to_pylist() == ["One", "Two"]


def test_a_name_that_is_no_utf8_is_found(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff.jpg")
    (tmp_path / "rights.json").write_text(json.dumps({"café.jpg": {"author": "Ada"}}))
    found = join(
        rows({"path": stored_path(name)}, {"path": "cafe\u0301.jpg"}), [UserMetadata.read(tmp_path / "rights.json")]
    )
    assert found.column("author").to_pylist() == [None, "Ada"]  # composed as in the table


def test_no_rows_and_rows_in_pieces(tmp_path):
    assert join(STORED.empty_table(), []).schema.names[-1] == "metadata"
    metadata = table(tmp_path, "path,author\na.jpg,A\nb.jpg,B\n")
    found = [join(rows({"path": path}), [metadata]).column("author").to_pylist() for path in ("a.jpg", "b.jpg")]
    assert found == [["A"], ["B"]]
    metadata.check_used()
