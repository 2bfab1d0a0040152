"""The files that a pattern names: globs, shell braces, and {split}."""

import glob
import os
import re

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.splits import ROLES, SPLIT_NAMES


def shard_files(pattern: str) -> list[str]:
    """The files that a pattern names, in order. Raises DataError if one named by braces is missing or nothing matches."""
    files = _named(pattern)
    missing = [file for file in files if not os.path.isfile(file)]
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
    for role in ROLES[split]:
        found: dict[tuple[int, int], tuple[str, list[str]]] = {}  # by the first file: some disks ignore case
        for name in (form for word in SPLIT_NAMES[role] for form in (word, word.capitalize(), word.upper())):
            files = _named(pattern.replace("{split}", name))
            if any(os.path.isfile(file) for file in files):
                files = shard_files(pattern.replace("{split}", name))
                status = os.stat(files[0])
                found.setdefault((status.st_dev, status.st_ino), (name, files))
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
