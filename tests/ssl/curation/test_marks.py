"""Marks as CSV: round trips, files as spreadsheets save them, and files that are refused."""

import csv

import pytest

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.marks import cell_of_path, read_marks, write_marks

A, B, C = "a" * 64, "0b" * 32, "c1" * 32


def test_round_trip_with_hostile_paths(tmp_path):
    marks = {A: "keep", B: "drop", C: "keep"}
    paths = {A: 'line\nbreak, "quoted"\r\n.jpg', B: "=cmd|' /C calc'!A0", C: "half \udc80 of a pair.png"}
    write_marks(tmp_path / "marks.csv", marks, paths)
    assert read_marks(tmp_path / "marks.csv") == marks
    content = (tmp_path / "marks.csv").read_bytes()
    assert content.startswith(b"sha256,path,mark\r\n" + A.encode() + b',"line\nbreak, ""quoted""\r\n.jpg",keep\r\n')
    with (tmp_path / "marks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [paths[A], "./" + paths[B], "half \\udc80 of a pair.png"]


def test_a_mark_without_a_known_path(tmp_path):
    write_marks(tmp_path / "marks.csv", {A: "drop"}, {})
    assert (tmp_path / "marks.csv").read_bytes() == b"sha256,path,mark\r\n" + A.encode() + b",,drop\r\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_endings_and_byte_order_mark(tmp_path, ending, start):
    lines = ["sha256,path,mark", f"{A},x.jpg,keep", "", f'"{B}","y, z.jpg","drop"', f"{A},x.jpg,drop"]
    (tmp_path / "marks.csv").write_bytes((start + ending.join(lines)).encode())
    assert read_marks(tmp_path / "marks.csv") == {A: "drop", B: "drop"}  # the last mark of an image counts


@pytest.mark.parametrize("path", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_paths_are_no_formulas(path):
    assert cell_of_path(path) == f"./{path}"
    assert cell_of_path(f"a/{path}") == f"a/{path}"


HEADER = b"sha256,path,mark\r\n"
LINE = f"{A},x.jpg,keep\r\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "marks.csv is empty"),
        (b"sha256;path;mark\r\n", "marks.csv line 1: must be sha256,path,mark"),
        (LINE, "marks.csv line 1: must be sha256,path,mark"),
        (HEADER + LINE + b"abc,x.jpg,keep\r\n", "marks.csv line 3: sha256 must be 64 digits"),
        (HEADER + LINE + A.upper().encode() + b",x.jpg,keep\r\n", "marks.csv line 3: sha256 must be 64 digits"),
        (
            HEADER + LINE + A.encode() + b",x.jpg,maybe\x1b\r\n",
            r"line 3: mark must be keep or drop, and is 'maybe\x1b'",
        ),
        (HEADER + LINE + A.encode() + b",keep\r\n", "marks.csv line 3: needs 3 cells, sha256,path,mark, and has 2"),
        (HEADER + A.encode() + b',"two\nlines",keep\r\nx,y,keep\r\n', "marks.csv line 4: sha256 must be"),
        (HEADER + LINE + A.encode() + b',"never closed,keep\r\n', "marks.csv line 3: unexpected end of data"),
        (HEADER + LINE + b"\xff\r\n", "marks.csv line 3: is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    (tmp_path / "marks.csv").write_bytes(content)
    with pytest.raises(CurationError) as caught:
        read_marks(tmp_path / "marks.csv")
    assert message in str(caught.value)


def test_missing_and_too_large_files(tmp_path, monkeypatch):
    with pytest.raises(CurationError, match=r"marks\.csv cannot be read: No such file"):
        read_marks(tmp_path / "marks.csv")
    monkeypatch.setattr("wildfern.ssl.curation.marks.MOST_BYTES", 99)
    write_marks(tmp_path / "marks.csv", {A: "keep", B: "keep"}, {})
    with pytest.raises(CurationError, match="is larger than 99 bytes"):
        read_marks(tmp_path / "marks.csv")


@pytest.mark.parametrize(("sha256", "mark"), [("abc", "keep"), (A, "maybe")])
def test_other_marks_are_not_written(tmp_path, sha256, mark):
    with pytest.raises(CurationError):
        write_marks(tmp_path / "marks.csv", {sha256: mark}, {})
    assert not (tmp_path / "marks.csv").exists()
