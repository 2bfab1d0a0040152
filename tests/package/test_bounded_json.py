"""JSON within limits: plain values, or ValueError and nothing else."""

import math

import pytest

from wildfern.bounded_json import MOST_DEPTH, parse_json, read_json


def test_plain_values_are_read():
    assert parse_json(b'{"a": [1, -2.5, null, true, "\xc3\xa4"]}') == {"a": [1, -2.5, None, True, "ä"]}
    assert math.isnan(parse_json("NaN"))
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH) is not None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        "{",
        "[1,]",
        "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
        "[" * 100_000,
        "[" * 60_000 + "]" * 60_000,
        '{"a":' * 60_000,
        r'{"token": "\ud800"}',
        r'{"\udfff": 1}',
        "9" * 5000,
        str(2**64),
        f'{{"step": -{2**70}}}',
    ],
)
def test_everything_else_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


def test_a_file_is_read_within_its_limit(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_json(tmp_path / "a.json", 4)
