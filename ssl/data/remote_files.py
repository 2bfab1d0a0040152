"""The remote files that a pattern of addresses names, noted as they are now."""

import glob
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from wildfern.cache_folder import cache_folder
from wildfern.files import read_bytes, write_text
from wildfern.ssl.data.base import DataError, SourceFile
from wildfern.ssl.data.remote import UNTOLD, Denied, Missing, Store, check_address
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.shard_files import expand_braces, of_split
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.worker_threads import in_threads

_LISTED_FROM = 16  # files of a folder: fewer are asked for one by one

Facts = tuple[int, int]


def remote_files(pattern: str, cache: RemoteCache) -> list[SteadyFile]:
    """The files that a pattern of addresses names, in order: brace ranges and lists, and globs where the store can list.

    Raises DataError if one named by braces is missing, nothing matches, or the store cannot be read.
    """
    check_address(pattern)
    scheme, _, rest = pattern.partition("://")
    store, addresses = Store(pattern := f"{scheme.lower()}://{rest}"), []
    for one in expand_braces(pattern):
        addresses.extend(store.matching(one) if _is_glob(one) else [one])
    facts = _facts(store, addresses)
    if missing := [address for address in addresses if address not in facts]:
        raise DataError(
            f"{len(missing)} of the {len(addresses)} files of {pattern} are missing, the first is {missing[0]}"
        )
    if not addresses:
        advice = (
            ""
            if store.lists
            else "; a web server must list its folder for *: brace ranges such as {000..099} need no list"
        )
        raise DataError(f"no file matches {pattern}{advice}")
    return _with_contents([SteadyFile(address, *facts[address], cache) for address in addresses], cache, pattern)


def remote_split(pattern: str, split: str, cache: RemoteCache) -> tuple[list[SteadyFile], str]:
    """The files of a split of a pattern with {split}, and words for it, as `split_shards` for paths. Raises DataError."""
    check_address(pattern)

    def look(named: str) -> tuple[str, list[SteadyFile]] | None:
        first = expand_braces(named)[0]
        store = Store(first)
        there = store.matching(first) if _is_glob(first) else _facts(store, [first])
        return (files[0].path, files) if there and (files := remote_files(named, cache)) else None

    return of_split(pattern, split, look)


def listed_remote(files: Sequence[SteadyFile]) -> Iterator[SourceFile]:
    """These files, named relative to the folder that holds all of them.

    The path of each is that of one small file with a digest of their addresses and of what the store told of their contents: it
    stands for the contents in fingerprints, for which nothing is downloaded.
    """
    facts = "".join(f"{file.path}\t{file.size}\t{file.changed}\n" for file in files)
    digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()
    path = cache_folder("remote") / f"{digest[:32]}.contents"
    _keep(path, f"{digest}\n")
    names = ["/" + file.path.replace("://", "/", 1) for file in files]
    folder = os.path.commonpath([os.path.dirname(name) for name in names])
    for name, file in zip(names, files, strict=True):
        yield SourceFile(name.removeprefix(folder).lstrip("/"), file.size, str(path))


def _keep(path: Path, text: str) -> None:
    """Write the file, unless it has this text: it may be damaged."""
    try:
        if read_bytes(path, len(text)) == text.encode():
            return
    except OSError:
        pass
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    write_text(path, text)


def _with_contents(files: list[SteadyFile], cache: RemoteCache, pattern: str) -> list[SteadyFile]:
    """The same files; for those of which the server tells nothing, with a number for the contents that they have now."""
    untold = [file for file in files if file.changed == UNTOLD]
    if not untold:
        return files
    found = in_threads(cache.by_contents, untold, "remote files")
    if downloaded := sum(is_new for _, is_new in found):
        warnings.warn(
            f"{pattern}: the server tells neither ETag nor time of change of {len(untold):,} of {len(files):,} files; since the "
            f"copies of earlier runs may be out of date, {downloaded:,} were downloaded (again), as at every start",
            stacklevel=2,
        )
    known = {file.path: file for file, _ in found}
    return [known.get(file.path, file) for file in files]


def _is_glob(address: str) -> bool:
    return glob.has_magic(address.split("/", 3)[-1])  # a host may be [::1]


def _facts(store: Store, addresses: Sequence[str]) -> dict[str, Facts]:
    """Bytes, and the number for the contents, of those files that exist."""
    folders: dict[str, list[str]] = {}
    for address in addresses:
        folder, _, name = address.rpartition("/")
        folders.setdefault(folder, []).append(name)
    found: dict[str, Facts] = {}
    single = []
    for folder, names in folders.items():
        listed = _listed(store, folder) if store.lists and len(names) >= _LISTED_FROM else None
        if listed is None:
            single.extend(f"{folder}/{name}" for name in names)
        else:
            found |= {f"{folder}/{name}": listed[name] for name in names if name in listed}

    def ask(address: str) -> Facts | None:
        try:
            return store.facts(address)
        except Missing:
            return None

    answers = zip(single, in_threads(ask, single, "remote files"), strict=True)
    return found | {address: facts for address, facts in answers if facts is not None}


def _listed(store: Store, folder: str) -> dict[str, Facts] | None:
    """Facts by name; None for a folder that may be read, but not listed."""
    try:
        return store.listed(folder)
    except Denied:
        return None
