"""Attribution and reasons as CSV: which columns, and no cell that a program for tables would run."""

import csv
from pathlib import Path

import pytest

from wildfern.ssl.curation.attribution import UNCHANGED, write_attribution, write_rejected

ROW = {
    "path": "a/1.jpg",
    "sha256": "00ff",
    "author": 'Ada "L.", London',
    "license": "CC-BY-2.0",
    "license_text": "CC BY 2.0",
    "rights": "© Ada",
    "source_url": "https://example.org/1",
    "date": "2015-06",
    "credit": None,
    "metadata": '{"title": "A tree", "note": "x"}',
    "decision": "keep",
    "reasons": [],
    "width": 7,
}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_attribution(tmp_path):
    path = tmp_path / "attribution.csv"
    unknown = {**ROW, "path": "2.jpg", "license": None, "metadata": None, "author": None, "license_text": "ask me"}
    assert write_attribution(path, iter([ROW, unknown])) == 2
    first, second = read(path)
    assert first == {
        "path": "a/1.jpg",
        "sha256": "00ff",
        "title": "A tree",
        "author": 'Ada "L.", London',
        "license": "CC-BY-2.0",
        "license_url": "https://creativecommons.org/licenses/by/2.0/",
        "license_text": "CC BY 2.0",
        "rights": "© Ada",
        "source_url": "https://example.org/1",
        "date": "2015-06",
        "credit": "",
        "changes": UNCHANGED,
    }
    assert (second["license"], second["license_url"], second["license_text"]) == ("", "", "ask me")
    assert (second["title"], second["author"]) == ("", "")
    write_attribution(path, [ROW], changes="faces blurred")
    assert [row["changes"] for row in read(path)] == ["faces blurred"]
    assert [one.name for one in tmp_path.iterdir()] == ["attribution.csv"]


def test_a_line_for_each_reason(tmp_path):
    path = tmp_path / "rejected.csv"
    reasons = [
        {"rule": "tiny", "action": "reject", "value": -16.5, "detail": "16 pixels"},
        {"rule": "page", "action": "keep", "value": 0.9, "detail": ""},
        {"rule": "dark", "action": "review", "value": None, "detail": "=1+1"},
    ]
    rows = [ROW, {**ROW, "decision": "reject", "reasons": reasons}, {**ROW, "decision": "review", "reasons": None}]
    assert write_rejected(path, rows) == 3
    assert [[row[key] for key in ("decision", "rule", "value", "detail")] for row in read(path)] == [
        ["reject", "tiny", "-16.5", "16 pixels"],
        ["reject", "dark", "", "'=1+1"],
        ["review", "", "", ""],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@a",
        "\ta",
        "\ra",
        "\na",
        "  =1",
        "＝1",
        "'=1",
        "'a",
        '=HYPERLINK("x")',
        "=cmd|' /C calc'!A0",
    ],
)
def test_no_cell_is_a_formula_and_each_can_be_read_back(tmp_path, text):
    path = tmp_path / "attribution.csv"
    write_attribution(path, [{**ROW, "path": text, "author": text}])
    (row,) = read(path)
    assert row["path"] == row["author"] == f"'{text}"
    assert row["path"][1:] == text
    assert path.read_text(encoding="utf-8").splitlines()[0].startswith("path,sha256,title,author,license,license_url")


@pytest.mark.parametrize("text", ["a=1", "1-2", "Ada's", "", "a\nb"])
def test_other_cells_are_as_they_are(tmp_path, text):
    write_attribution(tmp_path / "attribution.csv", [{**ROW, "author": text}])
    assert read(tmp_path / "attribution.csv")[0]["author"] == text


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "attribution.csv"
    path.write_text("former")

    def failing():
        yield ROW
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_attribution(path, failing())
    assert path.read_text() == "former"
    assert [one.name for one in tmp_path.iterdir()] == ["attribution.csv"]
