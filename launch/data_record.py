"""`data.json` and `data_files.txt.gz` in a run folder: which files a run was trained on, compared when they are read again."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from wildfern.files import replacing
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.data import Mixture, Source
from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.fingerprint import Fingerprint, fingerprint

RECORD, LIST = "data.json", "data_files.txt.gz"
MOST_LISTED = 1_000_000  # files whose names are kept; about 10 MB, compressed
SHOWN = 3


def record_data(recipe: Recipe, mixture: Mixture, folder: RunFolder) -> None:
    """Write both files; the list of names is left out for more than a million files."""
    entries: list[dict[str, Any]] = []
    for entry, source in zip(recipe.data, mixture.sources, strict=True):
        found = _fingerprint(source, entry.fingerprint == "contents")
        entries.append({"source": entry.source, "items": source.num_items, **(asdict(found) if found else {})})
    with (
        replacing(folder.path / LIST) as beside,
        beside.open("wb") as file,
        gzip.GzipFile(LIST, "wb", fileobj=file, mtime=0) as listed,
    ):
        if sum(entry.get("files", 0) for entry in entries) <= MOST_LISTED:
            for number, source in enumerate(mixture.sources):
                for line in _lines(number, source):
                    listed.write(line)
    folder.write_json(RECORD, entries)


def check_same_files(recipe: Recipe, mixture: Mixture, folder: RunFolder) -> None:
    """Raise RunError if a source has other files than `data.json` records, naming the first ones that differ.

    Contents are compared if the recipe asks for their fingerprint and the record has it. A run folder without a record passes.
    """
    recorded = recorded_data(folder)
    for number, (entry, source, then) in enumerate(zip(recipe.data, mixture.sources, recorded, strict=False)):
        if "names" not in then:
            continue
        contents = entry.fingerprint == "contents" and then.get("contents") is not None
        now = _fingerprint(source, contents)
        if now is None:
            continue
        if now.names != then["names"]:
            raise RunError(
                f"{entry.source} has other files than the run was started with ({_differences(folder, number, source)}). A run "
                "resumes, and its views are drawn again, only on the same data: restore it, or use a new run folder"
            )
        if contents and now.contents != then["contents"]:
            raise RunError(
                f"{entry.source} has files of the same names and sizes as the run was started with, but other contents: restore "
                "them, or use a new run folder"
            )


def recorded_data(folder: RunFolder) -> list[dict[str, Any]]:
    """The content of `data.json`: one mapping for each source; empty if there is none."""
    path = folder.path / RECORD
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}; remove it to go on without comparing the files") from error
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _fingerprint(source: Source, contents: bool) -> Fingerprint | None:
    files = source.files()
    return None if files is None else fingerprint(files, contents)


def _lines(number: int, source: Source) -> Iterator[bytes]:
    for file in source.files() or ():
        yield _line(number, file)


def _line(number: int, file: SourceFile) -> bytes:
    name = file.name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{number}\t{file.size}\t{name}\n".encode("utf-8", "surrogateescape")


def _recorded_sizes(folder: RunFolder, number: int) -> dict[bytes, bytes]:
    """Size by name of the files of a source, as recorded; empty if the list is missing or damaged."""
    sizes: dict[bytes, bytes] = {}
    try:
        with gzip.open(folder.path / LIST, "rb") as listed:
            for line in listed:
                of, size, name = line.rstrip(b"\n").split(b"\t", 2)
                if int(of) == number:
                    sizes[name] = size
    except (OSError, EOFError, ValueError, zlib.error):
        return {}
    return sizes


def _differences(folder: RunFolder, number: int, source: Source) -> str:
    """The first names that are missing, new or of another size; the numbers of files if no names were recorded."""
    then = _recorded_sizes(folder, number)
    if not then:
        return "names or sizes differ"
    now = {}
    for line in _lines(number, source):
        _, size, name = line.rstrip(b"\n").split(b"\t", 2)
        now[name] = size
    kinds = {
        "missing": (name for name in then if name not in now),
        "new": (name for name in now if name not in then),
        "of another size": (name for name in now if then.get(name, now[name]) != now[name]),
    }
    words = []
    for kind, names in kinds.items():
        if first := [name.decode("utf-8", "replace") for name in islice(names, SHOWN + 1)]:
            words.append(f"{kind}: {', '.join(first[:SHOWN])}{' …' if len(first) > SHOWN else ''}")
    return "; ".join(words) or "in another order"
