"""Which column of a table holds encoded images, in which of the forms that programs write."""

from dataclasses import dataclass
from typing import Any

from wildfern.ssl.data.base import DataError

PREFERRED = ("image", "img", "jpg", "jpeg", "png", "picture", "photo")
_BYTES = ("bytes", "data", "content", "image", "img", "jpg", "png")
_PATHS = ("path", "file_name", "filename", "file")


@dataclass(frozen=True)
class ImageColumn:
    """A column of encoded images: its cells, or the field `field` of its structs, are bytes or lists of uint8.

    `path_field` is the field with the path of the file, for structs whose bytes are null.
    """

    name: str
    field: str | None = None
    path_field: str | None = None


def find_image_column(schema: Any, where: str, column: str | None) -> ImageColumn:
    """The column of this name; for None the only one that holds images, or the first of PREFERRED. Raises DataError."""
    candidates = {f.name: found for f in schema if (found := _as_images(f.name, f.type)) is not None}
    columns = ", ".join(schema.names)
    if column is not None:
        if column in candidates:
            return candidates[column]
        hint = f"; image_column could be {' or '.join(candidates)}" if candidates else ""
        what = f", which is {_words(schema.field(column).type)}" if column in schema.names else ""
        raise DataError(f"{where}: no column {column!r} with encoded images{what}; it has {columns}{hint}")
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    by_name = {name.lower(): found for name, found in candidates.items()}
    if named := next((by_name[name] for name in PREFERRED if name in by_name), None):
        return named
    if candidates:
        raise DataError(f"{where}: several columns can hold images: set image_column to {' or '.join(candidates)}")
    types = ", ".join(f"{f.name} ({_words(f.type)})" for f in schema)
    raise DataError(
        f"{where}: no column holds encoded images (bytes, struct with bytes, or lists of uint8); it has {types}"
    )


def _words(column_type: Any) -> str:
    text = str(column_type)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _as_images(name: str, column_type: Any) -> ImageColumn | None:
    import pyarrow.types as types

    if _holds_bytes(column_type):
        return ImageColumn(name)
    if not types.is_struct(column_type):
        return None
    fields = {f.name: f.type for f in column_type}
    with_bytes = [field for field, kind in fields.items() if _holds_bytes(kind)]
    texts = [field for field, kind in fields.items() if types.is_string(kind) or types.is_large_string(kind)]
    path = next((field for field in _PATHS if field in texts), None)
    named = next((field for field in _BYTES if field in with_bytes), None)
    if named is None and len(with_bytes) == 1:
        named = with_bytes[0]
    if named is None and (path is None or with_bytes or not set(fields) <= {path, "bytes"}):
        return None
    return ImageColumn(name, named, path)


def _holds_bytes(column_type: Any) -> bool:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column_type):
        column_type = column_type.value_type
    if types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type):
        return bool(column_type.value_type == pa.uint8())
    views = getattr(types, "is_binary_view", lambda kind: False)
    return types.is_binary(column_type) or types.is_large_binary(column_type) or views(column_type)
