"""One line of a log: what is found without parsing it is what parsing it finds."""

import math
import random

import pytest

from wildfern.bounded_json import parse_json
from wildfern.ssl.tracking import JsonLines
from wildfern.ssl.tracking.json_line import last_lines, record_of, step_of

LINES = [
    b'{"step": 12, "loss": -0.25, "rate": 1e-05, "big": 1.5e+300, "digits/knn": 0.5}\n',
    b'{"step": 0, "loss": "nan", "done": true, "none": null, "count": 18446744073709551615}\n',
    b'{"step": 3, "text": "a \\"quoted\\" {brace} [bracket]", "\xce\xb1": 2}\n',
    b'{"step": 1, "step": 7, "a": {"b": [1, 2]}}\n',
    b'{"note": "by hand"}\n',
    b'"x{"\n',
]
INSERTED = (*b'{}[]",:\\-+.eE0159 \n\r\t\0\xff\xce', ord("n"), ord("t"), ord("s"))


def plainly_read(line):
    """The record in a line or what is wrong with it, by its definition."""
    try:
        record = parse_json(line)
    except ValueError as error:
        return f"is not a JSON object ({error})" if line.endswith(b"\n") else None
    if not isinstance(record, dict):
        return f"is not a JSON object ({type(record).__name__} instead of an object)"
    if "step" in record and (type(record["step"]) is not int or record["step"] < 0):
        return "has a step that is not a whole number from 0 on"
    return record


def changed(line, rng):
    """The line with a few bytes changed, removed or inserted."""
    content = bytearray(line)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(content) + 1)
        content[place : place + rng.choice((0, 1, 1, 3))] = bytes(rng.choices(INSERTED, k=rng.randrange(3)))
    return bytes(content)


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_lines_and_what_becomes_of_them_read_as_if_each_were_parsed(line):
    rng = random.Random(line)
    steps = []
    for one in [line, line[:-1], *(changed(line, rng) for _ in range(600))]:
        expected = plainly_read(one)
        found = record_of(one)
        assert repr(found) == repr(expected), one
        step = step_of(one)
        assert step == (expected.get("step", -1) if isinstance(expected, dict) else expected), one
        steps.append(step)
    assert any(isinstance(step, str) for step in steps)


@pytest.mark.parametrize(
    "digits", ["9" * 18, "9" * 19, "18446744073709551615", "18446744073709551616", "9" * 5000, "007"]
)
@pytest.mark.parametrize(
    "form", ['{"step": %s}\n', '{"step": 1, "a": %s}\n', '{"step": 1, "a": %s.5}\n', '{"a": -%s}\n']
)
def test_long_numbers_read_alike(form, digits):
    line = (form % digits).encode()
    expected = plainly_read(line)
    assert record_of(line) == expected
    assert step_of(line) == (expected.get("step", -1) if isinstance(expected, dict) else expected)


def test_lines_that_are_written_need_no_parsing(tmp_path, monkeypatch):
    with JsonLines(tmp_path / "a") as lines:
        lines.write(
            {"step": 3, "loss": 0.1 + 0.2, "rate": 1e-5, "huge": 1e300, "count": -7, "flag": True, "none": None}
        )
        lines.write({"step": 10**17, "digits/knn": math.nan, "tiny": 5e-324})
    monkeypatch.setattr("wildfern.ssl.tracking.json_line.record_of", lambda line: pytest.fail("parsed"))
    assert [step_of(line) for line in lines.path.open("rb")] == [3, 10**17]


def test_a_line_that_is_too_long_is_damaged():
    assert step_of(None) == record_of(None) == "is longer than 1,048,576 bytes"


@pytest.mark.parametrize("end", [b"", b"incomplete"])
def test_the_last_lines_are_those_that_begin_in_the_last_bytes(tmp_path, end):
    path, lines = tmp_path / "log", [b"a\n", b"\n", b"longer\n", b"two\n", *([end] * bool(end))]
    content = b"".join(lines)
    path.write_bytes(content)
    starts = [sum(map(len, lines[:place])) for place in range(len(lines))]
    for most in range(1, len(content) + 3):
        expected = [line for start, line in zip(starts, lines, strict=True) if start >= len(content) - most]
        assert list(last_lines(path, most)) == expected
    assert list(last_lines(path)) == lines
