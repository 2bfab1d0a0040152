"""Taking images down: from a curated folder, with all their copies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from wildfern.launch.curated_folder import curation_disk_errors, existing_folder, log
from wildfern.launch.errors import RunError
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import CurationError, Manifest, versions
from wildfern.ssl.curation.takedowns import Takedown, add_takedowns, read_takedowns


@dataclass(frozen=True)
class TakenDown:
    """What `remove` took down.

    - files: all that have one of the names, and their copies. new: of these one for each content that was not taken down before.
    - notes: what the user should know.
    """

    files: list[Takedown]
    new: list[Takedown]
    notes: list[str]


def remove(
    folder: str | Path,
    *,
    sha256: Sequence[str] = (),
    path: Sequence[str] = (),
    author: Sequence[str] = (),
    reason: str = "on request",
    dry_run: bool = False,
) -> TakenDown:
    """Take images down, by the SHA-256 of the file, its path or its author, with all their copies.

    Images of former manifests, which runs may still read, are found too. Takes effect at once for runs that start or resume; the
    manifest follows with the next scan or review. With `dry_run`, nothing is taken down. Raises CurationError if one of the names
    is of no image.
    """
    folder = existing_folder(folder)
    wanted = {"sha256": {one.lower() for one in sha256}, "path": set(path), "author": set(author)}
    if not any(wanted.values()):
        raise RunError("name the images to take down: --sha256, --path or --author")
    found: dict[tuple[str, str, str], Takedown] = {}
    named, missing, near = find_images(Manifest(folder), wanted)
    notes = []
    for version in versions(folder):
        try:
            others, absent, _ = find_images(Manifest(folder, version), wanted)
        except CurationError as error:
            notes.append(f"images that only a former manifest has were not looked for: {error}")
            continue
        named += others
        missing = [one for one in missing if one in absent]
    for one in named:
        found.setdefault((one.sha256, one.container, one.path), one)
    if missing:
        column, value = missing[0]
        more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        guess = f"; is it {' or '.join(near[value])}?" if near.get(value) else ""
        raise CurationError(
            f"{folder} has no image of {column} {value}{more}; nothing was taken down (paths are as in rejected.csv and "
            f"attribution.csv){guess}"
        )
    known = {one.sha256 for one in read_takedowns(folder)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = [replace(one, time=now, reason=reason) for one in found.values()]
    new = list({one.sha256: one for one in reversed(files) if one.sha256 not in known}.values())[::-1]
    if new and not dry_run:
        with curation_disk_errors(folder):
            add_takedowns(folder, new)
            log(folder, {"operation": "remove", "images": len(new), "reason": reason})
    return TakenDown(files, new, notes)
