"""The user's table of licenses and authors: which columns, which row for which image, and each way it can be wrong."""

import json
import os
import random
from pathlib import Path

import pytest

from wildfern.ssl.curation.manifest import SCHEMA, CurationError
from wildfern.ssl.curation.user_metadata import UserMetadata


def written(folder: Path, text: str | bytes, name: str = "metadata.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_of_the_manifest(tmp_path):
    path = written(
        tmp_path,
        "\ufeffFile Name,Licence,unickname,Page-URL,date_taken,Album,Copyright,credit,Title,camera,note\r\n"
        'a/1.jpg,CC BY 2.0,Ada,https://example.org/1,2015-06-01 12:30:05.0,Trees,© Ada,Agency,"A tree, old",X100,\r\n'
        "b.png,,,,June 2015,,,,,,\n",
    )
    rows = UserMetadata.read(path)
    assert len(rows) == 2
    found = rows.find("a/1.jpg")
    assert json.loads(found.pop("metadata")) == {"title": "A tree, old", "camera": "X100"}
    assert found == {
        "license_text": "CC BY 2.0",
        "license": "CC-BY-2.0",
        "license_from": "metadata",
        "author": "Ada",
        "source_url": "https://example.org/1",
        "date": "2015-06-01T12:30:05",
        "album": "Trees",
        "rights": "© Ada",
        "credit": "Agency",
    }
    assert {*found, "metadata"} <= set(SCHEMA.names)
    assert {name: json.loads(text) for name, text in rows.find("b.png").items()} == {
        "metadata": {"date_taken": "June 2015"}
    }
    assert rows.find("c.png") is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(tmp_path, delimiter):
    lines = [["image", "author", "note"], ["1.jpg", "Ada", '"a, b; c\td ""e""\nsecond line"'], ["2.jpg", "Grace", ""]]
    rows = UserMetadata.read(written(tmp_path, "\n".join(delimiter.join(line) for line in lines) + "\n\n"))
    assert json.loads(rows.find("1.jpg")["metadata"]) == {"note": 'a, b; c\td "e"\nsecond line'}
    assert rows.find("2.jpg") == {"author": "Grace"}


def test_all_formats_say_the_same(tmp_path):
    entries = [{"file": f"{i}.jpg", "license": "CC0", "author": f"author {i}", "tags": "tree"} for i in range(5)]
    table = "file,license,author,tags\n" + "".join(",".join(entry.values()) + "\n" for entry in entries)
    by_name = {entry["file"]: {key: value for key, value in entry.items() if key != "file"} for entry in entries}
    paths = [
        written(tmp_path, table),
        written(tmp_path, table.replace(",", "\t"), "metadata.tsv"),
        written(tmp_path, json.dumps(entries), "list.json"),
        written(tmp_path, json.dumps(by_name), "mapping.json"),
        written(tmp_path, "\n".join(map(json.dumps, entries)) + "\n\n", "lines.jsonl"),
    ]
    for path in paths:
        rows = UserMetadata.read(path)
        assert [rows.find(f"{i}.jpg") for i in range(5)] == [
            {
                "license_text": "CC0",
                "license": "CC0-1.0",
                "license_from": "metadata",
                "author": f"author {i}",
                "metadata": '{"tags": "tree"}',
            }
            for i in range(5)
        ]


def test_values_of_json_that_are_no_text(tmp_path):
    entry = {
        "name": 17,
        "author": ["Ada", "Grace"],
        "date": 1843,
        "album": None,
        "credit": float("nan"),
        "score": 0.5,
        "a": {"b": [1]},
    }
    found = UserMetadata.read(written(tmp_path, json.dumps([entry]), "m.json")).find("17.jpg")
    assert json.loads(found.pop("metadata")) == {"score": 0.5, "a": {"b": [1]}}
    assert found == {"author": "Ada; Grace", "date": "1843"}


def test_coordinates_are_never_copied(tmp_path):
    entry = {
        "name": "1.jpg",
        "latitude": 47.37,
        "Lon": "8.54",
        "exif": {"GPSLatitude": "47.37", "iso": 100},
        "location": "Zürich",
    }
    found = UserMetadata.read(written(tmp_path, json.dumps([entry]), "m.json")).find("1.jpg")
    assert found["has_gps"] is True
    assert json.loads(found["metadata"]) == {"exif": {"iso": 100}, "location": "Zürich"}
    rows = UserMetadata.read(written(tmp_path, "path,latitude,longitude\n1.jpg,,\n2.jpg,1,2\n"))
    assert (rows.find("1.jpg"), rows.find("2.jpg")) == ({}, {"has_gps": True})


def test_a_license_and_its_address_are_read_together(tmp_path):
    table = (
        "path,license,license_url\n1.jpg,CC BY,http://creativecommons.org/licenses/by/2.0/\n2.jpg,CC BY,\n3.jpg,mine,\n"
    )
    rows = UserMetadata.read(written(tmp_path, table))
    assert [rows.find(f"{i}.jpg")["license"] for i in (1, 2, 3)] == ["CC-BY-2.0", "LicenseRef-CC-BY-unversioned", None]


def test_a_reservation_in_the_table(tmp_path):
    rows = UserMetadata.read(written(tmp_path, "path,opt_out\n1.jpg,yes\n2.jpg,False\n3.jpg,\n"))
    assert [rows.find(f"{i}.jpg") for i in (1, 2, 3)] == [{"optout": "metadata: yes"}, {}, {}]


@pytest.mark.parametrize(
    ("names", "path", "row"),
    [
        (["a/1.jpg", "b/1.jpg"], "a/1.jpg", 0),
        (["a/1.jpg", "b/1.jpg"], "./b/1.jpg", 1),
        (["a\\1.jpg", "b\\1.jpg"], "b/1.jpg", 1),
        (["1.jpg", "2.jpg"], "a/b/2.jpg", 1),  # the base name
        (["/home/ada/photos/a/1.jpg", "/home/ada/photos/b/1.jpg"], "b/1.jpg", 1),  # another start
        (["a/1.jpg", "b/1.jpg"], "photos/b/1.jpg", 1),
        (["a/1.jpg", "b/1.jpg"], "1.jpg", None),  # two
        (["1.jpg", "b/1.jpg"], "a/b/1.jpg", None),
        (["a/1.jpg"], "b/1.jpg", None),  # another folder
        (["a/11.jpg"], "1.jpg", None),  # not from a folder on
        (["1.jpg", "x/1.jpg"], "1.jpg", 0),  # the very path
        (["00ff", "00fe"], "00/00fe.jpg", 1),  # without an extension
        (["1.png"], "1.jpg", None),
        (["Zo\u00eb.jpg"], "Zoe\u0308.jpg", 0),  # composed and decomposed
    ],
)
def test_which_row_is_for_which_image(tmp_path, names, path, row):
    entries = [{"path": name, "author": str(number)} for number, name in enumerate(names)]
    rows = UserMetadata.read(written(tmp_path, json.dumps(entries), "m.json"))
    assert rows.find(path) == (None if row is None else {"author": str(row)})


def test_many_rows_against_a_plain_search(tmp_path):
    generator = random.Random(0)
    names = {"/".join(generator.choice("abc") for _ in range(generator.randrange(1, 5))) for _ in range(60)}
    entries = [{"path": name, "author": name} for name in names]
    path = written(tmp_path, json.dumps(entries), "m.json")
    for _ in range(400):
        wanted = "/".join(generator.choice("abc") for _ in range(generator.randrange(1, 6)))
        fitting = [name for name in names if f"/{name}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{name}")]
        expected = wanted if wanted in names else fitting[0] if len(fitting) == 1 else None
        found = UserMetadata.read(path).find(wanted)
        assert (found and found["author"]) == expected


