"""Whether the values in a manifest are possible: it may come from a stranger, or may have been edited."""

import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wildfern.bounded_json import parse_json

_ACTIONS = ("keep", "review", "reject")
_Check = Callable[[pa.Array], pa.Array]


def check_rows(rows: pa.RecordBatch, start: int = 0) -> None:
    """Check those columns that `rows` has, whose first is the row `start` of the manifest.

    Raises ValueError that names the first row of a column with a value that no scan writes.
    """
    for column in rows.columns:
        column.validate(full=True)  # of pyarrow: texts that are no UTF-8, and lists of wrong lengths
    for name, (words, check) in _RULES.items():
        if name in rows.schema.names:
            _refuse(rows, check(_plain(rows.column(name))), f"{name} must be {words}", start, name)
    if "pixels_sha256" not in rows.schema.names:
        return
    readable = rows.column("pixels_sha256").is_valid()
    if "decision" in rows.schema.names:
        kept = pc.equal(_plain(rows.column("decision")), "keep")
        _refuse(rows, pc.or_(pc.invert(kept), readable), "an image that could not be read is kept", start, None)
    for name in ("sha256", "width", "height", "phash", "phash_quality", "small"):
        if name in rows.schema.names:
            known = rows.column(name).is_valid()
            _refuse(rows, pc.or_(pc.invert(readable), known), f"an image that was read has no {name}", start, None)


def _refuse(rows: pa.RecordBatch, good: pa.Array, words: str, start: int, name: str | None) -> None:
    """Raise for the first row that is not good; null counts as not good."""
    bad = pc.invert(pc.fill_null(good, False))
    if not pc.any(bad).as_py():
        return
    row = pc.index(bad, True).as_py()
    value = "" if name is None else f", not {_short(rows.column(name)[row].as_py())}"
    path = f" ({_short(rows.column('path')[row].as_py())})" if "path" in rows.schema.names and name != "path" else ""
    raise ValueError(f"row {start + row}{path}: {words}{value}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _one_of(*names: str) -> tuple[str, _Check]:
    return f"one of {', '.join(names)}", lambda column: pc.is_in(column, pa.array(names))


def _at_least(least: int) -> _Check:
    return lambda column: pc.greater_equal(column, least)


def _or_none(check: _Check) -> _Check:
    return lambda column: pc.or_(pc.is_null(column), pc.fill_null(check(column), False))


def _each(check: Callable[[Any], bool]) -> _Check:
    """A check in Python, for columns that few images have."""
    return lambda column: pa.array([value is None or check(value) for value in column.to_pylist()], pa.bool_())


def _text(column: pa.Array) -> pa.Array:
    """A text without a zero byte."""
    return pc.invert(pc.match_substring(column, "\0"))


def _are_boxes(text: str) -> bool:
    try:
        boxes = [[float(number) for number in box] for box in parse_json(text)]
    except (TypeError, ValueError, OverflowError):
        return False
    return all(len(box) == 5 and all(map(math.isfinite, box)) for box in boxes)


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _are_reasons(column: pa.Array) -> pa.Array:
    """Lists without nulls, of rules with an action."""
    each = pc.list_flatten(column)
    rules, actions = each.field("rule"), pc.is_in(each.field("action"), pa.array(_ACTIONS))
    bad = pc.invert(pc.and_(each.is_valid(), pc.and_(rules.is_valid(), actions)))
    rows = pc.list_parent_indices(column).filter(bad)
    return pc.and_(column.is_valid(), pc.invert(pc.is_in(pa.array(range(len(column)), pa.int64()), rows)))


_DIGEST: _Check = lambda column: pc.match_substring_regex(column, "^[0-9a-f]{64}$")  # noqa: E731
_FLOATS = (
    *("brightness", "contrast", "dark_percentile", "light_percentile", "sharpness", "page", "screenshot"),
    *("phash_quality", "people"),
)
_RULES: dict[str, tuple[str, _Check]] = {
    "kind": _one_of("folder", "parquet", "webdataset"),
    "source": ("a text", _or_none(_text)),  # of parts of a scan: none yet
    "container": ("a path", _text),
    "path": ("a path", _text),
    "place": ("-1 or more", _at_least(-1)),
    "bytes": ("0 or more", _at_least(0)),
    "modified": ("a time", lambda column: column.is_valid()),
    **dict.fromkeys(("sha256", "pixels_sha256"), ("64 hexadecimal digits", _or_none(_DIGEST))),
    **dict.fromkeys(("width", "height", "channels", "frames"), ("1 or more", _or_none(_at_least(1)))),
    **dict.fromkeys(_FLOATS, ("a number", _or_none(pc.is_finite))),
    **dict.fromkeys(("group", "cluster"), ("-1 or more", _at_least(-1))),
    "people_boxes": ("JSON: [[left, top, right, bottom, score], …]", _each(_are_boxes)),
    "metadata": ("a JSON object", _each(_is_object)),
    "embedded": ("a JSON object", _each(_is_object)),
    "decision": _one_of(*_ACTIONS),
    "reasons": ("a list of rules and actions", _are_reasons),
}
