"""YAML from files and command lines that may be damaged or malicious: plain values within limits, or ValueError.

YAML 1.1, which PyYAML follows, reads the key `on` and the value `off` as booleans, `1e-3` as text and `12:30` as 750.
Here only true/false are booleans, every decimal notation is a number, and the rest is text. Keys are texts.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = [
    "MOST_BYTES",
    "MOST_DEPTH",
    "MOST_VALUES",
    "SCALARS",
    "TAG",
    "InvalidYAML",
    "WrittenTwice",
    "end_of_value",
    "parse_yaml",
    "read_value",
]

MOST_BYTES = 1_000_000
MOST_VALUES = 10_000  # counted with aliases expanded, so that nested aliases cannot multiply
MOST_DEPTH = 30
_MOST_BITS = 64  # of an integer, as in JSON
_SHOWN = 200  # characters of a message of PyYAML, which quotes what it read

TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
SCALARS = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(rf"^[-+]?{_DIGITS}$"),
    "float": re.compile(rf"^[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
}


def _integer(text: str) -> int:
    number = int(text)
    if number.bit_length() > _MOST_BITS:
        raise ValueError
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400
        raise ValueError
    return number


_CONVERT: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _number,
    "str": str,
}


class InvalidYAML(ValueError):
    """A text that is no YAML, or not allowed here.

    `line` and `column` (from 1) are where PyYAML stopped reading, `opened` is the line where what it was reading begins; None
    where there is no place, or where the message names it.
    """

    def __init__(
        self, reason: str, line: int | None = None, column: int | None = None, opened: int | None = None
    ) -> None:
        super().__init__(reason)
        self.line, self.column, self.opened = line, column, opened


@dataclass(frozen=True)
class WrittenTwice:
    """A key that a mapping has twice: the keys and numbers that lead to it, and its lines, from 1."""

    path: tuple[str | int, ...]
    first: int
    second: int


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  PyYAML's own table, filled below
    values = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        self.depth += 1
        _refuse_bulk(self.values, self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern in SCALARS.items():
    _Loader.add_implicit_resolver(TAG + _name, _pattern, None)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: None for an empty one.

    Raises ValueError, and nothing else, for what is no YAML, is larger than `MOST_BYTES`, has more than `MOST_VALUES` values or
    `MOST_DEPTH` levels, tags other than those of JSON's types, a key twice, an integer of more than 64 bits, a number that is no
    float, or a text with control characters or half a surrogate pair.
    """
    value, twice = read_value(text)
    if twice:
        first = twice[0]
        raise InvalidYAML(f"{_cut(str(first.path[-1]))!r} is written twice, on lines {first.first} and {first.second}")
    return value


def read_value(text: str) -> tuple[Any, list[WrittenTwice]]:
    """As `parse_yaml`, with the keys that are written twice; the last of each counts."""
    if len(text) > MOST_BYTES:
        raise InvalidYAML(f"larger than {MOST_BYTES // 1_000_000} MB")
    try:
        node = _Loader(text).get_single_node()
        walk = _Walk()
        return (None if node is None else walk.value(node, ())), walk.twice
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"not valid YAML: {_cut(error.problem or error.context or '')}"
        if mark is None:
            raise InvalidYAML(reason) from None
        opened = error.context_mark.line if error.context_mark else mark.line
        raise InvalidYAML(reason, mark.line + 1, mark.column + 1, opened + 1) from None
    except yaml.YAMLError as error:
        raise InvalidYAML(f"not valid YAML: {_cut(str(error))}") from None
    except RecursionError:
        raise InvalidYAML("nested too deeply") from None
    except InvalidYAML:
        raise
    except (ValueError, OverflowError, IndexError) as error:  # of PyYAML: "\Uffffffff", %YAML 99…9
        raise InvalidYAML(f"not valid YAML: {_cut(str(error))}") from None


def end_of_value(text: str) -> int:
    """Where the value of a text ends that `read_value` takes: the rest is spaces and comments."""
    tokens = yaml.scan(text, Loader=yaml.SafeLoader)
    return max((token.end_mark.index for token in tokens if token.start_mark.index < token.end_mark.index), default=0)


def _cut(reason: str) -> str:
    reason = " ".join(reason[: 10 * _SHOWN].split())
    return reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]} …"


def _refuse_bulk(values: int, depth: int) -> None:
    if values > MOST_VALUES:
        raise InvalidYAML(f"more than {MOST_VALUES} values (aliases count each time they are used)")
    if depth > MOST_DEPTH:
        raise InvalidYAML(f"nested more than {MOST_DEPTH} levels deep")


class _Walk:
    """Converts YAML nodes to dicts, lists and scalars, and notes duplicate keys."""

    def __init__(self) -> None:
        self.twice: list[WrittenTwice] = []
        self.values = self.characters = 0

    def value(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self.values += 1
        _refuse_bulk(self.values, len(path))
        kind = node.tag.removeprefix(TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode) or kind not in _CONVERT:
            raise InvalidYAML(f"line {line}: the tag {_cut(node.tag[:80])} is not allowed in a recipe")
        text = self._text(node)
        try:
            return _CONVERT[kind](text)
        except ValueError:
            raise InvalidYAML(f"line {line}: {text[:40]!r} cannot be read as {kind}") from None

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidYAML(f"line {line}: a key must be a plain name")
            key = self._text(key_node)
            if key in lines:
                self.twice.append(WrittenTwice((*path, key), lines[key], line))
            lines[key] = line
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _text(self, node: yaml.ScalarNode) -> str:
        """The text of a scalar. Escapes ("\\0") can write characters that YAML refuses where they are written plainly."""
        text = node.value
        self.characters += len(text)
        if self.characters > MOST_BYTES:  # an alias of a long text, many times
            raise InvalidYAML(f"larger than {MOST_BYTES // 1_000_000} MB (aliases count each time they are used)")
        if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
            line = node.start_mark.line + 1
            raise InvalidYAML(f"line {line}: a text with the character U+{ord(found[0]):04X}, which is not allowed")
        return text
