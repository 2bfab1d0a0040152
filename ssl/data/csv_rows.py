"""Which rows of a table are of a split: by a column, or a share of them by a hash of their file names."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError, Split
from wildfern.ssl.data.csv_table import CsvTable
from wildfern.ssl.data.splits import empty_share, name_in_test, share_words

DEFAULT_COLUMN = "split"


def existing_split_column(table: CsvTable, split_column: str | None) -> str | None:
    """The column, or None where there is none of the default name."""
    if split_column is None or split_column in table.columns:
        return split_column
    if split_column == DEFAULT_COLUMN and DEFAULT_COLUMN not in map(str.lower, table.columns):
        return None
    table.check_column(split_column, "split_column")
    return split_column


def rows_by_column(
    table: Path, cells: Any, column: str, values: Mapping[str, list[str]], split: Split
) -> tuple[NDArray[np.int64], str, str | None]:
    """Rows whose cell is one of the `values` of the split, words for these, and a note if there are rows of neither split.

    Raises DataError, with what there is, if there are no such rows.
    """
    encoded = cells.dictionary_encode()
    texts, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    counts = Counter(dict(zip(texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True)))
    mine = [value for value in values[split] if counts[value]]
    others = {text: counts[text] for text in texts if text not in (*values["train"], *values["test"])}
    if not mine:
        raise DataError(
            f"{table}: no row has {' or '.join(values[split])} in column {column!r}, which has {_counted(counts)}: set {split}, "
            f"for example {split}: [{next(iter(others or counts))}]"
        )
    rows = np.flatnonzero(np.isin(codes, [texts.index(value) for value in mine]))
    note = f"{table}: rows of other splits, which are left out: {_counted(others)}" if others else None
    return rows, f"{column} {' or '.join(mine)}", note


def rows_by_hash(table: Path, names: Any, test_fraction: float, split: Split) -> tuple[NDArray[np.int64], str]:
    """All rows, or the share of them that is the split, and words for it. Raises DataError for an empty one."""
    if not test_fraction:
        if split == "test":
            raise DataError(
                f"{table} has no column {DEFAULT_COLUMN!r}, and so no test split: set split_column, or test_fraction, for "
                "example 0.2"
            )
        return np.arange(len(names)), ""
    chosen = [name_in_test(name, test_fraction) == (split == "test") for name in names.to_pylist()]
    if not any(chosen):
        raise DataError(empty_share(str(table), split, test_fraction, len(names), "images of"))
    return np.flatnonzero(chosen), share_words(split, test_fraction, "images, by a hash of their names")


def _counted(counts: Mapping[str, int]) -> str:
    """`val (1,199), id_val (7,314)`, at most six."""
    words = [f"{text[:50] or 'empty cells'} ({count:,})" for text, count in counts.items()]
    return ", ".join(words if len(words) <= 6 else [*words[:5], "…"])
