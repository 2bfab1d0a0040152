"""Checks of constructor arguments, with errors in the user's words."""

import difflib
import math
import operator
from collections.abc import Callable, Sequence


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


def checked_number(name: str, value: float, lowest: float, highest: float) -> float:
    """`value` as a float if it lies between the bounds, else ValueError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool | str) or not lowest <= number <= highest:
        raise ValueError(f"{name} must be a number between {lowest} and {highest}, not {value!r}")
    return number


def checked_span(name: str, value: Sequence, lowest: float, highest: float, whole: bool = False) -> tuple:
    """`value` as (least, most) if it is such a pair between the bounds, else ValueError; `whole`: integers."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be a pair, least and most, such as ({lowest}, {highest}), not {value!r}")
    checked: Callable[..., float] = checked_integer if whole else checked_number
    least = checked(f"the least of {name}", value[0], lowest, highest)
    most = checked(f"the most of {name}", value[1], lowest, highest)
    if least > most:
        raise ValueError(f"{name} must be in order, least first: ({most}, {least}), not ({least}, {most})")
    return least, most


def checked_flags(**flags: bool) -> tuple[bool, ...]:
    """The values of these switches if all are true or false, else ValueError."""
    for name, value in flags.items():
        if value not in (True, False):
            raise ValueError(f"{name} must be true or false, not {value!r}")
    return tuple(bool(value) for value in flags.values())
