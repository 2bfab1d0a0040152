"""The parquet files of each split of a folder, by their names or those of their folders."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.remote import check_address
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import remote_files, remote_split
from wildfern.ssl.data.splits import ROLES, SPLIT_NAMES, Role, role_of, split_pair
from wildfern.ssl.data.steady_file import SteadyFile


@dataclass
class ParquetFiles:
    """Sorted files of one split, and words for them; `notes` are for the user."""

    files: list[Path | SteadyFile]
    words: str = ""
    notes: list[str] = field(default_factory=list)


def split_files(
    path: str | Path,
    split: str,
    named: str | None = None,
    other_named: str | None = None,
    cache: RemoteCache | None = None,
) -> ParquetFiles:
    """The files of a split; none where there is no test split.

    Recognized, in `path` or its folder `data`, in any case: NAME.parquet, NAME-*.parquet (also _ or .) and the files below the
    folder NAME, with NAME train or training; for test: test, testing or eval, else validation, valid, val or dev. A single file
    is the train split; so are all files of a folder if no name is of a split. `named` is the user's file, folder or pattern (*)
    below `path`, `other_named` that of the other split. Raises DataError if there is nothing, or two sets for one split.

    With `cache`, `path` is an address of files, with {split} or for the train split, or a folder that `named` is below.
    """
    if cache is not None:
        return _remote_split_files(str(path), split, named, other_named, cache)
    given = expanded(path)
    if named is not None:
        if not (found := _matching(given, named)):
            raise DataError(f"{split}_files: no parquet files {named} in {given}; it has {_seen(given)}")
        return ParquetFiles([*found], f"files {named}")
    if given.is_file():
        return ParquetFiles([given] if split == "train" else [])
    if not given.is_dir():
        parent = next(p for p in given.absolute().parents if p.is_dir())
        hint = ": give the folder, with train_files and test_files for patterns" if "*" in str(path) else ""
        raise DataError(f"{given} does not exist ({parent} exists){hint}")
    taken = set(_matching(given, other_named)) if other_named is not None else set()
    groups = _groups(given, taken)
    for role in ROLES[split]:
        found_groups = groups.get(role, {})
        if len(found_groups) > 1:
            raise DataError(
                f"{given} has {' and '.join(found_groups)} for the {split} split: set {split}_files to one of them or to "
                "a pattern"
            )
        for name, files in found_groups.items():
            unused: list[Role | None] = ["valid", None] if "test" in groups else [None]
            over = [pattern for other in unused for pattern in groups.get(other, {})]
            words = f"{given}: passed over {', '.join(over[:4])}{' …' if len(over) > 4 else ''}"
            return ParquetFiles(sorted(files), f"files {name}", [words] if over else [])
    unnamed = [file for files in groups.get(None, {}).values() for file in files]
    if set(groups) == {None} and (
        pair := split_pair([f.relative_to(given).with_suffix("").as_posix() for f in unnamed], shards=True)
    ):
        raise DataError(
            f"{given} has files that look like splits: set train_files: {pair[0]}*.parquet and test_files: {pair[1]}*.parquet "
            "(or train_files: '*' for all of them)"
        )
    if split == "train" and unnamed and set(groups) == {None}:
        note = f"{given}: no file is named after a split, so all {len(unnamed)} parquet files are the train split"
        return ParquetFiles(sorted(unnamed), "", [note] if len(unnamed) > 1 else [])
    return ParquetFiles([])


def _remote_split_files(
    address: str, split: str, named: str | None, other_named: str | None, cache: RemoteCache
) -> ParquetFiles:
    check_address(address)
    if named is not None:
        return ParquetFiles([*remote_files(f"{address.rstrip('/')}/{named}", cache)], f"files {named}")
    if other_named is not None:
        return ParquetFiles([])
    if "{split}" in address:
        files, words = remote_split(address, split, cache)
        return ParquetFiles([*files], words)
    if not address.lower().endswith(".parquet"):
        raise DataError(
            f"{address} is not searched for parquet files: name them, for example {address.rstrip('/')}/{{split}}-*.parquet or "
            "{split}-{00000..00009}.parquet, or set train_files and test_files"
        )
    return ParquetFiles([*remote_files(address, cache)] if split == "train" else [])


def no_files(path: str | Path, split: str, remote: bool = False) -> str:
    """Why there is no such split, and what would be right."""
    if remote:
        return (
            f"{path} has no {split} split; write {{split}} in place of train or test in its name, or set {split}_files"
            f"{' or test_fraction, for example 0.1' if split == 'test' else ''}"
        )
    given = expanded(path)
    if given.is_file():
        return (
            f"{given} is a single file and has no {split} split; give the folder with train.parquet and test.parquet, or set "
            "test_fraction, for example 0.1"
        )
    first = SPLIT_NAMES[ROLES[split][0]][0]
    others = [name for role in ROLES[split] for name in SPLIT_NAMES[role] if name != first]
    fraction = " or test_fraction" if split == "test" else ""
    return (
        f"no {first}.parquet, {first}-*.parquet or {first}/*.parquet (or {', '.join(others)}) in {given}; it has {_seen(given)}; "
        f"set {split}_files{fraction}"
    )


def _groups(given: Path, taken: set[Path]) -> dict[Role | None, dict[str, list[Path]]]:
    """Role -> pattern -> files; the role None is for files that are named after no split."""
    groups: dict[Role | None, dict[str, list[Path]]] = {}
    for prefix, folder in (("", given), ("data/", given / "data")):
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                role, name = role_of(entry.name), f"{prefix}{entry.name}/*.parquet"
                files = sorted(_below(entry)) if role is not None else []
            elif _is_parquet(entry):
                word, rest = _word(entry.name)
                role = role_of(word)
                name = prefix + (f"{word}{rest}" if role else entry.name)
                files = [entry]
            else:
                continue
            files = [file for file in files if file not in taken]
            if files:
                groups.setdefault(role, {}).setdefault(name, []).extend(files)
    return groups


def _word(name: str) -> tuple[str, str]:
    """(train, -*.parquet) for train-00000-of-00002.parquet."""
    word = re.match(r"[A-Za-z]*", name)[0]  # type: ignore[index]
    rest = name[len(word) :]
    return word, rest if rest.lower() == ".parquet" else f"{rest[:1]}*.parquet"


def _below(folder: Path) -> Iterator[Path]:
    """The parquet files at any depth, in order."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (file for name in sorted(names) if _is_parquet(file := Path(path, name)))


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet" and file.is_file() and not is_hidden(file.name)


def _matching(given: Path, named: str) -> list[Path]:
    """The file or folder of this name, else the files that match it as a pattern."""
    place = given / named
    if place.is_file():
        return [place]
    if place.is_dir():
        return sorted(_below(place))
    return sorted(file for file in given.glob(named) if _is_parquet(file)) if "*" in named else []


def _seen(given: Path) -> str:
    found = (str(file.relative_to(given)) for file in _below(given))
    return ", ".join(islice(found, 5)) or "no parquet files"
