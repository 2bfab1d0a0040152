"""Reports of run folders that are damaged or come from a stranger: a page with remarks, bounded, with everything escaped."""

import json
import os
import struct
import zlib

import pytest

from wildfern.ssl.evaluation import read_run, write_report
from wildfern.ssl.evaluation import run_record as record_module
from wildfern.ssl.evaluation.report import series as series_module
from wildfern.ssl.evaluation.report.png import SIGNATURE

DEEP = "[" * 100_000
HOSTILE = "</pre><script>alert(1)</script>\"'&\\g<0>\\d"
ROW = {"dataset": "digits", "protocol": "knn", "backbone": "random", "metric": "accuracy", "value": 0.5}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int = 1, height: int = 1) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return SIGNATURE + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def page_of(folder, **files) -> tuple[str, tuple[str, ...]]:
    """The page about a folder with these files, and the remarks about what is in it."""
    (folder / "recipe.yaml").write_text("name: fern\n")
    for name, content in files.items():
        path = folder / name.replace("_", ".", 1)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    record = read_run(folder)
    page = write_report([record], folder / "report.html").read_text()
    assert "<script>" not in page
    assert "alert(1)</script" not in page
    assert len(page) < 2_000_000
    return page, tuple(remark for remark in record.remarks if not remark.startswith("no "))


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        ("", "recipe.yaml cannot be read: it must be a mapping of sections"),
        ("[]", "recipe.yaml cannot be read: it must be a mapping of sections"),
        ("a: [", "recipe.yaml cannot be read: not valid YAML"),
        (b"a: \xff", "recipe.yaml cannot be read: 'utf-8' codec can't decode byte 0xff"),
        ("a: 1\0", "recipe.yaml cannot be read: not valid YAML: unacceptable character"),
        ('name: "\\ud800"', "recipe.yaml cannot be read: line 1: a text with the character U+D800"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nc: [" + "*b, " * 5000 + "]",
            "recipe.yaml cannot be read: more than 10000 values",
        ),
        (f"name: {DEEP}", "recipe.yaml cannot be read: nested more than 30 levels deep"),
        ("x" * 1_000_001, "recipe.yaml cannot be read: is larger than 1,000,000 bytes"),
        ("extends: /etc/passwd", None),
        (f"name: {json.dumps(HOSTILE)}", None),
    ],
)
def test_recipes(tmp_path, content, remark):
    page, remarks = page_of(tmp_path, recipe_yaml=content)
    assert [one[: len(remark or "")] for one in remarks] == ([remark] if remark else [])
    assert "root:" not in page


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        ("", "environment.json cannot be read: Expecting value"),
        ("[]", "environment.json cannot be read: it must be a mapping"),
        ("{", "environment.json cannot be read: Expecting property name"),
        (DEEP, "environment.json cannot be read: nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "environment.json cannot be read: Exceeds the limit"),
        ('{"a": "' + "x" * 2**20 + '"}', "environment.json cannot be read: is larger than 1,048,576 bytes"),
        (json.dumps({HOSTILE: HOSTILE, "b": [HOSTILE, {HOSTILE: 1}], "plugins": [3, None, {}], "weights": 3}), None),
        (json.dumps({f"k{n}": n for n in range(50_000)}), None),
        (json.dumps({"x" * 500_000: {f"{n}": n for n in range(20_000)}}), None),
        (json.dumps({"a": list(range(100_000)), "b": "\x00\x1b\u202e"}), None),
    ],
)
def test_environments(tmp_path, content, remark):
    page, remarks = page_of(tmp_path, environment_json=content)
    assert [one[: len(remark or "")] for one in remarks] == ([remark] if remark else [])
    assert not set("\x00\x1b\u202e") & set(page)


@pytest.mark.parametrize(
    ("lines", "remark"),
    [
        (['{"step": "1", "loss": 1}'], "1 unreadable line left out"),
        (
            ['{"step": NaN}', '{"step": 1e400}', '{"step": -1}', '{"step": true}', '{"step": 1.5}'],
            "5 unreadable lines left out",
        ),
        (['{"step": 1180591620717411303424}', "[1]", "null", '"text"', "{", "\0\0"], "6 unreadable lines left out"),
        ([DEEP, '{"step": 1, "a": ' + "9" * 5000 + "}", '{"step": 1, "a": "\\ud800"}'], "3 unreadable lines left out"),
        (['{"step": 1, "loss": "' + "x" * 2**20 + '"}'], "1 unreadable line left out"),
        (
            ['{"step": 1, "loss": NaN, "a": 1e400, "b": -1e308, "c": true, "d": [1], "e": "x"}'],
            "3 values NaN or infinite",
        ),
        ([json.dumps({"step": 1, **{f"k{n}": n for n in range(101)}})], "keys after the first 100 are left out"),
        ([json.dumps({"step": 9_007_199_254_740_991, HOSTILE: 1e100, "b": 5e-324}), '{"step": 0, "b": -1e100}'], None),
        ([json.dumps({"step": 2**53, "a": 1})], "1 unreadable line left out"),
    ],
)
@pytest.mark.parametrize("name", ["metrics_jsonl", "timings_jsonl"])
def test_lines(tmp_path, monkeypatch, lines, remark, name):
    monkeypatch.setattr("wildfern.ssl.evaluation.report.training.MOST_CHARTS", 3)
    _, remarks = page_of(tmp_path, **{name: "\r\n".join([*lines, '{"step": 3, "x": 0.25}', ""])})
    assert remarks == ((f"{name.replace('_', '.')}: {remark}",) if remark else ())
    record = read_run(tmp_path)
    found = {**record.metrics, **record.timings}
    assert "x" not in found if len(found) == 100 else found["x"].values == [0.25]


