"""The label column of parquet files: its type is checked first, its values are read when labels are needed."""

from collections.abc import Iterator
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.parquet_bounds import most_decoded, read_metadata, read_rows
from wildfern.ssl.data.parquet_pages import DamagedRows
from wildfern.ssl.data.steady_file import SteadyFile

MOST_LABEL_BYTES = 2**28  # of a file in memory, or 8 times those that are stored
MOST_CLASSES = 1_000_000

_USUAL = ("label", "labels", "class", "category", "target", "fine_label", "coarse_label")


def check_label_column(schema: Any, where: str, column: str) -> None:
    """Raise DataError if the type of the column cannot be labels; the message names columns that could be."""
    kind = schema.field(column).type
    if not _can_be_labels(kind):
        raise DataError(
            f"{where}: column {column} is {_words(kind)}; labels are whole numbers, names, or lists of these"
            f"{_others(schema, column)}"
        )


def other_label_columns(schema: Any, missing: str) -> str | None:
    """A message if there is no column `missing`, but another one with a usual name for labels."""
    usual = [f.name for f in schema if f.name.lower() in _USUAL and _can_be_labels(f.type)]
    return f"no column {missing!r}; label_column could be {' or '.join(usual)}" if usual else None


def read_column(files: list[SteadyFile], column: str) -> list[Any]:
    """The values of all rows, as Python values. Raises DataError if a row group is damaged, or a file has changed."""
    return [value for file in files for value in _column_of(file, column)]


def _column_of(file: SteadyFile, column: str) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    metadata, left = read_metadata(file), most_decoded(file.size, MOST_LABEL_BYTES)
    with file.open() as opened:
        reader = parquet.ParquetFile(opened, metadata=metadata)
        for group in range(metadata.num_row_groups):
            if not metadata.row_group(group).num_rows:
                continue
            try:
                arrays = read_rows(reader, opened, file.size, group, column, MOST_LABEL_BYTES)
                if (left := left - sum(array.nbytes for array in arrays)) < 0:
                    raise DamagedRows(
                        f"the column decodes to more than {most_decoded(file.size, MOST_LABEL_BYTES):,} bytes"
                    )
                for array in arrays:
                    yield from array.to_pylist()
            except (DamagedRows, UnicodeDecodeError) as error:
                raise DataError(f"{file.path}: column {column} of row group {group} is damaged: {error}") from error


def class_names_of(schema: Any, column: str) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them, in the metadata that the package `datasets` writes."""
    try:
        feature = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        while "names" not in feature:
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        names = feature["names"]
    except (KeyError, TypeError, ValueError, IndexError):  # optional; without it classes are named by their label
        return None
    return [str(name) for name in names] if isinstance(names, list) and len(names) <= MOST_CLASSES else None


def _can_be_labels(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    view = getattr(types, "is_string_view", lambda kind: False)
    simple = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string, view)
    return types.is_null(kind) or any(check(kind) for check in simple)


def _others(schema: Any, column: str) -> str:
    usable = [f.name for f in schema if f.name != column and _can_be_labels(f.type)][:5]
    return f"; label_column could be {' or '.join(usable)}, or null" if usable else "; label_column: null ignores it"


def _words(kind: Any) -> str:
    text = str(kind)
    return f"of type {text if len(text) <= 60 else f'{text[:57]}…'}"
