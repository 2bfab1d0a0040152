"""Pydantic's errors in the terms of a recipe."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from wildfern.recipes.errors import nearest

_PHRASES = {
    "Input should be": "must be",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a string",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "an object": "a mapping",
}


@dataclass(frozen=True)
class Complaint:
    """An error at `path`, relative to the checked value."""

    path: tuple[str | int, ...]
    kind: str  # pydantic's type of error
    message: str
    suggestion: str | None = None


def complaints(errors: Sequence[ErrorDetails], value: Any) -> Iterator[Complaint]:
    """One complaint per key; the messages of a union's members are joined by "or"."""
    by_path: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for error in errors:
        by_path.setdefault(_path(error, value), []).append(error)
    for path, together in by_path.items():
        found, at = True, value
        for part in path:
            found = found and _holds(at, part)
            at = at[part] if found else None
        kind = together[0]["type"]
        if kind == "missing" and found:
            kind = "too_few"  # of the items of a tuple
        messages = list(dict.fromkeys(_message(error) for error in together))
        message = messages[0] + "".join(f" or {other.removeprefix('must be ')}" for other in messages[1:])
        if kind not in ("extra_forbidden", "value_error") and found:
            message += f", got {shown(at)}"
            if kind == "string_type" and isinstance(at, bool | int | float):
                message += " (put it in quotes if it is meant as text)"
        yield Complaint(path, kind, message, _choice(together, at))


def shown(value: Any) -> str:
    """A value as written in a recipe, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(error: ErrorDetails, value: Any) -> tuple[str | int, ...]:
    """The keys in an error's location, without the names of union members that pydantic puts between them."""
    path: list[str | int] = []
    for part in error["loc"]:
        if _holds(value, part):
            path.append(part)
            value = value[part]
        elif error["type"] == "missing" and isinstance(value, dict) and part == error["loc"][-1]:
            path.append(part)
    return tuple(path)


def _message(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "missing":
        return "has too few items" if isinstance(error["loc"][-1], int) else "is missing"
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    message = re.sub(r"^\w+ should have (.*) after validation, not .*$", r"must have \1", error["msg"])
    message = re.sub(r"^\w+ should have", "must have", message)
    for phrase, ours in _PHRASES.items():
        message = message.replace(phrase, ours)
    return message


def _choice(errors: Sequence[ErrorDetails], value: Any) -> str | None:
    """The nearest value of a Literal."""
    expected = " ".join(error["ctx"]["expected"] for error in errors if error["type"] == "literal_error")
    return nearest(value, re.findall(r"'([^']*)'", expected)) if isinstance(value, str) else None


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value
