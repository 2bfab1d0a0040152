"""Compact storage of many file names: one buffer of bytes and one array of end offsets."""

import os
import sys
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.index_file import IndexArrays


class PathStore:
    """An append-only list of strings; takes the bytes of the text plus 8 per string."""

    def __init__(self) -> None:
        self._text: bytearray | NDArray[np.uint8] = bytearray()
        self._ends: array | NDArray[np.int64] = array("q", [0])

    @classmethod
    def of(cls, arrays: IndexArrays, name: str) -> "PathStore":
        """The strings of `arrays(name)`, which are not copied; none can be added."""
        store = cls()
        store._text, store._ends = arrays[f"{name}_text"], arrays[f"{name}_ends"]
        return store

    def arrays(self, name: str) -> IndexArrays:
        """The buffers as arrays, for an index; while these are there, no string can be added."""
        return {
            f"{name}_text": np.frombuffer(self._text, np.uint8),
            f"{name}_ends": np.frombuffer(self._ends, np.int64),
        }

    def append(self, name: str) -> None:
        assert isinstance(self._text, bytearray)
        assert isinstance(self._ends, array)
        self._text += os.fsencode(name)
        self._ends.append(len(self._text))

    def append_all(self, names: Sequence[str], prefix: str = "") -> None:
        """Add these names, each with `prefix` before it."""
        assert isinstance(self._text, bytearray)
        assert isinstance(self._ends, array)
        if not names:
            return
        encoded = os.fsencode(prefix + prefix.join(names))
        lengths = np.fromiter(map(len, names), np.int64, len(names)) + len(prefix)
        if len(encoded) != lengths.sum():  # characters that take several bytes
            lengths = np.array([len(os.fsencode(prefix + name)) for name in names], np.int64)
        self._ends.frombytes((len(self._text) + lengths.cumsum()).tobytes())
        self._text += encoded

    def extend(self, other: "PathStore") -> None:
        assert isinstance(self._text, bytearray)
        assert isinstance(self._ends, array)
        start = len(self._text)
        self._text += memoryview(other._text)
        self._ends.extend(array("q", (np.frombuffer(other._ends, np.int64)[1:] + start).tobytes()))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(f"name {number} is out of range: there are {len(self)}")
        return os.fsdecode(bytes(self._text[self._ends[number] : self._ends[number + 1]]))

    def encoded(self, numbers: NDArray[np.integer]) -> list[bytes]:
        """These strings in UTF-8, in which bytes that are no characters stay as they are; `numbers` ascend by small steps."""
        ends = np.frombuffer(self._ends, np.int64)
        starts, stops = ends[numbers], ends[numbers + 1]
        text = bytes(self._text[starts[0] : stops[-1]])
        places = zip((starts - starts[0]).tolist(), (stops - starts[0]).tolist(), strict=True)
        found = [text[start:stop] for start, stop in places]
        if sys.getfilesystemencoding() == "utf-8":
            return found
        return [os.fsdecode(name).encode("utf-8", "surrogateescape") for name in found]

    @property
    def nbytes(self) -> int:
        return len(self._text) + len(self._ends) * self._ends.itemsize
