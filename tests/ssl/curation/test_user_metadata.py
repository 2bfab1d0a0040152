"""The user's table of licenses and authors: which columns, which row for which image, and each way it can be wrong."""

import json
import os
import random
from pathlib import Path

import pytest

from wildfern.ssl.curation.manifest import SCHEMA, CurationError
from wildfern.ssl.curation.row_license import FLICKR
from wildfern.ssl.curation.spdx import LICENSES, license_id
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


def license_of(tmp_path: Path, **cells: object) -> tuple[str | None, str | None]:
    path = written(tmp_path, json.dumps([{"path": "1.jpg", **cells}]), "m.json")
    found = UserMetadata.read(path).find("1.jpg")
    return found.get("license"), found.get("license_text")


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("by", "2.0", "CC-BY-2.0"),
        ("by-nc", "2.0", "CC-BY-NC-2.0"),
        ("by-nc-sa", "4.0", "CC-BY-NC-SA-4.0"),
        ("cc0", "1.0", "CC0-1.0"),
        ("pdm", "1.0", "CC-PDM-1.0"),
        ("BY-ND", 3.0, "CC-BY-ND-3.0"),
        ("by-sa", 2, "CC-BY-SA-2.0"),
        ("by", "4.0 International", "CC-BY-4.0"),
        ("Attribution-ShareAlike License", "2.0", "CC-BY-SA-2.0"),
        ("CC BY 2.0", "2", "CC-BY-2.0"),
        ("MIT", "1", "MIT"),
        ("Apache", "2.0", "Apache-2.0"),
        ("by", None, "LicenseRef-CC-BY-unversioned"),
        ("by-nc-nd", None, "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("by", "5.0", None),
        ("CC BY 2.0", "4.0", None),
        ("CC BY 2.0", "not for commercial use", None),
        ("by", "2.0, not for commercial use", None),
    ],
)
def test_a_version_in_a_column_of_its_own_belongs_to_the_license(tmp_path, code, version, name):
    found, text = license_of(tmp_path, license=code, license_version=version)
    assert found == name
    assert text.startswith(code)
    assert version is None or str(version) in text


def test_a_row_of_openverse(tmp_path):
    row = {
        "path": "1.jpg",
        "license": "by-nc",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-nc/2.0/",
        "url": "https://live.staticflickr.com/1.jpg",
        "foreign_landing_url": "https://www.flickr.com/photos/ada/1",
        "creator": "Ada",
    }
    table = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
    found = UserMetadata.read(written(tmp_path, table)).find("1.jpg")
    assert json.loads(found.pop("metadata")) == {"url": row["url"]}
    assert found == {
        "license": "CC-BY-NC-2.0",
        "license_text": "by-nc 2.0 https://creativecommons.org/licenses/by-nc/2.0/",
        "license_from": "metadata",
        "source_url": row["foreign_landing_url"],
        "author": "Ada",
    }


def test_the_address_of_a_license_gives_the_version_unless_another_column_gives_another(tmp_path):
    address = "https://creativecommons.org/licenses/by/2.0/"
    for code in ("by", "CC BY", "Attribution License"):
        assert license_of(tmp_path, license=code, license_url=address)[0] == "CC-BY-2.0"
    assert license_of(tmp_path, licence="by", Licence_URL=address, LicenceVersion="2.0")[0] == "CC-BY-2.0"
    assert license_of(tmp_path, license_url=address.replace("2.0/", ""), license_version="2.0")[0] == "CC-BY-2.0"
    assert license_of(tmp_path, license="by", license_version="4.0", license_url=address)[0] is None
    assert license_of(tmp_path, license="by-nc", license_url=address)[0] is None
    assert license_of(tmp_path, license="CC BY 4.0", license_name="MIT")[0] is None


