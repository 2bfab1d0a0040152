"""Curation as functions: scan, review, remove, export, merge and diff of curated folders."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.curated_folder import curation_disk_errors, existing_folder, folder_to_write, log, writing
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.output_paths import written_path
from wildfern.launch.policies import policy_of, read_policy
from wildfern.launch.protocols import parse_source
from wildfern.launch.takedown import TakenDown, remove
from wildfern.ssl.curation import curate
from wildfern.ssl.curation.curate import MARKS, Curated, Tools
from wildfern.ssl.curation.documents import write_documents
from wildfern.ssl.curation.export import export_images
from wildfern.ssl.curation.found_images import Difference, difference
from wildfern.ssl.curation.listing import full_name
from wildfern.ssl.curation.manifest import MANIFEST, Manifest
from wildfern.ssl.curation.marks import join_marks
from wildfern.ssl.curation.policy import Policy
from wildfern.ssl.data import Source, open_source
from wildfern.ssl.tracking.cpu_cores import usable_cores


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

    Without sources, those of the last scan of `out` are scanned again, also of one that was ended; without a policy, its policy
    applies (with `changes`), and without metadata, its metadata if one of the sources is the same. Raises CurationError,
    RecipeErrors and DataError for what cannot be used.
    """
    folder = folder_to_write(out)
    former = _former(folder)
    notes = []
    if not sources:
        if former is None:
            raise RunError(f"name what to scan, for example: wildfern curate scan folder:PATH --out {out}")
        sources, metadata = former.sources, metadata or former.metadata
    elif former is not None and former.metadata and not metadata:
        if set(former.sources).isdisjoint(full_name(source) for source in sources):
            tables = ", ".join(former.metadata)
            notes.append(f"the metadata of the last scan was not used, as its sources were others; --metadata {tables}")
        else:
            metadata = former.metadata
    chosen = _policy(policy, changes, None if former is None else former.policy, folder)
    tools = _tools(chosen, processes)
    with writing(folder):
        if marks is not None:
            _add_marks(folder, Path(marks))
        found = curate.scan(list(sources), folder, chosen, metadata=metadata, tools=tools)
        finished = _finished(folder, found, "scan")
        return replace(finished, notes=[*finished.notes, *notes])


@dataclass(frozen=True)
class _Former:
    """What the last scan of a folder was asked for."""

    sources: list[str]
    metadata: list[str]
    policy: dict[str, Any]


def _former(folder: Path) -> _Former | None:
    if (request := curate.unfinished(folder)) is not None:
        return _Former(request["sources"], request["metadata"], request["policy"])
    if not (folder / MANIFEST).is_file():
        return None
    info = Manifest(folder).info
    return _Former(info.sources, info.metadata, info.policy)


def review(
    folder: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    changes: Sequence[str] = (),
    marks: str | Path | None = None,
    processes: int | None = None,
) -> Curation:
    """Decide again on a curated folder, with new marks or by another policy, and write its documents again."""
    folder = existing_folder(folder)
    chosen = _policy(policy, changes, Manifest(folder).info.policy, folder)
    tools = _tools(chosen, processes)
    with writing(folder):
        if marks is not None:
            _add_marks(folder, Path(marks))
        return _finished(folder, curate.decide_again(folder, chosen, tools=tools), "review")


def export(folder: str | Path, out: str | Path, format: str = "folder", shard_mb: int = 256) -> tuple[int, int]:
    """Copy the kept images into `out`; returns the numbers of images and files. See `export_images`."""
    folder, target = existing_folder(folder), written_path(out)
    with curation_disk_errors(target):
        return export_images(folder, target, format, shard_mb, lambda out: lock(out, "wait for it, or stop it"))


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    changes: Sequence[str] = (),
    processes: int | None = None,
) -> Curation:
    """Join curated folders into a new one. Raises RunError without a policy if theirs differ."""
    found = [existing_folder(folder) for folder in folders]
    if len(found) < 2:
        raise RunError("name two curated folders or more")
    target = folder_to_write(out)
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
    with writing(target):
        return _finished(target, curate.merge(found, target, chosen, tools=tools), "merge")


def diff(one: str | Path, other: str | Path) -> Difference:
    """How two curated folders differ, image by image."""
    return difference(Manifest(existing_folder(one)), Manifest(existing_folder(other)))


def _finished(folder: Path, found: Curated, operation: str) -> Curation:
    files = write_documents(folder, found, datetime.now(UTC).date().isoformat())
    manifest = found.manifest
    log(folder, {"operation": operation, "manifest": manifest.sha256, "counts": manifest.info.counts})
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
    return _with_full_paths(chosen)


def _with_full_paths(policy: Policy) -> Policy:
    """A run and evaluation sets by their full paths: the policy may be used again from another working folder."""
    backbone = policy.features.backbone
    if backbone is not None and (path := Path(backbone).expanduser()).is_dir():
        policy = replace(policy, features=replace(policy.features, backbone=str(path.absolute())))
    against = []
    for source in policy.leak.against:
        kind, colon, name = source.partition(":")
        there = bool(colon) and Path(name).expanduser().exists()
        against.append(f"{kind}:{Path(name).expanduser().absolute()}" if there else source)
    return replace(policy, leak=replace(policy.leak, against=tuple(against)))


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
    join_marks(path, [*([path] if path.exists() else []), file.resolve()])


__all__ = ["Curation", "TakenDown", "diff", "export", "merge", "remove", "review", "scan"]
