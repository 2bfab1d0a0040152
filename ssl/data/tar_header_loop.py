"""The loop over the headers of a tar shard, compiled: the members that `tar_headers.members` gives, where all is usual."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

MORE, FULL, END, UNUSUAL = range(
    4
)  # why the loop stops: other bytes are needed, its table is full, the end of the shard, or …
HARD_LINK, SYMBOLIC_LINK = -1, -2  # instead of an offset in `Walk.table`
AT, MEMBERS, TEXT, DROPPED, SAMPLES, OTHERS, COUNTED, LONE_LABELS = range(8)  # of `Walk.state`

_BLOCK = 512
_SPARSE, _SIZE, _PATH = (np.frombuffer(word, np.uint8) for word in (b"GNU.sparse.", b"size", b"path"))


class Walk(NamedTuple):
    """What the loop keeps between its calls, and its results, which each call replaces.

    state int64[8]: where the next header is (AT); members in the table and their bytes of text; how many of them the last call
    was done with (DROPPED); and of the samples that it completed: their number, the number of `others`, members but those of
    operating systems (COUNTED), and labels without an image.
    """

    state: NDArray[np.int64]
    text: NDArray[np.uint8]  # names of the members in the table
    table: NDArray[
        np.int64
    ]  # [M, 5]: start and end of the name in `text`; offset (or *_LINK) and size of the content; first header
    samples: NDArray[
        np.int64
    ]  # [M, 6]: end of the name in `names`; offset, size; offset and size of the label; 1: in a .json
    names: NDArray[np.uint8]
    others: NDArray[np.int64]  # [M, 3]: start and end in `text` of what is passed over, and which part of a name it is

    @classmethod
    def empty(cls, members: int, text: int) -> "Walk":
        """For a table of `members` members and `text` bytes of text."""
        shapes = ((members, 5), (members, 6), (text,), (members, 3))
        kinds = (np.int64, np.int64, np.uint8, np.int64)
        arrays = (np.zeros(shape, kind) for shape, kind in zip(shapes, kinds, strict=True))
        return cls(np.zeros(8, np.int64), np.zeros(text, np.uint8), *arrays)


@njit
def _octal(piece, at, width):
    """A field of spaces, octal digits and spaces, up to a zero byte; -1 for anything else."""
    place, end, value = at, at + width, np.int64(0)
    while place < end and piece[place] == 32:
        place += 1
    while place < end and 48 <= piece[place] <= 55:
        value = value * 8 + (piece[place] - 48)
        place += 1
    while place < end and piece[place] == 32:
        place += 1
    return value if place == end or piece[place] == 0 else np.int64(-1)


@njit
def _size(piece, at):
    """The size of a member from its header: octal, or after 0x80 seven bytes of base 256; -1 for anything else."""
    if piece[at + 124] == 0x80:
        value = np.int64(0)
        for place in range(at + 125, at + 136):
            if value >> 47:
                return np.int64(-1)
            value = value * 256 + piece[place]
        return value
    for place in range(at + 124, at + 136):
        if piece[place] == 45:  # "-"
            return np.int64(-1)
    return _octal(piece, at + 124, 12)


@njit
def _sums(piece, at):
    """The sum of the bytes of a header with its checksum as spaces, their sum as signed bytes, and whether all are zero."""
    header = piece[at : at + _BLOCK]
    total, high, field, high_field = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for place in range(_BLOCK):
        total += header[place]
        high += header[place] >> 7
    for place in range(148, 156):
        field += header[place]
        high_field += header[place] >> 7
    unsigned = total - field + 8 * 32
    return unsigned, unsigned - 256 * (high - high_field), total == 0


@njit
def _up_to_zero(piece, start, width):
    end = start
    while end < start + width and piece[end]:
        end += 1
    return end


@njit
def _path_in_records(piece, start, end):
    """The name in the records `LENGTH KEY=VALUE` of an extended header: whether all records are usual, its start and its end.

    The start is -1 if there is no name. Unusual are damage, sizes, and sparse files.
    """
    path_start, path_end = np.int64(-1), np.int64(-1)
    at = start
    while at < end and 48 <= piece[at] <= 57:
        length, place = np.int64(0), at
        while place < end and place - at < 10 and 48 <= piece[place] <= 57:
            length = length * 10 + (piece[place] - 48)
            place += 1
        stop = at + length
        if place == end or piece[place] != 32 or stop > end or stop <= place + 2:
            return False, path_start, path_end
        key_end = place + 1
        while key_end < stop - 1 and piece[key_end] != 61:  # "="
            key_end += 1
        if _starts(piece, place + 1, stop - 1, _SPARSE) or (
            key_end - place - 1 == 4 and _starts(piece, place + 1, stop - 1, _SIZE)
        ):
            return False, path_start, path_end
        if key_end - place - 1 == 4 and _starts(piece, place + 1, stop - 1, _PATH):
            path_start, path_end = min(key_end + 1, stop - 1), stop - 1
        at = stop
    return True, path_start, path_end


@njit
def _starts(text, start, end, word):
    if end - start < word.size:
        return False
    for place in range(word.size):  # noqa: SIM110 (a generator in compiled code)
        if text[start + place] != word[place]:
            return False
    return True


@njit
def copy_text(source, start, end, target, at):
    for place in range(start, end):
        target[at + place - start] = source[place]
    return at + end - start


@njit
def find_members(piece, filled, base, length, walk):
    """Fill the table with the next members: `piece` has the bytes of the shard from `base` on, `filled` of them."""
    state = walk.state
    while True:
        at = state[AT]  # of this header; state[AT] stays at the first one of a member until all of them are read
        path_start, path_end = np.int64(-1), np.int64(-1)  # in the piece
        while True:
            here = at - base
            if here + _BLOCK > filled:
                return MORE
            unsigned, signed, nothing = _sums(piece, here)
            if nothing:
                return END
            written, size, kind = _octal(piece, here + 148, 8), _size(piece, here), piece[here + 156]
            if written < 0 or (written != unsigned and written != signed) or size < 0 or kind == 83:  # S: sparse
                return UNUSUAL
            data = here + _BLOCK
            name_end = _up_to_zero(piece, here, 100)
            is_folder = kind == 0 and name_end > here and piece[name_end - 1] == 47  # "/"
            end = data if is_folder or 49 <= kind <= 54 else data + size  # 1 … 6: without data
            if base + end > length:
                return UNUSUAL
            after = base + end + (-end) % _BLOCK
            is_long, is_global, is_own = kind == 76, kind == 103, kind == 120 or kind == 88  # L, g, x or X
            if not (is_long or is_global or is_own or kind == 75):  # K: the long name of the target of a link
                break
            if kind != 75:
                if end > filled:
                    return MORE
                if is_long:
                    found, found_end = data, _up_to_zero(piece, data, size)
                else:
                    usual, found, found_end = _path_in_records(piece, data, end)
                    if not usual or (is_global and found >= 0):
                        return UNUSUAL
                if path_start < 0 <= found:  # of several headers before a file the first is the outer one
                    path_start, path_end = found, found_end
            at = after
        is_link = kind == 49 or kind == 50  # 1: hard, 2: symbolic
        if ((kind == 48 or kind == 0 or kind == 55) and not is_folder) or is_link:  # regular files and links
            count, text_at = state[MEMBERS], state[TEXT]
            if path_start >= 0:
                while path_end > path_start and piece[path_end - 1] == 47:
                    path_end -= 1
                needed = path_end - path_start
            else:
                prefix_end = _up_to_zero(piece, here + 345, 155)
                needed = name_end - here + (prefix_end - here - 345) + 1
            if count == len(walk.table) or text_at + needed > walk.text.size:
                return FULL
            start = text_at
            if path_start >= 0:
                text_at = copy_text(piece, path_start, path_end, walk.text, text_at)
            else:
                if prefix_end > here + 345:
                    text_at = copy_text(piece, here + 345, prefix_end, walk.text, text_at)
                    walk.text[text_at] = 47
                    text_at += 1
                text_at = copy_text(piece, here, name_end, walk.text, text_at)
            for place in range(start, text_at - 2):
                # U+212A, the only character outside ASCII whose lower case, k, is in the names that are looked for
                if walk.text[place] == 0xE2 and walk.text[place + 1] == 0x84 and walk.text[place + 2] == 0xAA:
                    return UNUSUAL
            row = walk.table[count]
            row[0], row[1], row[2], row[3], row[4] = start, text_at, base + data, size, state[AT]
            if is_link:
                row[2], row[3] = HARD_LINK if kind == 49 else SYMBOLIC_LINK, 0
            state[MEMBERS], state[TEXT] = count + 1, text_at
        state[AT] = after
