"""Columns of numbers in a table, which are the parameters of its images: what a regression predicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.data.base import DataError

_ROUNDED = 1e-3  # standard deviations by which float32 may change a number


def check_target_column(schema: Any, where: str, column: str) -> None:
    """Raise DataError if the type of a column of a parquet file is not one of numbers."""
    import pyarrow.types as types

    kind = schema.field(column).type
    if not any(is_one(kind) for is_one in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)):
        raise DataError(f"{where}: column {column} is of type {str(kind)[:60]}; target_columns are numbers")


def target_numbers(columns: Mapping[str, Sequence[Any]], where: str) -> NDArray[np.float32]:
    """The columns of numbers or texts as float32[N, P]; NaN for None and for an empty text.

    Raises DataError for what is not a finite number, and for numbers that differ too little from each other for float32.
    """
    return np.stack([_numbers(values, f"{where}: column {name}") for name, values in columns.items()], axis=1)


def _numbers(values: Sequence[Any], where: str) -> NDArray[np.float32]:
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            numbers[row] = np.nan if value is None or value == "" else float(value)
        except ValueError:
            raise DataError(
                f"{where}: {str(value)[:50]!r} is not a number, such as 1.5; a cell is empty where there is none"
            ) from None
        if abs(numbers[row]) > np.finfo(np.float32).max:
            raise DataError(f"{where}: {str(value)[:50]} is infinite, or too large for float32")
    rounded, known = numbers.astype(np.float32), ~np.isnan(numbers)
    if known.any() and np.ptp(numbers[known]) > 0:
        low, high = numbers[known].min(), numbers[known].max()
        if np.abs(rounded - numbers)[known].max() > _ROUNDED * numbers[known].std():
            raise DataError(
                f"{where}: numbers from {low:.10g} to {high:.10g} differ too little for float32: subtract a constant from them"
            )
    return rounded


def targets_of(
    targets: NDArray[np.float32], items: ArrayLike, name_of: Callable[[int], str], skipped: Mapping[str, str]
) -> NDArray[np.float32]:
    """The targets float32[n, P] of these items; NaN for an unreadable image, which is read as another one."""
    found = targets[np.asarray(items, np.int64)]
    if skipped:
        found[[name_of(item) in skipped for item in np.asarray(items).tolist()]] = np.nan
    return found


def missing_note(targets: NDArray[np.float32], names: Iterable[str], where: str) -> str | None:
    """A note if some images have no number in a column."""
    counts = np.isnan(targets).sum(0).tolist()
    words = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True) if count]
    return f"{where}: of {len(targets):,} images, these have no number in {', '.join(words)}" if words else None
