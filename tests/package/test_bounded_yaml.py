"""YAML that is damaged or malicious: a ValueError in one line, soon, and nothing else."""

import re
import time

import pytest

from wildfern.bounded_yaml import MOST_BYTES, parse_yaml

ALIASES = "\n".join(
    ["l0: &l0 [x, x, x, x, x, x, x, x, x]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, "more than 10000 values (aliases count each time they are used)"),
        (f"a: &x {'y' * 900_000}\nb: [{'*x, ' * 9000}]", "larger than 1 MB (aliases count each time they are used)"),
        ("x" * (MOST_BYTES + 1), "larger than 1 MB"),
        ("[" * MOST_BYTES, "nested more than 30 levels deep"),
        ("- " * (MOST_BYTES // 2), "nested more than 30 levels deep"),
        ("&a [*a]", "nested more than 30 levels deep"),
        ("[1,,", "not valid YAML"),
        (f"[{'1,' * 20_000}]", "more than 10000 values"),
        ("a: 1\na: 2", "'a' is written twice, on lines 1 and 2"),
        ("9" * 5000, "line 1: '9999"),
        ("99999999999999999999", "cannot be read as int"),
        ("1e400", "cannot be read as float"),
        ("*" + "a" * 500_000, "not valid YAML: found undefined alias 'aaaa"),
        ("%YAML " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("a\0b", "not valid YAML: unacceptable character"),
        ("a\ud800", "not valid YAML: unacceptable character"),
        ('"a\\0"', "line 1: a text with the character U+0000"),
        ('a: 1\n"\\ud800": b', "line 2: a text with the character U+D800"),
        ('"\\e[2J"', "line 1: a text with the character U+001B"),
        ('"\\UFFFFFFFF"', "not valid YAML"),
        ("!<%ff> a", "not valid YAML"),
        ("!!timestamp 2001-01-01", "line 1: the tag"),
        ("!!python/name:os.system", "line 1: the tag"),
        ("!!binary aGk=", "line 1: the tag"),
        ("!!set {a}", "line 1: the tag"),
        ("[a]: 1", "line 1: a key must be a plain name"),
        ("--- 1\n--- 2", "not valid YAML: but found another document"),
    ],
)
def test_what_is_refused_is_said_in_one_short_line(text, reason):
    began = time.process_time()
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("2001-01-01", "2001-01-01"),
        ("a: &a {x: 1}\nb: {<<: *a}", {"a": {"x": 1}, "b": {"<<": {"x": 1}}}),
        ("18446744073709551615", 2**64 - 1),
        ("on: off", {"on": "off"}),
        ("'a\n\n b'", "a\nb"),
        ("a" * MOST_BYTES, "a" * MOST_BYTES),
    ],
)
def test_what_is_read(text, value):
    assert parse_yaml(text) == value
