"""Checks of constructor arguments."""

import difflib
import math
import operator
from collections.abc import Callable, Sequence


def nearest(name: str, valid: Sequence[str]) -> str:
    """A hint for an unknown name: the nearest valid name, or all valid names if none is near."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"did you mean {close[0]!r}?" if close else "choose one of " + ", ".join(map(repr, valid))


def checked_choice(name: str, value: str, valid: Sequence[str]) -> str:
    """Return `value` if it is one of `valid`, else raise ValueError."""
    if value not in valid:
        raise ValueError(f"{name}={value!r} is not known: {nearest(value, valid)}")
    return value


def checked_integer(name: str, value: int, lowest: int | None = None, highest: int | None = None) -> int:
    """Return `value` as an int if it is an integer within the bounds, else raise ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if (lowest is not None and number < lowest) or (highest is not None and number > highest):
        raise ValueError(f"{name} must lie between {lowest} and {highest}, not {number}")
    return number


def checked_number(name: str, value: float, lowest: float, highest: float) -> float:
    """Return `value` as a float if it lies within the bounds, else raise ValueError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool | str) or not lowest <= number <= highest:
        raise ValueError(f"{name} must be a number between {lowest} and {highest}, not {value!r}")
    return number


def checked_span(name: str, value: Sequence, lowest: float, highest: float, whole: bool = False) -> tuple:
    """Return `value` as (minimum, maximum) if it is such a pair within the bounds, else raise ValueError; `whole`: integers."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be a pair, least and most, such as ({lowest}, {highest}), not {value!r}")
    checked: Callable[..., float] = checked_integer if whole else checked_number
    least = checked(f"the least of {name}", value[0], lowest, highest)
    most = checked(f"the most of {name}", value[1], lowest, highest)
    if least > most:
        raise ValueError(f"{name} must be in order, least first: ({most}, {least}), not ({least}, {most})")
    return least, most


def checked_flags(**flags: bool) -> tuple[bool, ...]:
    """Return the values of these flags if all are true or false, else raise ValueError."""
    for name, value in flags.items():
        if value not in (True, False):
            raise ValueError(f"{name} must be true or false, not {value!r}")
    return tuple(bool(value) for value in flags.values())
