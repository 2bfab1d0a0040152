"""The samples of all shards of a set, as a few arrays that are kept between commands and mapped by all processes of a host."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.file_names import PassedOver
from wildfern.ssl.data.index_file import IndexArrays, lasting_index
from wildfern.ssl.data.splits import name_in_test
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import COMPILED_FROM, MemberNames, index_shard
from wildfern.ssl.data.worker_threads import worker_threads
from wildfern.ssl.tracking.current_progress import current_progress

_VERSION = 2  # of the table: raise it when the same shards give other arrays
KEPT_FROM = 20_000  # samples; the headers of fewer are read at every start
_LEAST_BYTES = 1024  # of a sample: a header and its content
_RECENT = 2 * 10**9  # ns: a shard may be written again within the resolution of its time

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ShardTable:
    """Where the images and labels of N samples in S shards are, in the order of the shards.

    starts int64[S + 1]: the first sample of each shard, and N. offsets, sizes, label_offsets, label_sizes [N]: in the shard, of
    32 bits where they fit; in_json [N]: 1 for a label in a .json. The three of labels are empty if there are none. The names of
    shard s are text[text_starts[s] : text_starts[s + 1]], split at ends[starts[s] + s : starts[s + 1] + s + 1].
    counts int64[3]: members but those of operating systems, those passed over, labels without an image. remarks: what is passed
    over in words, then the faults of the shards faulty int64[F], each ended by a zero byte. facts: SHA-256 of the shards' names
    and `SteadyFile.facts`.
    """

    facts: NDArray[np.uint8]
    starts: Index
    offsets: NDArray
    sizes: NDArray
    label_offsets: NDArray
    label_sizes: NDArray
    in_json: NDArray[np.uint8]
    text: NDArray[np.uint8]
    text_starts: Index
    ends: NDArray
    counts: Index
    faulty: Index
    remarks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets)

    def shard_of(self, sample: int) -> int:
        """The number of the shard of a sample."""
        return int(np.searchsorted(self.starts, sample, side="right")) - 1

    def names_of(self, shard: int) -> MemberNames:
        """The names of the images of a shard."""
        first, last = self.starts[shard : shard + 2]
        text = self.text[self.text_starts[shard] : self.text_starts[shard + 1]]
        return MemberNames(text, self.ends[first + shard : last + shard + 1])

    def name(self, sample: int) -> str:
        shard = self.shard_of(sample)
        return self.names_of(shard)[sample - int(self.starts[shard])]

    def labels_of(self, shard: int) -> list[tuple[int, int, bool]]:
        """Offset, size, and whether in a .json, of the label of each sample of a shard; size 0: none."""
        first, last = self.starts[shard : shard + 2].tolist()
        if not len(self.label_sizes):
            return [(0, 0, False)] * (last - first)
        columns = (self.label_offsets, self.label_sizes, self.in_json.view(np.bool_))
        return list(zip(*(column[first:last].tolist() for column in columns), strict=True))

    @property
    def passed_over(self) -> str:
        """What is passed over, in words."""
        return self._words()[0]

    @property
    def faults(self) -> dict[int, str]:
        """Why shards could not be read to their ends, by their numbers."""
        return dict(zip(self.faulty.tolist(), self._words()[1:-1], strict=True))

    def _words(self) -> list[str]:
        return self.remarks.tobytes().decode("utf-8", "surrogateescape").split("\0")


_COLUMNS = ("offsets", "sizes", "label_offsets", "label_sizes")


def shard_table(shards: Sequence[SteadyFile], folder: Path | None) -> ShardTable:
    """The samples of these shards, from the index kept in `folder`, or else from their headers, which may raise DataError.

    An index is valid for the same names and `SteadyFile.facts` of all shards. It is kept for 20 000 samples or more, and for
    remote shards; with `folder` None, and for shards that were written in the last two seconds, none is read or written.
    """
    names = _names_digest(shards)
    described = ascii([_VERSION, names, [shard.facts for shard in shards]])
    facts = np.frombuffer(hashlib.sha256(described.encode()).digest(), np.uint8)
    arrays = lasting_index(
        f"shards-{names}",
        lambda found: _is_table(found, facts, len(shards)),
        lambda: _read_headers(shards, facts),
        lambda found: _is_remote(shards) or len(found["offsets"]) >= KEPT_FROM,
        folder if _may_be_kept(shards) else None,
    )
    return ShardTable(**arrays)


def split_samples(
    table: ShardTable, shards: Sequence[SteadyFile], test_fraction: float, folder: Path | None
) -> IndexArrays:
    """The numbers of the samples of each split, {"train": …, "test": …}, ascending, by a hash of their names (`name_in_test`).

    Kept in `folder` as the table is.
    """

    def choose() -> IndexArrays:
        names = chain.from_iterable(table.names_of(shard) for shard in range(len(shards)))
        in_test = np.fromiter((name_in_test(name, test_fraction) for name in names), np.bool_, len(table))
        chosen = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}
        return {"facts": table.facts, **{split: _narrow(samples) for split, samples in chosen.items()}}

    def is_current(found: IndexArrays) -> bool:
        same = found.keys() == {"facts", "train", "test"} and np.array_equal(found["facts"], table.facts)
        return same and len(found["train"]) + len(found["test"]) == len(table)

    return lasting_index(
        f"shards-{_names_digest(shards)}-test-{test_fraction!r}",
        is_current,
        choose,
        lambda found: _is_remote(shards) or len(table) >= KEPT_FROM,
        folder if _may_be_kept(shards) else None,
    )


def _names_digest(shards: Sequence[SteadyFile]) -> str:
    names = "\0".join(shard.full_path for shard in shards)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _is_remote(shards: Sequence[SteadyFile]) -> bool:
    return shards[0].cache is not None


def _may_be_kept(shards: Sequence[SteadyFile]) -> bool:
    if _is_remote(shards):
        return True
    enough = sum(shard.size for shard in shards) >= KEPT_FROM * _LEAST_BYTES
    return enough and max(max(shard.changed, shard.state[1]) for shard in shards) < time.time_ns() - _RECENT


def _is_table(found: IndexArrays, facts: NDArray[np.uint8], shards: int) -> bool:
    """Whether these arrays are a table of these shards, as far as can be seen without reading all of it."""
    if found.keys() != {field.name for field in fields(ShardTable)}:
        return False
    if (
        any(array.ndim != 1 or array.dtype.kind not in "iu" for array in found.values())
        or found["in_json"].itemsize != 1
    ):
        return False
    starts, text_starts, samples = found["starts"], found["text_starts"], len(found["offsets"])
    labeled = len(found["label_sizes"])
    return (
        np.array_equal(found["facts"], facts)
        and len(starts) == len(text_starts) == shards + 1
        and bool((np.diff(starts) >= 0).all() and (np.diff(text_starts) >= 0).all())
        and (starts[0], starts[-1], text_starts[0], text_starts[-1]) == (0, samples, 0, len(found["text"]))
        and len(found["sizes"]) == samples
        and len(found["ends"]) == samples + shards
        and labeled in (0, samples)
        and len(found["label_offsets"]) == len(found["in_json"]) == labeled
        and len(found["counts"]) == 3
        and bool((found["faulty"] < shards).all())
        and found["remarks"].tobytes().count(b"\0") == len(found["faulty"]) + 1
    )


def _read_headers(shards: Sequence[SteadyFile], facts: NDArray[np.uint8]) -> IndexArrays:
    """The fields of the table, from the headers of all shards."""
    compiled = sum(shard.size for shard in shards) >= COMPILED_FROM
    parts: dict[str, list[NDArray]] = {name: [] for name in (*_COLUMNS, "in_json", "text", "ends")}
    samples, texts = [0], [0]
    over, members, lone_labels = PassedOver(), 0, 0
    faults: dict[int, str] = {}
    with worker_threads("shards") as pool:
        for number, index in enumerate(pool.map(lambda shard: index_shard(shard, compiled), shards)):
            for name in (*_COLUMNS, "ends"):
                parts[name].append(_narrow(np.frombuffer(getattr(index, name), np.int64)))
            parts["in_json"].append(np.frombuffer(index.in_json, np.uint8))
            parts["text"].append(np.frombuffer(index.text, np.uint8))
            samples.append(samples[-1] + len(index.offsets))
            texts.append(texts[-1] + len(index.text))
            over.update(index.passed_over)
            members += index.members
            lone_labels += index.lone_labels
            if index.fault is not None:
                faults[number] = index.fault
            current_progress().count(number + 1, len(shards), "shards")
    if not any(sizes.any() for sizes in parts["label_sizes"]):
        for name in ("label_offsets", "label_sizes", "in_json"):
            parts[name] = [part[:0] for part in parts[name]]
    arrays = {name: np.concatenate(parts.pop(name)) for name in list(parts)}  # one at a time: they may be large
    words = "".join(f"{text}\0" for text in (str(over).replace("\0", " "), *faults.values()))
    return {
        "facts": facts,
        "starts": np.array(samples),
        **arrays,
        "text_starts": np.array(texts),
        "counts": np.array([members, over.total, lone_labels]),
        "faulty": np.array(list(faults), np.int64),
        "remarks": np.frombuffer(words.encode("utf-8", "surrogateescape"), np.uint8),
    }


def _narrow(numbers: NDArray[np.int64]) -> NDArray:
    """The same numbers of 32 bits, if these are enough; a copy."""
    return numbers.astype(np.uint32 if numbers.max(initial=0) < 2**32 else np.int64)