def test_many_points_are_thinned_and_the_last_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(series_module, "MOST_POINTS", 100)
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f'{{"step": {n}, "loss": {n}}}\n' for n in [*range(1000), *range(500)])
    )
    record = read_run(tmp_path)
    assert record.remarks[-1] == "metrics.jsonl: more than 100 points of a key are thinned"
    loss = record.metrics["loss"]
    assert len(loss.steps) < 100
    assert loss.steps == loss.values == sorted(set(loss.steps))
    assert loss.steps[-1] == 999


def test_no_more_than_the_limit_of_bytes_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(series_module, "MOST_BYTES", 50)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n' * 3)
    record = read_run(tmp_path)
    assert record.remarks[-1] == "metrics.jsonl: only the first 50 bytes are read"
    assert record.metrics["loss"].values == [2.0]


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (b"root:x:0:0", "it is not a PNG image"),
        (b"", "it is not a PNG image"),
        (SIGNATURE + b"root:x:0:0", "it is a damaged PNG image"),
        (png()[:-6], "it is a damaged PNG image"),
        (png().replace(b"IDAT", b"IDAX"), "it is a damaged PNG image"),
        (png() + b"root:x:0:0", "it has more behind the PNG image"),
        (png(100_000, 100_000), "it has 100000 × 100000 pixels, more than 100,000,000"),
        (png(0, 1), "it is a damaged PNG image"),
        (png(), None),
    ],
)
def test_views_are_embedded_only_if_they_are_a_png(tmp_path, content, remark):
    page, remarks = page_of(tmp_path, views_png=content)
    assert remarks == ((f"views.png cannot be read: {remark}",) if remark else ())
    assert ("data:image/png" in page) == (remark is None)


def test_an_image_over_the_limit_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "MOST_IMAGE", 20)
    assert page_of(tmp_path, views_png=png())[1] == (
        "views.png cannot be read: is larger than 20 bytes, the limit for a file of its kind",
    )


@pytest.mark.parametrize(
    ("stored", "remark"),
    [
        (None, "must be a mapping, got null"),
        ("text", "must be a mapping, got a text"),
        ({"rows": 1}, "rows must be a list, got a number"),
        ({"rows": [1, ROW, ROW | {"value": "x"}]}, "rows.0 must be a mapping, got a number (2 rows left out)"),
        ({"rows": [ROW], "protocols": [1]}, "protocols must be a mapping of names to texts, got a list"),
        ({"rows": [ROW], "notes": {"digits": "text"}}, "notes.'digits' must be a list of texts, got a text"),
        (
            {"rows": [ROW], "baseline": {"a": {}}},
            "baseline must be a name, or a mapping of names to names, got a mapping",
        ),
        ({"rows": [ROW | {"value": float("nan"), "low": float("inf"), "high": float("nan")}]}, None),
        (
            {
                "rows": [
                    ROW | {"value": 1e308, "share": False},
                    ROW | {"backbone": "b", "value": -1e308, "share": False},
                ]
            },
            None,
        ),
        (
            {
                "rows": [
                    dict.fromkeys(ROW, HOSTILE)
                    | {"value": 1, "detail": HOSTILE, "test_split": HOSTILE, "test_images": 1}
                ]
            },
            None,
        ),
        (
            {"rows": [ROW], "notes": {"digits": [HOSTILE] * 5}, "protocols": {HOSTILE: HOSTILE}, "baseline": HOSTILE},
            None,
        ),
        ({"rows": [ROW | {"backbone": str(n)} for n in range(2000)]}, None),
        ({"rows": [ROW | {"dataset": str(n), "protocol": str(n)} for n in range(1000)]}, None),
    ],
)
def test_evaluations(tmp_path, stored, remark):
    page, remarks = page_of(tmp_path, evaluation_json=json.dumps(stored))
    assert remarks == ((f"evaluation.json: {remark}",) if remark else ())
    if isinstance(stored, dict) and stored["rows"] != 1:
        assert "Scores on test" in page


FILES = ["recipe.yaml", "environment.json", "metrics.jsonl", "timings.jsonl", "views.png", "evaluation.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_is_named_and_not_read(tmp_path, name, make):
    other = "metrics.jsonl" if name == "recipe.yaml" else "recipe.yaml"
    (tmp_path / other).write_text('{"step": 1}\n')
    make(tmp_path / name)
    remarks = read_run(tmp_path).remarks
    (remark,) = (remark for remark in remarks if remark.startswith(f"{name}"))
    assert any(kind in remark for kind in ("is a FIFO", "is a folder", "is a symbolic link"))
    assert "root:" not in write_report([tmp_path], tmp_path / "report.html").read_text()


def test_a_backbone_that_cannot_be_read_leaves_its_scores_out(tmp_path):
    os.mkfifo(tmp_path / "backbone.safetensors")
    page, (remark,) = page_of(tmp_path, evaluation_json=json.dumps({"rows": [ROW], "backbone_sha256": "0" * 64}))
    assert remark.startswith("backbone.safetensors cannot be read (is a FIFO, not a regular file), so that the scores")
    assert "Scores on test" not in page