def test_a_version_without_a_license_is_kept_as_it_is(tmp_path):
    rows = UserMetadata.read(written(tmp_path, "path,license,license_version\n1.jpg,,2.0\n"))
    assert rows.find("1.jpg") == {"metadata": '{"license_version": "2.0"}'}


def test_the_numbers_of_flickr():
    """Names as flickr.photos.licenses.getInfo gives them; those of version 4.0 have their version in the name."""
    names = [
        *("All Rights Reserved", "CC BY-NC-SA 2.0", "CC BY-NC 2.0", "CC BY-NC-ND 2.0", "CC BY 2.0", "CC BY-SA 2.0"),
        *("CC BY-ND 2.0", "No known copyright restrictions", "United States Government Work"),
        *("Public Domain Dedication (CC0)", "Public Domain Mark"),
        *("CC BY 4.0", "CC BY-SA 4.0", "CC BY-ND 4.0", "CC BY-NC 4.0", "CC BY-NC-SA 4.0", "CC BY-NC-ND 4.0"),
    ]
    assert {str(n): license_id(name) for n, name in enumerate(names)} == FLICKR
    assert set(FLICKR.values()) <= set(LICENSES)


@pytest.mark.parametrize("column", ["flickr_license", "license_flickr", "Flickr License ID", "flickr-licence"])
def test_a_number_in_a_column_of_flickr_is_its_license(tmp_path, column):
    assert license_of(tmp_path, **{column: 4}) == ("CC-BY-2.0", "Flickr license 4")
    assert license_of(tmp_path, **{column: "11"}) == ("CC-BY-4.0", "Flickr license 11")
    assert license_of(tmp_path, **{column: "0"})[0] == "LicenseRef-all-rights-reserved"
    assert license_of(tmp_path, **{column: 9.0})[0] == "CC0-1.0"  # a column with empty cells, as pandas writes it
    assert license_of(tmp_path, **{column: "17"}) == (None, "Flickr license 17")
    assert license_of(tmp_path, **{column: "CC BY 2.0"}) == ("CC-BY-2.0", "CC BY 2.0")


@pytest.mark.parametrize(
    ("page", "known"),
    [
        ("https://www.flickr.com/photos/ada/1", True),
        ("http://flickr.com/photos/ada/1", True),
        ("flickr.com/photos/ada/1", True),
        ("", False),
        ("https://example.org/1", False),
        ("https://farm1.staticflickr.com/1.jpg", False),  # as COCO has them
        ("https://notflickr.com/1", False),
        ("https://flickr.com.example.org/1", False),
        ("https://example.org/flickr.com/1", False),
        ("https://flickr.com:80@example.org/1", False),
    ],
)
def test_other_numbers_are_licenses_only_of_images_on_flickr(tmp_path, page, known):
    number = ("CC-BY-NC-SA-2.0", "Flickr license 1") if known else (None, "1")
    assert license_of(tmp_path, license="1", source_url=page) == number
    assert license_of(tmp_path, license=1, page_url=page) == number
    assert license_of(tmp_path, license="2.0", source_url=page) == (None, "2.0")  # a version


