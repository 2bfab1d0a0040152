"""Checks of constructor arguments, with errors in the user's words."""

import difflib
import operator
from collections.abc import Sequence


def nearest(name: str, valid: Sequence[str]) -> str:
    """A hint for an unknown name: the nearest valid one, or all of them when none is near."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"did you mean {close[0]!r}?" if close else "choose one of " + ", ".join(map(repr, valid))


def checked_choice(name: str, value: str, valid: Sequence[str]) -> str:
    """`value` if it is one of `valid`, else ValueError."""
    if value not in valid:
        raise ValueError(f"{name}={value!r} is not known: {nearest(value, valid)}")
    return value


def checked_integer(name: str, value: int, lowest: int | None = None, highest: int | None = None) -> int:
    """`value` as an int if it is one between the bounds, else ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if (lowest is not None and number < lowest) or (highest is not None and number > highest):
        raise ValueError(f"{name} must lie between {lowest} and {highest}, not {number}")
    return number
