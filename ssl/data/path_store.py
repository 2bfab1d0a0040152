"""Compact storage of many file names: one buffer of bytes and one array of end offsets."""

import os
from array import array

import numpy as np


class PathStore:
    """An append-only list of strings; takes the bytes of the text plus 8 per string."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])

    def append(self, name: str) -> None:
        self._text += os.fsencode(name)
        self._ends.append(len(self._text))

    def extend(self, other: "PathStore") -> None:
        start = len(self._text)
        self._text += other._text
        self._ends.extend(array("q", (np.frombuffer(other._ends, np.int64)[1:] + start).tobytes()))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(f"name {number} is out of range: there are {len(self)}")
        return os.fsdecode(bytes(self._text[self._ends[number] : self._ends[number + 1]]))

    @property
    def nbytes(self) -> int:
        return len(self._text) + len(self._ends) * self._ends.itemsize
