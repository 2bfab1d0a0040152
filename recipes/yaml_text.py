"""YAML of recipes: problems with their place in a file, values of the command line, and writing."""

import re
from dataclasses import replace
from typing import Any

import yaml

from wildfern.bounded_yaml import MOST_BYTES, SCALARS, TAG, InvalidYAML, end_of_value, read_value
from wildfern.recipes.errors import Problem, dotted

MAX_BYTES = MOST_BYTES

_COMMENTS = "'#' after a space starts a comment in YAML"


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either YAML 1.1 or `bounded_yaml` would misread; short lists of scalars stay on one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        plain = not any(isinstance(item, (dict, list)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)


for _name, _pattern in SCALARS.items():
    _Dumper.add_implicit_resolver(TAG + _name, _pattern, None)


def read_yaml(text: str, file: str, key: str = "") -> tuple[Any, list[Problem]]:
    """The plain value of a YAML text, and its problems.

    An unreadable text gives `(None, [problem])`. Mapping keys are always strings. `file` and `key` are the location that
    problems name.
    """
    prefix = (key,) if key else ()
    try:
        value, twice = read_value(text)
    except InvalidYAML as error:
        if error.line is None or key:
            return None, [Problem(file, key, str(error))]
        lines = text.splitlines()[(error.opened or error.line) - 1 : error.line]
        hint = f" ({_COMMENTS}: put text that contains it in quotes)" if re.search(r"\w #", " ".join(lines)) else ""
        return None, [Problem(file, key, f"line {error.line}, column {error.column}: {error}{hint}")]
    return value, [
        Problem(file, dotted((*prefix, *found.path)), f"written twice, on lines {found.first} and {found.second}")
        for found in twice
    ]


def read_argument(text: str, file: str, key: str) -> tuple[Any, list[Problem]]:
    """As `read_yaml`, for a value given on the command line, where a comment is a mistake: it would cut the value short."""
    value, problems = read_yaml(text, file, key)
    hint = f"{_COMMENTS}: put text that contains it in quotes that reach the program"
    if problems and re.search(r"\s#", text):
        return None, [replace(problem, message=f"{problem.message} ({hint})") for problem in problems]
    if not problems and (kept := _before_comment(text)) is not None:
        return None, [Problem(file, key, f"""{hint}, for example {key}='"{text}"'; now the value would be {kept!r}""")]
    return value, problems


def _before_comment(text: str) -> str | None:
    """What a comment at the end of a YAML text of one value leaves of it; None if there is no comment."""
    end = end_of_value(text)
    return text[:end] if text[end:].lstrip().startswith("#") else None


def write_yaml(value: Any) -> str:
    """A plain value as YAML that `read_yaml` and other readers read back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
