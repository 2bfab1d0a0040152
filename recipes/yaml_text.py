"""YAML of recipes: plain values, scalars of YAML 1.2, and limits against malicious files.

YAML 1.1, which PyYAML follows, reads the key `on` and the value `off` as booleans, `1e-3` as text and `12:30` as 750.
Here only true/false are booleans, every decimal notation is a number, and the rest is text.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from wildfern.recipes.errors import Problem, dotted

MAX_BYTES = 1_000_000
MAX_NODES = 10_000  # counted with aliases expanded, so that nested aliases cannot multiply
MAX_DEPTH = 30

_COMMENTS = "'#' after a space starts a comment in YAML"
_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_SCALARS = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(rf"^[-+]?{_DIGITS}$"),
    "float": re.compile(rf"^[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
}
_CONVERT: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "str": str,
}


class _Refused(Exception):
    """The text is YAML, but not allowed in a recipe."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  PyYAML's own table, filled below
    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        _refuse_bulk(self.nodes, self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either YAML 1.1 or this module would misread; short lists of scalars stay on one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        plain = not any(isinstance(item, (dict, list)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)


for _name, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, None)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, None)


def read_yaml(text: str, file: str, key: str = "") -> tuple[Any, list[Problem]]:
    """The plain value of a YAML text, and its problems.

    An unreadable text gives `(None, [problem])`. Mapping keys are always strings. `file` and `key` are the location that
    problems name.
    """
    try:
        node = _Loader(text).get_single_node()
        if node is None:
            return None, []
        walk = _Walk(file, (key,) if key else ())
        return walk.value(node, ()), walk.problems
    except _Refused as refused:
        return None, [Problem(file, key, str(refused))]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark and not key else ""
        opened = error.context_mark.line if error.context_mark else mark.line if mark else 0
        lines = text.splitlines()[opened : mark.line + 1] if mark else []
        hint = (
            f" ({_COMMENTS}: put text that contains it in quotes)"
            if re.search(r"\w #", " ".join(lines)) and not key
            else ""
        )
        return None, [Problem(file, key, f"{where}not valid YAML: {error.problem or error.context}{hint}")]
    except yaml.YAMLError as error:
        return None, [Problem(file, key, f"not valid YAML: {' '.join(str(error).split())}")]


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
    tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    end = max((token.end_mark.index for token in tokens if token.start_mark.index < token.end_mark.index), default=0)
    return text[:end] if text[end:].lstrip().startswith("#") else None


def write_yaml(value: Any) -> str:
    """A plain value as YAML that `read_yaml` and other readers read back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def _refuse_bulk(nodes: int, depth: int) -> None:
    if nodes > MAX_NODES:
        raise _Refused(f"more than {MAX_NODES} values (aliases count each time they are used)")
    if depth > MAX_DEPTH:
        raise _Refused(f"nested more than {MAX_DEPTH} levels deep")


class _Walk:
    """Converts YAML nodes to dicts, lists and scalars, and reports duplicate keys."""

    def __init__(self, file: str, prefix: tuple[str, ...]):
        self.file, self.prefix = file, prefix
        self.problems: list[Problem] = []
        self.nodes = 0

    def value(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self.nodes += 1
        _refuse_bulk(self.nodes, len(path))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode) or kind not in _CONVERT:
            raise _Refused(f"line {line}: the tag {node.tag[:80]} is not allowed in a recipe")
        try:
            return _CONVERT[kind](node.value)
        except ValueError:
            raise _Refused(f"line {line}: {node.value[:40]!r} cannot be read as {kind}") from None

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(f"line {line}: a key must be a plain name")
            key = key_node.value
            if key in lines:
                where = dotted((*self.prefix, *path, key))
                self.problems.append(Problem(self.file, where, f"written twice, on lines {lines[key]} and {line}"))
            lines[key] = line
            mapping[key] = self.value(value_node, (*path, key))
        return mapping
