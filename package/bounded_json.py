"""JSON from files and connections that may be damaged or malicious: plain values within limits, or ValueError."""

import json
import os
from typing import Any

from wildfern.files import read_bytes

__all__ = ["MOST_BYTES", "MOST_DEPTH", "parse_json", "read_json"]

MOST_BYTES = 64 * 2**20
MOST_DEPTH = 32
_MOST_BITS = 64  # of an integer: larger ones are no number of anything here, and overflow a float


def parse_json(text: str | bytes, most_depth: int = MOST_DEPTH) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, and nothing else, for what is no JSON, is nested more than `most_depth` levels deep, has an integer of more
    than 64 bits, or text that is no Unicode (half a surrogate pair). NaN and Infinity are floats, as Python writes them.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # A line of a log: without an escape there is no half of a surrogate pair, and a decoded text has none.
    if isinstance(value, dict) and text.isascii() and "\\" not in text and all(map(_is_small_number, value.values())):
        return value
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, dict | list):
            if depth > most_depth:
                raise ValueError(f"nested more than {most_depth} levels deep")
            if isinstance(one, dict):
                waiting += [(key, depth) for key in one]
                one = one.values()
            waiting += [(inner, depth + 1) for inner in one]
        elif isinstance(one, str):
            if not one.isascii():
                try:
                    one.encode()
                except UnicodeEncodeError:
                    raise ValueError("a text that is no Unicode (half a surrogate pair)") from None
        elif isinstance(one, int) and one.bit_length() > _MOST_BITS:
            raise ValueError(f"a number of more than {_MOST_BITS} bits")
    return value


def _is_small_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and value.bit_length() <= _MOST_BITS)


def read_json(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> Any:
    """`parse_json` of a regular file. Raises ValueError for its content; OSError if it is missing, a link, or too large."""
    return parse_json(read_bytes(path, most_bytes))
