"""The loop that makes samples of the members of a tar shard, compiled: those that `tar_index` makes."""

import numpy as np
from numba import njit

from wildfern.ssl.data.file_names import LITTER
from wildfern.ssl.data.image_file import EXTENSIONS
from wildfern.ssl.data.tar_header_loop import (
    COUNTED,
    DROPPED,
    HARD_LINK,
    LONE_LABELS,
    MEMBERS,
    OTHERS,
    SAMPLES,
    TEXT,
    copy_text,
)
from wildfern.ssl.data.tar_index import PREFERRED

EXTENSION, WHOLE_NAME, HARD, SYMBOLIC = range(4)  # what a row of `Walk.others` refers to: part of a name, or links

_LONGEST = 7  # letters of an extension in a number


def _packed(extension: str) -> int:
    """An extension in lower case, without its dot, as a number; the 1 before it keeps zero bytes apart."""
    return int.from_bytes(b"\1" + extension.encode(), "big")


_CLS, _JSON = _packed("cls"), _packed("json")
# Of images: the packed extension, and 1 for those that are preferred.
_IMAGES = np.array([[_packed(e[1:]), e.endswith(tuple(p[1:] for p in PREFERRED))] for e in EXTENSIONS], np.int64)
_WORDS = np.array([list(name.encode().ljust(16, b"\0")) for name in sorted(LITTER)], np.uint8)
_LENGTHS = np.array([len(name) for name in sorted(LITTER)], np.int64)


@njit
def _lower(byte):
    return byte + 32 if 65 <= byte <= 90 else np.int64(byte)


@njit
def _pack(text, start, end):
    """As `_packed`; -1 for what is no extension by its length."""
    if end - start > _LONGEST or end <= start:
        return np.int64(-1)
    value = np.int64(1)
    for place in range(start, end):
        value = value * 256 + _lower(text[place])
    return value


@njit
def _is_litter(text, start, end):
    """`file_names.is_litter` of one name."""
    part = start
    while part <= end:
        stop = part
        while stop < end and text[stop] != 47:
            stop += 1
        if stop - part >= 2 and text[part] == 46 and text[part + 1] == 95:  # "._"
            return True
        for number in range(_LENGTHS.size):
            if _LENGTHS[number] == stop - part:
                place = 0
                while place < stop - part and _lower(text[part + place]) == _WORDS[number, place]:
                    place += 1
                if place == stop - part:
                    return True
        part = stop + 1
    return False


@njit
def _parts(text, start, end):
    """The end of the folder in a name, and start of the base name, and its first dot or else its end."""
    base = end
    while base > start and text[base - 1] != 47:
        base -= 1
    folder_end = base
    while folder_end > start and text[folder_end - 1] == 47:
        folder_end -= 1
    if folder_end == start:  # none, or slashes only
        folder_end = base
    dot = base
    while dot < end and text[dot] != 46:
        dot += 1
    return folder_end, base, dot


@njit
def _same(text, start, end, other, other_end):
    if end - start != other_end - other:
        return False
    for place in range(end - start):  # noqa: SIM110 (a generator in compiled code)
        if text[start + place] != text[other + place]:
            return False
    return True


@njit
def group_members(walk, finished):
    """Make samples of the members in the table, as `tar_index` does; the last sample only if the shard is `finished`."""
    state, text, table = walk.state, walk.text, walk.table
    state[DROPPED] = state[SAMPLES] = state[OTHERS] = state[COUNTED] = state[LONE_LABELS] = 0
    first, folder, base, dot = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)  # of the current sample
    image, preferred, label, in_json = np.int64(-1), False, np.int64(-1), False  # its members
    others, counted, named = np.int64(0), np.int64(0), np.int64(0)
    for member in range(state[MEMBERS] + 1):
        closes = member == state[MEMBERS]
        if closes and not finished:
            break
        start, end = table[member, 0] if not closes else 0, table[member, 1] if not closes else 0
        if not closes and _is_litter(text, start, end):
            continue
        if not closes and table[member, 2] < 0:  # a link, which belongs to no sample
            walk.others[others, 0], walk.others[others, 1] = start, end
            walk.others[others, 2] = HARD if table[member, 2] == HARD_LINK else SYMBOLIC
            others, counted = others + 1, counted + 1
            if first < 0:
                state[DROPPED], state[OTHERS], state[COUNTED] = member + 1, others, counted
            continue
        if not closes:
            own_folder, own_base, own_dot = _parts(text, start, end)
            closes = first >= 0 and not (
                _same(text, start, own_folder, table[first, 0], folder) and _same(text, own_base, own_dot, base, dot)
            )
        if closes:
            if image >= 0:
                sample = walk.samples[state[SAMPLES]]
                named = copy_text(text, table[image, 0], table[image, 1], walk.names, named)
                sample[0], sample[1], sample[2] = named, table[image, 2], table[image, 3]
                sample[3] = table[label, 2] if label >= 0 else 0
                sample[4] = table[label, 3] if label >= 0 else 0
                sample[5] = in_json
                state[SAMPLES] += 1
            elif label >= 0:
                state[LONE_LABELS] += 1
            state[DROPPED], state[OTHERS], state[COUNTED] = member, others, counted
            first, image, preferred, label, in_json = -1, -1, False, -1, False
        if member == state[MEMBERS]:
            break
        if first < 0:
            first, folder, base, dot = member, own_folder, own_base, own_dot
            state[DROPPED] = member
        counted += 1
        last = end
        while last > start and text[last - 1] != 46:
            last -= 1
        tail = _pack(text, last, end) if last > start else np.int64(-1)
        is_image, is_preferred = False, False
        for number in range(len(_IMAGES)):
            if _IMAGES[number, 0] == tail:
                is_image, is_preferred = True, _IMAGES[number, 1] == 1
        ending = _pack(text, own_dot + 1, end)
        if is_image and (image < 0 or (is_preferred and not preferred)):
            if image >= 0:
                walk.others[others, 0], walk.others[others, 1] = table[image, 0], table[image, 1]
                walk.others[others, 2] = WHOLE_NAME
                others += 1
            image, preferred = member, is_preferred
        elif ending == _CLS or (ending == _JSON and label < 0):
            label, in_json = member, ending == _JSON
        elif ending != _JSON:
            walk.others[others, 0], walk.others[others, 1] = min(own_dot + 1, end), end
            walk.others[others, 2] = EXTENSION
            others += 1
    if finished or first < 0:
        state[DROPPED] = state[MEMBERS]


@njit
def drop_members(walk):
    """Take the members that the last call was done with out of the table."""
    state, text, table = walk.state, walk.text, walk.table
    dropped = state[DROPPED]
    if dropped:
        begin = table[dropped, 0] if dropped < state[MEMBERS] else state[TEXT]
        for place in range(begin, state[TEXT]):
            text[place - begin] = text[place]
        for member in range(dropped, state[MEMBERS]):
            for column in range(table.shape[1]):
                table[member - dropped, column] = table[member, column]
            table[member - dropped, 0] -= begin
            table[member - dropped, 1] -= begin
        state[MEMBERS] -= dropped
        state[TEXT] -= begin
    state[DROPPED] = 0
