"""A fingerprint of the files of a source: it changes if a file is added, removed, renamed or gets another size."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from wildfern.ssl.data.base import DataError, SourceFile
from wildfern.ssl.data.worker_threads import check_wanted, worker_threads

SAMPLED = 64  # files
SAMPLED_BYTES = 2**16  # at either end


@dataclass(frozen=True)
class Fingerprint:
    """Number of files, their bytes, and SHA-256 of their names and sizes in order; of their contents too, if asked for."""

    files: int
    bytes: int
    names: str
    contents: str | None = None


def fingerprint(files: Iterable[SourceFile], contents: bool = False) -> Fingerprint:
    """The fingerprint of these files; with `contents`, every file is read. Raises DataError for one that cannot be.

    Files that have a `known_fingerprint`, of names and sizes, are not listed for it.
    """
    known: Fingerprint | None = getattr(files, "known_fingerprint", None)
    if known is not None and not contents:
        return known
    names, inside = hashlib.sha256(), hashlib.sha256()
    count = total = 0
    remaining = iter(files)
    with worker_threads("fingerprint", 8) as pool:
        while part := list(islice(remaining, 1024)):
            encoded = [file.name.encode("utf-8", "surrogateescape") for file in part]
            names.update(fingerprint_lines([file.size for file in part], encoded))
            count, total = count + len(part), total + sum(file.size for file in part)
            if contents:
                for digest in pool.map(_sha256, (file.path for file in part)):
                    inside.update(digest)
    return Fingerprint(count, total, names.hexdigest(), inside.hexdigest() if contents else None)


def fingerprint_lines(sizes: Sequence[int], names: Sequence[bytes]) -> bytes:
    """What the digest of names and sizes is of, for these files."""
    return b"%d %b\n" * len(sizes) % tuple(chain.from_iterable(zip(sizes, names, strict=True)))


def sampled_contents(files: Iterable[SourceFile]) -> str:
    """SHA-256 of the first and last 64 KiB of up to 64 evenly spaced files. Raises DataError for one that cannot be read."""
    files = files if isinstance(files, Sequence) else list(files)
    chosen = [files[n * len(files) // SAMPLED] for n in range(SAMPLED)] if len(files) > SAMPLED else files
    with worker_threads("fingerprint", 8) as pool:
        return hashlib.sha256(b"".join(pool.map(_ends, (file.path for file in chosen)))).hexdigest()


def _ends(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256(start := file.read(SAMPLED_BYTES))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(len(start), size - SAMPLED_BYTES))
            digest.update(file.read(SAMPLED_BYTES))
        check_wanted()
        return digest.digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _sha256(path: str) -> bytes:
    try:
        digest, part = hashlib.sha256(), memoryview(bytearray(2**20))
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(part):
                digest.update(part[:count])
                check_wanted()
        return digest.digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read for its fingerprint: {error.strerror}")
