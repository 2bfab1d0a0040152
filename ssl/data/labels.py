"""Labels as data sets write them (ids, names, lists of either, multi-hot vectors) -> numbered classes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError

MOST_MULTI_HOT_BYTES = 4 * 2**30

Numbered = tuple[NDArray[np.int64] | NDArray[np.uint8] | None, list[str] | None]


def number_labels(
    labels: Sequence[Any], others: Iterable[Any], where: str, class_names: list[str] | None = None
) -> Numbered:
    """The labels of one split as int64[N], -1 for unlabeled images, or multi-hot uint8[N, K]; and the K class names.

    A label is an integer, a whole float, a bool, a name, a list of these, or None; `others` are those of the other splits: a
    class has the same number in all. Classes are all labels that occur, numbered in ascending order, so ids 0 … K-1 keep their
    numbers; with `class_names`, ids are numbers of these. -1 and NaN mean unlabeled. Numbers mixed with names are names too.

    Lists are multi-label. Without `class_names`, lists of one length K >= 2 that hold only 0 and 1 (or bools; -1 counts as 0) are
    multi-hot vectors; others hold ids or names. Returns (None, None) if no image has a label. Raises DataError, naming `where`,
    for anything else.
    """
    values, elsewhere = [_plain(v, where) for v in labels], [_plain(v, where) for v in others]
    if any(isinstance(v, list) for v in (*values, *elsewhere)):
        return _multi_label(_as_lists(values), _as_lists(elsewhere), where, class_names)
    known = {v for v in values if v is not None} | {v for v in elsewhere if v is not None}
    if not known:
        return None, None
    number, names = _classes(known, where, class_names)
    return np.array([-1 if v is None else number[v] for v in values], np.int64), names


def _plain(value: Any, where: str) -> int | str | bool | list | None:
    """One label; whole floats become ids, and -1 and NaN become None."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(f"{where}: a label is {value}; labels are whole numbers, names, or lists of these")
        value = int(value)
    if isinstance(value, int):
        if value < -1:
            raise DataError(f"{where}: a label is {value}; -1 means unlabeled, other labels are 0 or more")
        return None if value == -1 else value
    if isinstance(value, list | tuple):
        inner = [_plain(v, where) for v in value]
        if any(isinstance(v, list) for v in inner):
            raise DataError(f"{where}: a label is a list of lists; labels are whole numbers, names, or lists of these")
        return inner
    raise DataError(
        f"{where}: a label is of type {type(value).__name__}; labels are whole numbers, names, or lists of these"
    )


def _as_lists(values: list) -> list[list]:
    return [[] if v is None else v if isinstance(v, list) else [v] for v in values]


def _classes(known: set, where: str, class_names: list[str] | None) -> tuple[dict[Any, int], list[str]]:
    """Number by label, and the class names."""
    if any(isinstance(v, str) for v in known):
        if class_names is not None and known <= set(class_names):
            return {name: number for number, name in enumerate(class_names)}, class_names
        names = sorted({str(v) for v in known})
        number = {name: label for label, name in enumerate(names)}
        return {v: number[str(v)] for v in known}, names
    if class_names is not None:
        if max(known) >= len(class_names):
            raise DataError(
                f"{where}: a label is {max(known)}, but there are {len(class_names)} class names, from number 0"
            )
        return {v: int(v) for v in known}, class_names
    if all(isinstance(v, bool) for v in known):
        return {False: 0, True: 1}, ["false", "true"]
    ordered = sorted(known)
    return {v: label for label, v in enumerate(ordered)}, [str(int(v)) for v in ordered]


def _multi_label(values: list[list], elsewhere: list[list], where: str, class_names: list[str] | None) -> Numbered:
    everything = [row for row in (*values, *elsewhere) if row]
    if not everything:
        return None, None
    if class_names is None and _are_multi_hot(everything):
        width = len(everything[0])
        names = [str(k) for k in range(width)]
        hot = _no_classes(values, width, where)
        for row, marks in zip(hot, values, strict=True):
            if marks:
                row[:] = [bool(v) for v in marks]
        return hot, names
    known = {v for row in everything for v in row if v is not None}
    if not known:
        return None, None
    number, names = _classes(known, where, class_names)
    hot = _no_classes(values, len(names), where)
    for row, classes in zip(hot, values, strict=True):
        row[[number[v] for v in classes if v is not None]] = 1
    return hot, names


def _no_classes(values: list[list], classes: int, where: str) -> NDArray[np.uint8]:
    """Zeros [N, K]; raises DataError if they are too large."""
    if (size := len(values) * classes) > MOST_MULTI_HOT_BYTES:
        raise DataError(
            f"{where}: {classes:,} classes of {len(values):,} images with several labels each need {size / 2**30:.0f} GiB; "
            f"at most {MOST_MULTI_HOT_BYTES / 2**30:.0f} GiB are supported: keep only the frequent classes"
        )
    return np.zeros((len(values), classes), np.uint8)


def _are_multi_hot(rows: list[list]) -> bool:
    width = len(rows[0])
    if width < 2 or any(len(row) != width for row in rows):
        return False
    return all(v is None or (not isinstance(v, str) and v in (0, 1)) for row in rows for v in row)
