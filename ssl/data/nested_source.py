"""The source that another one is made from: its key `of`, a name or a mapping as an entry of `data`."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from wildfern.ssl.data.base import DataError, Source, SourceFile, Split

Nested = str | dict[str, Any]


def open_nested(of: Nested, split: Split, seed: int) -> Source:
    """The source `of`, opened; `seed` is added to the seed of a generator. Raises DataError for what cannot be opened."""
    from wildfern.ssl.data import open_source, source_signature

    name, arguments = _parts(of)
    if "split" in arguments:
        raise DataError(f"of: {name}: its split is that of the source that is made from it, {split}")
    try:
        if "seed" in inspect.signature(source_signature(name)).parameters:
            arguments["seed"] = arguments.get("seed", 0) + seed
        return open_source(name, split, **arguments)
    except TypeError as error:  # recipes have checked types, but not all that open a source
        raise DataError(f"of: {name}: an argument has the wrong type ({error})") from error


def _parts(of: Nested) -> tuple[str, dict[str, Any]]:
    arguments = {"source": of} if isinstance(of, str) else dict(of) if isinstance(of, Mapping) else {}
    name = arguments.pop("source", None)
    if not isinstance(name, str):
        raise DataError(f"of must be the name of a source, or a mapping with the key source, not {of!r}")
    return name, arguments


class NestedSource(Source):
    """A source made from the images of `inner`; what is said about those is passed on.

    nested: its arguments that are sources, which recipes check like the entries of `data`.
    """

    nested = ("of",)

    def __init__(self, inner: Source) -> None:
        super().__init__()
        self.inner, self.channels = inner, inner.channels

    @property
    def skipped(self) -> dict[str, str]:
        return self.inner.skipped

    @property
    def notes(self) -> list[str]:
        return [*self.inner.notes, *super().notes]

    def prepare(self) -> None:
        self.inner.prepare()

    def files(self) -> Iterable[SourceFile] | None:
        return self.inner.files()