def test_a_row_is_for_one_image(tmp_path):
    rows = UserMetadata.read(written(tmp_path, "path,author\n1.jpg,Ada\n"))
    assert rows.find("a/1.jpg") == rows.find("a/1.jpg") == {"author": "Ada"}
    with pytest.raises(CurationError, match=r"line 2: '1\.jpg' fits more than one image, b/1\.jpg among them"):
        rows.find("b/1.jpg")


def test_rows_that_no_image_had(tmp_path):
    rows = UserMetadata.read(written(tmp_path, "path,author\n" + "".join(f"{i}.jpg,Ada\n" for i in range(6))))
    assert rows.find("other.jpg") is None
    with pytest.raises(
        CurationError, match=r"none of its 6 rows is for an image; .*'path' is '0\.jpg', .* image 'other\.jpg'"
    ):
        rows.check_used()
    assert rows.unmatched() == (6, ["0.jpg", "1.jpg", "2.jpg"])
    rows.find("1.jpg")
    rows.check_used()
    assert rows.unmatched() == (5, ["0.jpg", "2.jpg", "3.jpg"])


def test_the_column_of_the_image(tmp_path):
    path = written(tmp_path, "hash,photo file,author\n00ff,1.jpg,Ada\n")
    with pytest.raises(
        CurationError, match=r"has no column path, .*: say which of 'hash', 'photo file', 'author' it is"
    ):
        UserMetadata.read(path)
    with pytest.raises(CurationError, match="has no column 'sha'; it has 'hash', 'photo file', 'author'"):
        UserMetadata.read(path, "sha")
    assert UserMetadata.read(path, "photo_file").find("1.jpg")["author"] == "Ada"
    assert UserMetadata.read(path, "hash").find("00ff.jpg")["author"] == "Ada"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,author\n1.jpg,Ada\n2.jpg\n", r"m\.csv, line 3: 1 cells, but the header has 2 columns"),
        ("m.csv", "path,author\n1.jpg,a,b\n", r"m\.csv, line 2: 3 cells.*'[,]' needs quotation marks"),
        ("m.csv", 'path,author\n1.jpg,"Ada\n2.jpg,Grace\n', r"m\.csv, line 3: .*quotation mark"),
        ("m.csv", 'path,author\n1.jpg,"Ada" L\n', r"m\.csv, line 2: .*quotation mark"),
        (
            "m.csv",
            'path,note\n1.jpg,"' + "a\n" * 40_000 + '"\n',
            r"m\.csv, line 40002: 'note' has 80,000 characters; at most",
        ),
        ("m.csv", "path,note\n1.jpg,a\n2.jpg," + "a" * 300_000, r"m\.csv, line 3 has more than 262,144 bytes"),
        ("m.csv", "path,author\n1.jpg,Ada\n,Grace\n", r"m\.csv, line 3: 'path' has no name of an image"),
        ("m.csv", "path,author,author\n", "two columns 'author'"),
        ("m.csv", "path,author\n", "has no rows"),
        ("m.csv", "", "has no column path"),
        ("m.csv", b"path,author\n1.jpg,Ada\n2.jpg,Zo\xeb\n", r"m\.csv, line 3 is not UTF-8"),
        ("m.csv", "path,author\n1.jpg,Ada\n".encode("utf-16"), r"m\.csv, line 1 is not UTF-8"),
        (
            "m.csv",
            "path,author\n1.jpg,A\n2.jpg,A\n./1.jpg,B\n",
            r"m\.csv, line 4: '1\.jpg' has a different row in line 2",
        ),
        ("m.json", "{", "is no JSON"),
        ("m.json", '{"a": 1}', "the value of 'a' is no mapping"),
        ("m.json", '"a"', "is neither a list"),
        ("m.json", '[{"path": "a"}, 3]', "entry 2 is no mapping"),
        ("m.json", '[{"path": "a"}, {"file": "b"}]', "entry 2: 'path' has no name of an image"),
        ("m.json", '[{"path": "a", "b": 1}, {"path": "a", "b": 2}]', "entry 2: 'a' has a different row in entry 1"),
        ("m.json", '[{"path": true}]', "entry 1: 'path' has no name of an image"),
        ("m.json", "[" * 100 + "]" * 100, "nested"),
        ("m.json", "[]", "has no rows"),
        ("m.jsonl", '{"path": "a"}\n{"path": \n', "line 2 is no JSON"),
        ("m.jsonl", '{"path": "a"}\n[]\n', "line 2 is no mapping"),
        ("m.jsonl", '{"path": "a"}\n' + " " * 300_000, "line 2 has more than 262,144 bytes"),
        ("m.xlsx", "", r"is read from a \.csv, \.tsv, \.json or \.jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, text, message):
    with pytest.raises(CurationError, match=message) as error:
        UserMetadata.read(written(tmp_path, text, name))
    assert str(tmp_path / name) in str(error.value)


def test_equal_rows_of_an_image_are_one(tmp_path):
    rows = UserMetadata.read(written(tmp_path, "path,author\n1.jpg,Ada\n2.jpg,Ada\n1.jpg,Ada\n"))
    assert rows.find("1.jpg") == {"author": "Ada"}
    assert rows.unmatched() == (1, ["2.jpg"])


def test_files_that_are_none(tmp_path):
    with pytest.raises(CurationError, match="there is no file"):
        UserMetadata.read(tmp_path / "m.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CurationError, match=r"folder\.csv is a folder"):
        UserMetadata.read(tmp_path / "folder.csv")
    for name in ("large.csv", "large.json", "large.jsonl"):
        with (tmp_path / name).open("wb") as file:
            os.truncate(file.fileno(), 2**31 + 1)
        with pytest.raises(CurationError, match="larger than"):
            UserMetadata.read(tmp_path / name)
    written(tmp_path, "path,author\n1.jpg,Ada\n", "real.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    assert len(UserMetadata.read(tmp_path / "link.csv")) == 1  # the user's own file may be a link
