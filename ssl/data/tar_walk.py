"""The samples of a tar shard, found by compiled loops; the first unusual header is left to `tar_headers`, the reference.

Usual is what tar programs write for data sets: ustar, GNU long names, and extended headers with names. Sparse files, sizes in
extended headers, damage and the like are not.
"""

from typing import BinaryIO

import numpy as np

from wildfern.generators.compiling import kernel
from wildfern.ssl.data.tar_header_loop import (
    AT,
    COUNTED,
    DROPPED,
    END,
    LONE_LABELS,
    MEMBERS,
    MORE,
    OTHERS,
    SAMPLES,
    UNUSUAL,
    Walk,
    find_members,
)
from wildfern.ssl.data.tar_headers import LINKS
from wildfern.ssl.data.tar_index import ShardIndex
from wildfern.ssl.data.tar_sample_loop import HARD, SYMBOLIC, WHOLE_NAME, drop_members, group_members
from wildfern.ssl.data.worker_threads import check_wanted

_LARGE, _SMALL = 2**16, 2**13  # bytes that are read at once, the latter after an image that is longer than the former
_MEMBERS = 512  # in the table
_WORDS = {HARD: LINKS[b"1"], SYMBOLIC: LINKS[b"2"]}


@kernel("the reading of tar shards")
def walk_piece(sources: int):
    """The kernel that finds the samples whose headers are in a piece of a shard."""

    def walk_piece(piece, filled, base, length, walk):
        """Go on at `walk.state[AT]` in `piece` (uint8[P]): the `filled` bytes from byte `base` on of a shard of `length` bytes.

        Returns MORE if the next header is not whole in the piece, else FULL, END or UNUSUAL, with the samples that are complete.
        """
        _ = sources  # in numba's cache key
        drop_members(walk)
        reason = find_members(piece, filled, base, length, walk)
        if reason != MORE:
            group_members(walk, reason == END)
        return reason

    return walk_piece


def walk_shard(file: BinaryIO, index: ShardIndex) -> int | None:
    """Add the samples of a shard, opened as `file`, to its empty index.

    Returns where the reading must be continued, at the first header of a sample, or None at the end of the shard. Only pieces
    with headers are read: images of more than 64 KiB are skipped.
    """
    walk = Walk.empty(_MEMBERS, _LARGE)
    piece = np.zeros(_LARGE, np.uint8)
    base, wanted = 0, _LARGE
    filled = file.readinto(memoryview(piece))  # type: ignore[attr-defined]
    while True:
        check_wanted()
        reason = walk_piece(piece, filled, base, index.file.size, walk)
        at, members, dropped = (int(walk.state[number]) for number in (AT, MEMBERS, DROPPED))
        if reason == MORE:
            if at == base and wanted == _LARGE:  # longer than a piece, or cut off
                return int(walk.table[0, 4]) if members else at
            wanted = _SMALL if at - base - filled > _LARGE else _LARGE
            file.seek(at)
            base, filled = at, file.readinto(memoryview(piece)[:wanted])  # type: ignore[attr-defined]
            continue
        _take(index, walk)
        if reason == END:
            return None
        if reason == UNUSUAL or not dropped:
            return int(walk.table[dropped, 4]) if dropped < members else at


def _take(index: ShardIndex, walk: Walk) -> None:
    """Add the samples that a call completed to the index."""
    state, samples = walk.state, walk.samples[: walk.state[SAMPLES]]
    if len(samples):
        index.text += walk.names[: samples[-1, 0]].tobytes()
        index.ends.frombytes((samples[:, 0] + index.ends[-1]).tobytes())
    columns = (index.offsets, index.sizes, index.label_offsets, index.label_sizes)
    for column, values in zip(columns, samples.T[1:5], strict=True):
        column.frombytes(values.tobytes())
    index.in_json += samples[:, 5].astype(np.uint8).tobytes()
    index.members += int(state[COUNTED])
    index.lone_labels += int(state[LONE_LABELS])
    text = walk.text.tobytes()
    for start, end, kind in walk.others[: state[OTHERS]].tolist():
        name = text[start:end].decode("utf-8", "surrogateescape")
        if kind in _WORDS:
            index.passed_over.add(name, _WORDS[kind])
        elif kind == WHOLE_NAME:
            index.passed_over.add(name)
        else:
            index.passed_over.add(name, f".{name.lower()}" if name else "")