def test_a_number_of_flickr_beside_a_name_or_an_address(tmp_path):
    address = "https://creativecommons.org/licenses/{}/2.0/"
    found = [
        license_of(tmp_path, flickr_license="4", license="Attribution License"),
        license_of(tmp_path, flickr_license="4", license_url=address.format("by")),
        license_of(tmp_path, flickr_license="4", license_version="2.0"),
        license_of(tmp_path, flickr_license="4", license="see Flickr"),
        license_of(tmp_path, flickr_license="4", license_url=address.format("by-nc")),
        license_of(tmp_path, flickr_license="4", license="not for commercial use"),
    ]
    assert [one for one, _ in found] == ["CC-BY-2.0"] * 4 + [None] * 2
    assert found[0][1] == "Attribution License Flickr license 4"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["path"], "image from path"),
        (["path", "lizenz", "tags"], "image from path; other columns: lizenz, tags"),
        (
            ["tags", "creator", "File Name", "lizenz", "License Name"],
            "image from File Name, license from License Name, author from creator; other columns: tags, lizenz",
        ),
        (
            ["path", "license_url", "license", "license_version", "username", "creator", "lat", "Title"],
            "image from path, license from license and license_version and license_url, author from creator or username, "
            "title from Title, has_gps from lat",
        ),
        (["path", "lizenz", "license_version"], "image from path; other columns: lizenz, license_version"),
        (["path", "name", "file"], "image from path; other columns: name, file"),
        (
            ["path", *(f"column{n}" for n in range(12))],
            "image from path; other columns: " + ", ".join(f"column{n}" for n in range(10)) + ", …",
        ),
        (
            [
                "path",
                "author",
                "creator",
                "artist",
                "url",
                "date",
                "album",
                "rights",
                "credit",
                "optout",
                "license",
                "x",
            ],
            "image from path, license from license, author from author or creator or artist, source_url from url, "
            "date from date, album from album, rights from rights, credit from credit, …; other columns: x",
        ),
        (
            ["path", "a" * 100, "b\x1b[31m\u202e"],
            "image from path; other columns: " + "a" * 40 + r", b\x1b[31m\u202e",
        ),
    ],
)
def test_which_columns_were_understood(tmp_path, columns, words):
    cells = [f"{n}" for n in range(len(columns))]
    table = written(tmp_path, ",".join(columns) + "\n" + ",".join(cells) + "\n")
    entries = written(tmp_path, json.dumps([dict(zip(columns, cells, strict=True))]), "m.json")
    assert UserMetadata.read(table).columns_words == UserMetadata.read(entries).columns_words == words
    assert words.isprintable()


def test_columns_of_mappings_are_those_of_all_rows(tmp_path):
    entries = [
        {"path": "1.jpg", "author": "Ada"},
        {"path": "2.jpg", "lizenz": "CC0"},
        {"path": "3.jpg", "author": None},
    ]
    rows = UserMetadata.read(written(tmp_path, "\n".join(map(json.dumps, entries)), "m.jsonl"))
    assert rows.columns_words == "image from path, author from author; other columns: lizenz"
    rows = UserMetadata.read(written(tmp_path, '{"1.jpg": {"author": "Ada"}, "2.jpg": {"tags": []}}', "m.json"))
    assert rows.columns_words == "author from author; other columns: tags"
    assert UserMetadata.read(written(tmp_path, '{"1.jpg": {}}', "m.json")).columns_words == "no columns"
    many = [{"path": f"{n}.jpg", **{f"{n} {m}": 1 for m in range(100)}} for n in range(50)]
    words = UserMetadata.read(written(tmp_path, json.dumps(many), "m.json")).columns_words
    assert words.endswith("0 8, 0 9, …")


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


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf[{"path": "a.jpg", "author": "Ada"}]')
    assert UserMetadata.read(tmp_path / "a.json").find("a.jpg") == {"author": "Ada"}


def test_rows_that_fit_by_the_name_of_the_file_alone_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("path,author\nalbum/1.png,Ada\nalbum/2.png,Ada\n3.png,Eva\n")
    found = UserMetadata.read(tmp_path / "a.csv")
    assert found.find("album/2.png") == found.find("1.png") == found.find("1.png") == {"author": "Ada"}
    assert found.find("deep/3.png") == {"author": "Eva"}
    assert found.by_name_alone == 1


@pytest.mark.parametrize("column", ["coords", "LatLon", "Latitude (deg)", "GPS position", "lng", "geo_coordinates"])
def test_columns_of_coordinates_are_not_copied(tmp_path, column):
    (tmp_path / "a.csv").write_text(f"path,{column},place\n1.png,52.5 13.4,Berlin\n")
    assert UserMetadata.read(tmp_path / "a.csv").find("1.png") == {"has_gps": True, "metadata": '{"place": "Berlin"}'}
