"""The files that a pattern names: globs, shell braces, and {split}."""

import glob
import os
import re
from collections.abc import Callable, Hashable
from typing import TypeVar

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.splits import ROLES, SPLIT_NAMES

T = TypeVar("T")


def shard_files(pattern: str) -> list[str]:
    """The files that a pattern names, in order. Raises DataError if one named by braces is missing or nothing matches."""
    files = _named(pattern)
    missing = [file for file, is_file in zip(files, _are_files(files), strict=True) if not is_file]
    if missing and os.path.isdir(missing[0]):
        raise DataError(f"{missing[0]} is a folder; name its shards, for example {missing[0]}/*.tar")
    if missing and os.path.exists(missing[0]):
        raise DataError(f"{missing[0]} is not a regular file; shards are tar files")
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(files)} shards of {pattern} are missing, the first is {missing[0]}"
        )
    if not files:
        raise DataError(f"no file matches {pattern}")
    return files


def split_shards(pattern: str, split: str) -> tuple[list[str], str]:
    """The files of a split of a pattern with {split}, and words for it ("shards of validation").

    {split} is a usual name of the split in lower case, with a capital, or in capitals. Raises DataError if none or several exist.
    """

    def look(named: str) -> tuple[tuple[int, int], list[str]] | None:
        if not any(_are_files(_named(named))):
            return None
        files = shard_files(named)
        status = os.stat(files[0])
        return (status.st_dev, status.st_ino), files

    return of_split(pattern, split, look)


def of_split(pattern: str, split: str, look: Callable[[str], tuple[Hashable, list[T]] | None]) -> tuple[list[T], str]:
    """Like `split_shards`. `look` returns what identifies the first file that a pattern names, and all; None if there is none."""
    for role in ROLES[split]:
        found: dict[Hashable, tuple[str, list[T]]] = {}  # by the first file: some disks ignore case
        for name in (form for word in SPLIT_NAMES[role] for form in (word, word.capitalize(), word.upper())):
            if (there := look(pattern.replace("{split}", name))) is not None:
                first, files = there
                found.setdefault(first, (name, files))
        if len(found) > 1:
            names = " and ".join(name for name, _ in found.values())
            raise DataError(
                f"{pattern}: there are shards of {names} for the {split} split; keep one of them in the folder"
            )
        if found:
            name, files = next(iter(found.values()))
            return files, f"shards of {name}"
    names = ", ".join(name for role in ROLES[split] for name in SPLIT_NAMES[role])
    raise DataError(f"no file matches {pattern} for the {split} split, with {{split}} one of {names}")


def _named(pattern: str) -> list[str]:
    """The files that exist, and those named by braces whether they exist or not. A file of exactly this name comes first."""
    text = str(expanded(pattern))
    if os.path.isfile(text):
        return [text]
    folder, rest = _existing_folder(text)
    files = []
    for one in expand_braces(rest):
        path = os.path.join(folder, one)
        is_glob = glob.has_magic(one) and not os.path.exists(path)
        files.extend(sorted(glob.glob(os.path.join(glob.escape(folder), one))) if is_glob else [path])
    return files


def _are_files(files: list[str]) -> list[bool]:
    """`os.path.isfile` of each, from the lists of their folders: asking for 100 000 files takes minutes on a network."""
    listed: dict[str, tuple[set[str], set[str]]] = {}  # regular files by folder, and all names without their case
    answers = []
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            try:
                with os.scandir(folder or ".") as entries:
                    found = [(entry.name, entry.is_file()) for entry in entries]
            except OSError:  # missing, or one that cannot be listed
                found = []
            listed[folder] = {n for n, is_file in found if is_file}, {n.casefold() for n, _ in found}
        regular, names = listed[folder]
        # Some disks ignore case, or forms of accents.
        may_be = not names or not name.isascii() or name.casefold() in names
        answers.append(name in regular or (may_be and os.path.isfile(file)))
    return answers


def _existing_folder(pattern: str) -> tuple[str, str]:
    """The part of the pattern that names an existing folder, which may contain brackets and braces, and the rest."""
    for slash in reversed([match.start() for match in re.finditer("/", pattern)]):
        if os.path.isdir(pattern[: slash + 1]):
            return pattern[: slash + 1], pattern[slash + 1 :]
    return "", pattern


def expand_braces(pattern: str) -> list[str]:
    """Shell braces: "a-{08..10}" -> a-08, a-09, a-10; "{x,y}" -> x, y; several in one pattern multiply out."""
    brace = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if brace is None:
        return [pattern]
    first, last, choices = brace.groups()
    if choices is None:
        width = len(first) if first.startswith("0") else 0
        middles = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    else:
        middles = choices.split(",")
    head, tail = pattern[: brace.start()], pattern[brace.end() :]
    return [head + middle + rest for middle in middles for rest in expand_braces(tail)]
