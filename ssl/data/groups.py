"""Groups of images by metadata, such as the hospital, the country, or the class and the background together."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each image: `codes` int64[N] are numbers of `names`, -1 where it is not known; `name` is that of the column.

    Raises ValueError for codes that are no numbers of names.
    """

    name: str
    codes: NDArray[np.int64]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.codes.ndim != 1 or self.codes.dtype != np.int64:
            raise ValueError(f"codes of groups are int64[N], got {self.codes.dtype}{list(self.codes.shape)}")
        if len(self.codes) and not -1 <= self.codes.min() <= self.codes.max() < len(self.names):
            raise ValueError(
                f"codes of {len(self.names)} groups are -1 (unknown) to {len(self.names) - 1}, got {self.codes.min()} to "
                f"{self.codes.max()}"
            )

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> "Groups":
        """Groups by the values of a column: texts or numbers; None, NaN and "" are unknown.

        Groups are ordered by number if all values are numbers, else by text. Raises ValueError for values of other kinds.
        """
        number: dict[str, int] = {}
        codes = np.fromiter(
            (number.setdefault(_text(name, value), len(number)) for value in values), np.int64, len(values)
        )
        names = [text for text in number if text]
        try:
            names.sort(key=float)
        except ValueError:
            names.sort()
        place = {text: code for code, text in enumerate(names)}
        return cls(name, np.array([place.get(text, -1) for text in number], np.int64)[codes], tuple(names))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, items: ArrayLike) -> "Groups":
        """The groups of these items int64[n], in their order, with the same names."""
        return Groups(self.name, self.codes[np.asarray(items, np.int64)], self.names)


def without_unreadable(
    groups: tuple[Groups, ...], names: Iterable[str], skipped: Collection[str]
) -> tuple[Groups, ...]:
    """The same groups of the items with these names, but of those that are `skipped` the group is unknown."""
    if not groups or not skipped:
        return groups
    unreadable = np.array([name in skipped for name in names])
    return tuple(replace(part, codes=np.where(unreadable, -1, part.codes)) for part in groups)


def crossed(*parts: Groups) -> Groups:
    """The groups by several columns at once, such as `y 1, place 0`: those that occur; unknown where one part is unknown.

    Raises ValueError for parts of different numbers of images.
    """
    if len({len(part) for part in parts}) != 1:
        raise ValueError(f"crossed groups are of the same images, got {', '.join(str(len(part)) for part in parts)}")
    if len(parts) == 1:
        return parts[0]
    table = np.stack([part.codes for part in parts], 1)
    known = (table >= 0).all(1)
    found, index = np.unique(table[known], axis=0, return_inverse=True)
    codes = np.full(len(table), -1, np.int64)
    codes[known] = index.reshape(-1)
    names = (
        ", ".join(f"{part.name} {part.names[code]}" for part, code in zip(parts, row, strict=True)) for row in found
    )
    return Groups(" × ".join(part.name for part in parts), codes, tuple(names))


def _text(name: str, value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise ValueError(f"column {name}: a group is a text or a number, not of type {type(value).__name__}")
