"""How many test images were also read in training: the files of a test set beside those that a run recorded."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

from wildfern.launch.data_record import recorded_names
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.data import DataError, Source
from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.paths import expanded

HASHED = 20_000  # files of the test set whose contents are compared
SHARDS = (".parquet", ".tar", ".arrow", ".tgz", ".gz", ".zip")
NAMED = 3


def trained_on_test(folder: RunFolder, recipe: Recipe, test: Source) -> str | None:
    """A message if files of `test` were also training files of the run; None if none were, or if neither has files.

    A training file is looked for where the recipe read it, and compared by size and contents. Where it is not found, the same
    name and size count.
    """
    files = test.files()
    if files is None:
        return None
    trained: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for number, size, name in recorded_names(folder):
        trained[size].append((number, name))
    roots = {number: _root(entry.source) for number, entry in enumerate(recipe.data)}
    hashes: dict[str, str] = {}
    candidates = [file for file in files if file.size in trained]
    found = [file for file in candidates[:HASHED] if _is_among(file, trained[file.size], roots, hashes)]
    if not found:
        return None
    shards = Path(found[0].name).suffix.lower() in SHARDS
    total = len(candidates) if len(candidates) > HASHED else (test.num_items or 0)
    names = ", ".join(file.name for file in found[:NAMED]) + (" …" if len(found) > NAMED else "")
    if shards:
        return f"{folder.path.name} was also trained on files of this test set (which of their images is not known): {names}"
    return f"{folder.path.name} was also trained on {len(found):,} of {total:,} test images: {names}"


def _root(source: str) -> Path | None:
    """Where the files of a training source lie, if it names a path."""
    _, colon, location = source.partition(":")
    try:
        return expanded(location) if colon else None
    except DataError:
        return None


def _is_among(
    file: SourceFile, trained: list[tuple[int, str]], roots: dict[int, Path | None], hashes: dict[str, str]
) -> bool:
    """Whether one of the training files of the same size has the same contents."""
    for number, name in trained:
        root = roots.get(number)
        path = None if root is None else (root if root.is_file() else root / name)
        if path is None or not path.is_file():
            if os.path.basename(name) == os.path.basename(file.name):
                return True
        elif os.path.samefile(path, file.path) or _sha256(path, hashes) == _sha256(file.path, hashes):
            return True
    return False


def _sha256(path: str | Path, hashes: dict[str, str]) -> str:
    key = os.fspath(path)
    if key not in hashes:
        try:
            with open(path, "rb") as opened:
                hashes[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError:  # it is reported where it is read
            hashes[key] = f"unreadable {key}"
    return hashes[key]
