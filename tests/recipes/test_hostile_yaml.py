"""Damaged and malicious YAML files."""

import pytest

from wildfern.bounded_yaml import MOST_DEPTH
from wildfern.recipes.yaml_text import read_yaml


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "my.yaml: is empty"),
        ("# only a comment\n", "my.yaml: is empty"),
        ("- a\n- b\n", 'my.yaml: must be a mapping of sections, got ["a", "b"]'),
        ("seed: 1\ntraining: {steps: 1\n", "my.yaml: line 3, column 1: not valid YAML: "),
        (
            "seed: 1\ndata: {source: folder:pics #1}\n",
            "my.yaml: line 3, column 1: not valid YAML: expected ',' or '}', but got ",
        ),
        ("data: [folder:a #1]\n", "my.yaml: line 2, column 1: not valid YAML: expected ',' or ']', but got "),
        ("seed: 1\n\tdata: x\n", "my.yaml: line 2, column 1: not valid YAML: "),
        ("seed: 1\n---\nseed: 2\n", "my.yaml: line 2, column 1: not valid YAML: "),
        ("seed: \x07", "my.yaml: not valid YAML: "),
        ("data: *nowhere\n", "my.yaml: line 1, column 7: not valid YAML: found undefined alias"),
        ("[a, b]: 1\n", "my.yaml: line 1: a key must be a plain name"),
        ("seed: !!python/object/apply:os.system [exit]\n", "my.yaml: line 1: the tag tag:yaml.org,2002:python/object"),
        ("\nseed: !!int twelve\n", "my.yaml: line 2: 'twelve' cannot be read as int"),
        ("seed: " + "9" * 5000, "my.yaml: line 1: '9999"),
        ("seed: " + "[" * 5000, f"my.yaml: nested more than {MOST_DEPTH} levels deep"),
        ("seed: &a [*a]", f"my.yaml: nested more than {MOST_DEPTH} levels deep"),
        ("seed: [" + "1," * 20_000 + "]", "my.yaml: more than 10000 values"),
        ("seed: " + "x" * 1_000_001, "my.yaml: larger than 1 MB"),
    ],
)
def test_an_unreadable_file_is_one_problem(complaints, text, complaint):
    (line,) = complaints(text=text)
    assert line.startswith(complaint)


@pytest.mark.parametrize("text", ["seed: 1\ndata: {source: folder:pics #1}\n", "data: [folder:a #1]\nseed: 1\n"])
def test_a_comment_that_swallows_a_bracket_is_explained(complaints, text):
    (line,) = complaints(text=text)
    assert line.endswith("('#' after a space starts a comment in YAML: put text that contains it in quotes)")


def test_duplicate_keys_are_reported_with_their_lines(complaints):
    text = "extends: minimal.yaml\ntraining:\n  steps: 1\n  stepz: 2\n  steps: 3\nseed: 1\nseed: x\n"
    assert complaints(text=text) == [
        "my.yaml: training.steps: written twice, on lines 3 and 5",
        "my.yaml: seed: written twice, on lines 6 and 7",
        'my.yaml: seed: must be an integer, got "x"',
        "my.yaml: training.stepz: unknown key; did you mean training.steps?",
    ]


def test_the_other_files_are_checked_if_one_cannot_be_read(folder, complaints):
    (folder / "minimal.yaml").write_bytes(b"seed: 1\nmodel: \xff\n")
    assert complaints("training.stepz=1", text="{extends: minimal.yaml, seed: -1}") == [
        "minimal.yaml: line 2: not UTF-8 text",
        "my.yaml: seed: must be greater than or equal to 0, got -1",
        "command line: training.stepz: unknown key; did you mean training.steps?",
    ]


def test_nested_aliases_do_not_multiply():
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    value, problems = read_yaml("\n".join(levels), "my.yaml")
    assert value is None
    assert [str(problem) for problem in problems] == [
        "my.yaml: more than 10000 values (aliases count each time they are used)"
    ]


def test_a_few_aliases_are_fine_and_share_nothing():
    value, problems = read_yaml("a: &crop {size: 3}\nb: *crop", "my.yaml")
    assert problems == []
    assert value == {"a": {"size": 3}, "b": {"size": 3}}
    assert value["a"] is not value["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("-1.5e+3", -1500.0), (".5", 0.5), ("5.", 5.0), ("1_000.5", 1000.5),
        ("+7", 7), ("1_000", 1000), ("0x10", "0x10"), ("1e", "1e"), ("e5", "e5"), ("1.2.3", "1.2.3"), ("_1", "_1"),
        ("true", True), ("FALSE", False), ("yes", "yes"), ("on", "on"), ("~", None), ("", None), ("'1'", "1"),
        ("!!str 1", "1"), ("!!float 1", 1.0), (".nan", ".nan"), ("1:30", "1:30"), ("{on: off}", {"on": "off"}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, expected):
    value, problems = read_yaml(text, "my.yaml")
    assert problems == []
    assert value == expected
    assert type(value) is type(expected)
