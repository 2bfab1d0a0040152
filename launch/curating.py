"""Curation as functions: scan, review, remove, export, merge and diff of curated folders."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wildfern.files import UnsafeFile, open_appending, remove_partial_files
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.errors import DISK_FAULTS, RunError, user_errors
from wildfern.launch.output_paths import is_run, written_path
from wildfern.launch.policies import policy_of, read_policy
from wildfern.launch.protocols import parse_source
from wildfern.ssl.curation import curate
from wildfern.ssl.curation.curate import MARKS, Curated, Tools
from wildfern.ssl.curation.documents import write_documents
from wildfern.ssl.curation.export import export_images
from wildfern.ssl.curation.feature_store import FEATURES
from wildfern.ssl.curation.found_images import Difference, difference, find_images
from wildfern.ssl.curation.listing import full_name
from wildfern.ssl.curation.manifest import MANIFEST, VERSIONS, CurationError, Manifest, versions
from wildfern.ssl.curation.marks import read_marks, write_marks
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.policy import Policy
from wildfern.ssl.curation.takedowns import TAKEDOWNS, Takedown, add_takedowns, read_takedowns
from wildfern.ssl.data import Source, open_source
from wildfern.ssl.tracking.cpu_cores import usable_cores

HISTORY = "history.jsonl"
# What a curated folder may have before its first manifest is written.
OWN = {MARKS, TAKEDOWNS, HISTORY, FEATURES, VERSIONS}


@dataclass(frozen=True)
class Curation:
    """What a curation made: the folder, counts of images by decision, its documents, and notes for the user."""

    folder: Path
    counts: dict[str, int]
    reasons: dict[str, int]
    files: list[Path]
    not_checked: list[str]
    notes: list[str]
    manifest_sha256: str
    policy: str


def scan(
    sources: Sequence[str],
    out: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    changes: Sequence[str] = (),
    metadata: Sequence[str | Path] = (),
    marks: str | Path | None = None,
    processes: int | None = None,
) -> Curation:
    """Scan sources into the folder `out` and decide on every image; `wildfern curate scan`.

    Without sources, those of the last scan of `out` are scanned again; without a policy, its policy applies (with `changes`), and
    without metadata, its metadata if one of the sources is the same. Raises CurationError, RecipeErrors and DataError for what
    cannot be used.
    """
    folder = _folder(out)
    former = Manifest(folder).info if (folder / MANIFEST).is_file() else None
    if not sources:
        if former is None:
            raise RunError(f"name what to scan, for example: wildfern curate scan folder:PATH --out {out}")
        sources, metadata = former.sources, metadata or former.metadata
    elif former is not None and not set(former.sources).isdisjoint(full_name(source) for source in sources):
        metadata = metadata or former.metadata
    chosen = _policy(policy, changes, None if former is None else former.policy, folder)
    tools = _tools(chosen, processes)
    with _writing(folder):
        if marks is not None:
            _add_marks(folder, Path(marks))
        found = curate.scan(list(sources), folder, chosen, metadata=metadata, tools=tools)
        return _finished(folder, found, "scan")


def review(
    folder: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    changes: Sequence[str] = (),
    marks: str | Path | None = None,
    processes: int | None = None,
) -> Curation:
    """Decide again on a curated folder, with new marks or by another policy, and write its documents again."""
    folder = _existing(folder)
    chosen = _policy(policy, changes, Manifest(folder).info.policy, folder)
    tools = _tools(chosen, processes)
    with _writing(folder):
        if marks is not None:
            _add_marks(folder, Path(marks))
        return _finished(folder, curate.decide_again(folder, chosen, tools=tools), "review")


def remove(
    folder: str | Path,
    *,
    sha256: Sequence[str] = (),
    path: Sequence[str] = (),
    author: Sequence[str] = (),
    reason: str = "on request",
    dry_run: bool = False,
) -> tuple[list[Takedown], list[Takedown]]:
    """Take images down, by the SHA-256 of the file, its path or its author, with all their copies.

    Images of former manifests, which runs may still read, are found too. Returns all that are named, and those that were not
    taken down before. Takes effect at once for runs that start or resume; the manifest follows with the next scan or review. With
    `dry_run`, nothing is taken down. Raises CurationError if one of the names is of no image.
    """
    folder = _existing(folder)
    wanted = {"sha256": set(sha256), "path": set(path), "author": set(author)}
    if not any(wanted.values()):
        raise RunError("name the images to take down: --sha256, --path or --author")
    found: dict[str, Takedown] = {}
    missing: set[tuple[str, str]] | None = None
    for manifest in (Manifest(folder), *(Manifest(folder, version) for version in versions(folder))):
        named, absent = find_images(manifest, wanted)
        missing = set(absent) if missing is None else missing & set(absent)
        for one in named:
            found.setdefault(one.sha256, one)
    if missing:
        column, value = min(missing)
        more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise CurationError(
            f"{folder} has no image of {column} {value}{more}; nothing was taken down (paths are as in rejected.csv and "
            "attribution.csv)"
        )
    known = {one.sha256 for one in read_takedowns(folder)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    all_named = [replace(one, time=now, reason=reason) for one in found.values()]
    new = [one for one in all_named if one.sha256 not in known]
    if new and not dry_run:
        with _disk_errors(folder):
            add_takedowns(folder, new)
            _log(folder, {"operation": "remove", "images": len(new), "reason": reason})
    return all_named, new


def export(folder: str | Path, out: str | Path, format: str = "folder", shard_mb: int = 256) -> tuple[int, int]:
    """Copy the kept images into `out`; returns the numbers of images and files. See `export_images`."""
    folder, target = _existing(folder), written_path(out)
    with _disk_errors(target):
        return export_images(folder, target, format, shard_mb)


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    changes: Sequence[str] = (),
    processes: int | None = None,
) -> Curation:
    """Join curated folders into a new one. Raises RunError without a policy if theirs differ."""
    found = [_existing(folder) for folder in folders]
    if len(found) < 2:
        raise RunError("name two curated folders or more")
    target = _folder(out)
    if (target / MANIFEST).exists():
        raise RunError(
            f"--out {out} is a curated folder already; name a new or empty one (after a merge that was ended, wildfern curate "
            f"review {out} writes its page)"
        )
    policies = [Manifest(one).info.policy for one in found]
    if policy is None and any(one != policies[0] for one in policies):
        names = " and ".join(f"{one} by {told.get('name')}" for one, told in zip(found, policies, strict=True))
        raise RunError(f"the folders were curated by different policies ({names}): name one with --policy")
    chosen = _policy(policy, changes, policies[0], found[0])
    tools = _tools(chosen, processes)
    with _writing(target):
        return _finished(target, curate.merge(found, target, chosen, tools=tools), "merge")


def diff(one: str | Path, other: str | Path) -> Difference:
    """How two curated folders differ, image by image."""
    return difference(Manifest(_existing(one)), Manifest(_existing(other)))


def _finished(folder: Path, found: Curated, operation: str) -> Curation:
    files = write_documents(folder, found, datetime.now(UTC).date().isoformat())
    manifest = found.manifest
    _log(folder, {"operation": operation, "manifest": manifest.sha256, "counts": manifest.info.counts})
    return Curation(
        folder,
        manifest.info.counts,
        found.reasons,
        files,
        manifest.info.not_checked,
        manifest.info.notes,
        manifest.sha256,
        str(manifest.info.policy.get("name")),
    )


def _policy(
    policy: str | Path | Policy | None, changes: Sequence[str], former: dict[str, Any] | None, folder: Path
) -> Policy:
    if isinstance(policy, Policy):
        chosen = policy
    elif policy is None and former is not None:
        chosen = policy_of(former, f"{folder / MANIFEST} (policy)", changes)
    else:
        chosen = read_policy(policy or "default", changes)
    backbone = chosen.features.backbone
    if (
        backbone is not None and (path := Path(backbone).expanduser()).is_dir()
    ):  # a run, also from another working folder
        return replace(chosen, features=replace(chosen.features, backbone=str(path.absolute())))
    return chosen


def _tools(policy: Policy, processes: int | None) -> Tools:
    """What the policy needs. Raises CurationError for a detector, a network or an evaluation set that cannot be opened."""
    detector = network = extract = evaluation = None
    device = "cpu"
    if policy.people.detector is not None:
        from wildfern.ssl.curation.detector import open_detector

        detector = open_detector(policy.people.detector)
    if policy.features.backbone is not None:
        from wildfern.launch.curation_features import open_features

        with user_errors():
            network, extract, device = open_features(policy.features)
    if policy.leak.against:
        from wildfern.ssl.curation.leaks import EvaluationImages

        evaluation = EvaluationImages.of(_evaluation_sets(policy.leak.against))
    return Tools(detector, network, extract, evaluation, processes or usable_cores(), device)


def _evaluation_sets(names: Sequence[str]) -> Iterator[tuple[str, Source]]:
    for name in names:
        source, arguments = parse_source(name)
        found = [open_source(source, "train", **arguments)]
        with suppress(ValueError):  # it has none
            found.append(open_source(source, "test", **arguments))
        for split, one in zip(("train", "test"), found, strict=False):
            yield f"{name} {split}", one


def _add_marks(folder: Path, file: Path) -> None:
    """Keep the marks of a downloaded file with those of the folder; later ones replace earlier ones."""
    path = folder / MARKS
    marks = (read_marks(path) if path.exists() else {}) | read_marks(file.resolve())
    write_marks(path, marks, {})


def _folder(out: str | Path) -> Path:
    folder = written_path(out)
    if folder.is_file():
        raise RunError(f"--out {out} is a file; name a folder")
    if is_run(folder):
        raise RunError(f"--out {out} is the folder of a run; name another one")
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if not _is_utf8(folder):
        raise RunError(f"--out {out!r} is no name in UTF-8, which the libraries that write the manifest need")
    if set(others) - OWN and MANIFEST not in others:
        others = sorted(set(others) - OWN)
        raise RunError(
            f"--out {out} is a folder with other files ({', '.join(sorted(others)[:3])}); name a new or empty one"
        )
    return folder


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full or read-only disk in the user's words."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        raise RunError(
            f"cannot write {error.filename or folder}: {error.strerror}. What was measured so far is kept: free space or change "
            "the permissions, then repeat the command"
        ) from error


def _existing(folder: str | Path) -> Path:
    found = written_path(folder)
    if not _is_utf8(found):
        raise RunError(f"{folder!r} is no name in UTF-8, which the libraries that read the manifest need")
    Manifest(found).close()
    return found


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Let no other process write into a curated folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    with _disk_errors(folder), lock(folder, "wait for it, or stop it"):
        for below in (folder, folder / PARTS, folder / VERSIONS, folder / FEATURES):
            remove_partial_files(below)
        yield


def _log(folder: Path, entry: dict[str, Any]) -> None:
    """Append to the history of a curated folder."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n"
    try:
        with open_appending(folder / HISTORY) as file:
            file.write(line.encode())
    except UnsafeFile as error:
        raise RunError(f"{error.filename} {error.strerror}") from error


__all__ = ["Curation", "diff", "export", "merge", "remove", "review", "scan"]
