"""`data.json`, `data_files.txt.gz` and `data_items.txt.gz` in a run folder: which files and images a run was trained on.

They are compared when the data is read again.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from wildfern.bounded_json import read_json
from wildfern.files import open_reading, replacing
from wildfern.launch.curated_record import any_curated, curated_of, curated_record, known_takedowns, trained_before
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder, kept_aside
from wildfern.recipes import Recipe
from wildfern.ssl.data import Mixture, Source
from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.clusters import digest_of
from wildfern.ssl.data.fingerprint import Fingerprint, fingerprint
from wildfern.ssl.data.subset import Subset

RECORD, LIST, ITEMS = "data.json", "data_files.txt.gz", "data_items.txt.gz"
MOST_LISTED = 1_000_000  # files whose names are kept; about 10 MB, compressed
SHOWN = 3

MOST_BYTES = 2**20  # of `data.json`
MOST_LIST = 2**28  # of the list, uncompressed
MOST_NAME = 2**16  # of a line of it
FORMS: tuple[tuple[str, Any, str], ...] = (
    ("source", str, "a text"),
    ("items", int | None, "a whole number or null"),
    ("files", int, "a whole number"),
    ("names", str, "a text"),
    ("contents", str | None, "a text or null"),
    ("chosen", str, "a text"),  # SHA-256 of the items of a subset
    ("clusters", str, "a text"),  # SHA-256 of those of a guide
)


def record_data(
    recipe: Recipe,
    mixture: Mixture,
    folder: RunFolder,
    say: Callable[[str], None] = lambda message: None,
    former: Recipe | None = None,
) -> None:
    """Write the files; the list of names is left out for more than a million files. A damaged record is set aside.

    The list of items, one line `source TAB item` for each image of an imbalanced source, is written if there is such a source.
    `former`: the recipe of the run that is resumed, without a checkpoint or without a record; None: a new run.
    """
    then, damage = _recorded_or_damage(folder)
    if damage is not None:
        say(kept_aside(folder.path / RECORD, damage.__cause__))
    trained = trained_before(folder, former) if former is not None and any_curated(mixture) else None
    entries: list[dict[str, Any]] = []
    for number, (entry, source) in enumerate(zip(recipe.data, mixture.sources, strict=True)):
        found = fingerprint_of(mixture, number, entry.fingerprint == "contents")
        entries.append(
            {"source": entry.source, "items": source.num_items}
            | (asdict(found) if found else {})
            | _chosen(mixture, number)
            | curated_record(source, _of(then, number), trained)
        )
    with (
        replacing(folder.path / LIST) as beside,
        beside.open("wb") as file,
        gzip.GzipFile(LIST, "wb", fileobj=file, mtime=0) as listed,
    ):
        if sum(entry.get("files", 0) for entry in entries) <= MOST_LISTED:
            for number, source in enumerate(mixture.sources):
                for line in _lines(number, source):
                    listed.write(line)
    subsets = [(number, source) for number, source in enumerate(mixture.sources) if isinstance(source, Subset)]
    if subsets:
        with (
            replacing(folder.path / ITEMS) as beside,
            beside.open("wb") as file,
            gzip.GzipFile(ITEMS, "wb", fileobj=file, mtime=0) as listed,
        ):
            for number, source in subsets:
                listed.writelines(f"{number}\t{item}\n".encode() for item in source.items.tolist())
    folder.write_json(RECORD, entries)


def _chosen(mixture: Mixture, number: int) -> dict[str, str]:
    """What identifies the choice of images of a source, and the clusters that guide its batches."""
    source = mixture.sources[number]
    chosen = {"chosen": digest_of(source.items)} if isinstance(source, Subset) else {}
    return chosen | ({} if mixture.guide is None else {"clusters": mixture.guide.digest})


def record_resume(mixture: Mixture, folder: RunFolder, former: Recipe) -> None:
    """Record what is taken down of curated sources now that the run of the recipe `former` resumes.

    What its processes knew before stays recorded: they have read the images that were taken down later.
    """
    if not any_curated(mixture):
        return
    entries = recorded_data(folder)
    trained = trained_before(folder, former)
    for entry, source in zip(entries, mixture.sources, strict=False):
        entry |= curated_record(source, entry, trained)
    folder.write_json(RECORD, entries)


def new_takedowns(recipe: Recipe, mixture: Mixture, folder: RunFolder) -> list[str]:
    """A message for each curated source of which images were taken down since the run was started, or resumed the last time."""
    messages = []
    then, _ = _recorded_or_damage(folder)
    for number, (entry, source) in enumerate(zip(recipe.data, mixture.sources, strict=True)):
        curated, (known, _) = curated_of(source), known_takedowns(_of(then, number))
        if curated is not None and (new := curated.taken_down_since(known)):
            more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
            messages.append(
                f"{entry.source}: taken down since the run was started or last resumed: {', '.join(new[:SHOWN])}{more}; from "
                "here on other images take their places, and all other images are read as before"
            )
    return messages


def check_same_files(recipe: Recipe, mixture: Mixture, folder: RunFolder) -> None:
    """Raise RunError if a source has other files than `data.json` records, naming the first ones, or other images or clusters.

    Contents are compared if the recipe asks for their fingerprint and the record has it. A run folder without a record passes.
    """
    recorded = recorded_data(folder)
    for number, (entry, source, then) in enumerate(zip(recipe.data, mixture.sources, recorded, strict=False)):
        here = _chosen(mixture, number)
        for key, words in (("chosen", "has other images than"), ("clusters", "has a guide of other clusters than")):
            if key in then and then[key] != here.get(key):
                raise RunError(
                    f"{entry.source} {words} the run was started with. A run resumes, and its views are drawn again, only on "
                    "the same data: restore it, or use a new run folder"
                )
        if "names" not in then:
            continue
        contents = entry.fingerprint == "contents" and then.get("contents") is not None
        now = fingerprint_of(mixture, number, contents)
        if now is None:
            continue
        if now.names != then["names"]:
            words, names_known = _differences(folder, number, source)
            counts = "" if names_known else f"; {_counts(then, now)}"
            raise RunError(
                f"{entry.source} has other files than the run was started with ({words}). A run resumes, and its views are drawn "
                f"again, only on the same data: restore it, or use a new run folder{counts}"
            )
        if contents and now.contents != then["contents"]:
            raise RunError(
                f"{entry.source} has files of the same names and sizes as the run was started with, but other contents: restore "
                "them, or use a new run folder"
            )


def changed_files(mixture: Mixture, folder: RunFolder, number: int) -> str:
    """Which files of a source have changed since they were recorded, or how many; empty if none has, or none is recorded."""
    then = _of(_recorded_or_damage(folder)[0], number)
    now = fingerprint_of(mixture, number, contents=False) if "names" in then else None
    if now is None or now.names == then["names"]:
        return ""
    words, names_known = _differences(folder, number, mixture.sources[number])
    return words if names_known else _counts(then, now)


def recorded_data(folder: RunFolder) -> list[dict[str, Any]]:
    """The content of `data.json`: one mapping for each source; empty if there is none. Raises RunError if it is damaged."""
    path = folder.path / RECORD
    try:
        found = read_json(path, MOST_BYTES)
        _check_record(found)
        return found
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} is damaged: {reason}; remove it to go on without comparing the files") from error


def _recorded_or_damage(folder: RunFolder) -> tuple[list[dict[str, Any]], RunError | None]:
    """The content of `data.json`, or none and what is wrong with it."""
    try:
        return recorded_data(folder), None
    except RunError as error:
        return [], error


def _of(recorded: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """The entry of a source; empty if it is not recorded."""
    return recorded[number] if number < len(recorded) else {}


def _check_record(found: Any) -> None:
    """Raise ValueError for what is not the content of a `data.json`; that of earlier versions may lack keys."""
    if not isinstance(found, list):
        raise ValueError("it must be a list, of a mapping for each source")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise ValueError(f"{number} must be a mapping")
        for key, kinds, words in FORMS:
            if key in entry and (not isinstance(entry[key], kinds) or isinstance(entry[key], bool)):
                raise ValueError(f"{number}.{key} must be {words}")


_fingerprints: WeakKeyDictionary[Mixture, dict[tuple[int, bool], Fingerprint | None]] = WeakKeyDictionary()


def fingerprint_of(mixture: Mixture, number: int, contents: bool) -> Fingerprint | None:
    """The fingerprint of the files of one source, computed once; None for a source that is not made of files."""
    known = _fingerprints.setdefault(mixture, {})
    if (number, contents) not in known:
        files = mixture.sources[number].files()
        known[number, contents] = None if files is None else fingerprint(files, contents)
    return known[number, contents]


def _lines(number: int, source: Source) -> Iterator[bytes]:
    for file in source.files() or ():
        yield _line(number, file)


def _line(number: int, file: SourceFile) -> bytes:
    name = file.name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{number}\t{file.size}\t{name}\n".encode("utf-8", "surrogateescape")


def _recorded_sizes(folder: RunFolder, number: int) -> dict[bytes, bytes]:
    """Size by name of the files of a source, as recorded; empty if the list is missing, damaged, or over a limit."""
    try:
        return {name: size for of, size, name in _recorded_lines(folder) if of == number}
    except (OSError, EOFError, ValueError, zlib.error):
        return {}


def recorded_names(folder: RunFolder) -> list[tuple[int, int, str]]:
    """Source number, bytes and name of each recorded file; empty if the list is missing, damaged, or over a limit."""
    try:
        return [
            (of, int(size), name.decode("utf-8", "surrogateescape").replace("\\n", "\n").replace("\\\\", "\\"))
            for of, size, name in _recorded_lines(folder)
        ]
    except (OSError, EOFError, ValueError, zlib.error):
        return []


def _recorded_lines(folder: RunFolder) -> Iterator[tuple[int, bytes, bytes]]:
    """Source number, size and name of each file. Raises ValueError for a list that is damaged or over a limit."""
    left = MOST_LIST
    with open_reading(folder.path / LIST) as file, gzip.GzipFile(fileobj=file) as listed:
        while line := listed.readline(MOST_NAME):
            left -= len(line)
            of, size, name = line.rstrip(b"\n").split(b"\t", 2)
            if left < 0 or not line.endswith(b"\n"):
                raise ValueError("a line is too long, or there are too many")
            yield int(of), size, name


def _counts(then: dict[str, Any], now: Fingerprint) -> str:
    """Numbers of files and bytes as recorded and now; records of earlier versions may lack one."""
    pairs = ((what, then.get(what), getattr(now, what)) for what in ("files", "bytes"))
    return "; ".join(
        f"{what}: {before:,} then, {after:,} now" for what, before, after in pairs if isinstance(before, int)
    )


def _differences(folder: RunFolder, number: int, source: Source) -> tuple[str, bool]:
    """The first names that are missing, new or of another size; and whether names were recorded, without which none is known."""
    then = _recorded_sizes(folder, number)
    if not then:
        return "names or sizes differ", False
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
    return "; ".join(words) or "in another order", True
