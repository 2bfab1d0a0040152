"""`wildfern curate`: scan, review, remove, export, merge, diff and policies."""

from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.startup import Startup
from wildfern.launch.terminal import console, say
from wildfern.printable import printable

curate_app = typer.Typer(
    help="Make uncurated images fit to train on: audit, deduplicate, account for, take down.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FolderArgument = Annotated[Path, typer.Argument(help="A curated folder, as written by wildfern curate scan")]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        help="default, pass or a YAML file (default: the policy of the last scan, else default)", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key of the policy: tiny.min_side=64; repeat for several", show_default=False),
]
MarksOption = Annotated[
    Path | None, typer.Option(help="marks.csv, downloaded from review.html; kept for later scans", show_default=False)
]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that read images (default: one for each CPU core)")
]


@curate_app.command()
def scan(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="folder:PATH, parquet:PATH, webdataset:PATTERN or the path alone (default: those of the last scan)",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write, or of an earlier scan to bring up to date")] = Path(
        "curated"
    ),
    policy: PolicyOption = None,
    changes: SetOption = None,
    metadata: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV or JSON with a row an image: path, license, author, source_url …; repeat for several",
            show_default=False,
        ),
    ] = None,
    marks: MarksOption = None,
    processes: ProcessesOption = None,
) -> None:
    """Scan images and decide which to keep; writes manifest.parquet, review.html and lists of what and why.

    Changes nothing in the sources. A scan that was ended goes on where it was; only new and changed images are measured.
    """
    with Startup() as startup:
        from wildfern.launch import curating

        startup.part("reading the policy")
        found = curating.scan(
            sources or [],
            out,
            policy,
            changes=changes or [],
            metadata=metadata or [],
            marks=marks,
            processes=processes,
        )
    _tell(found)


@curate_app.command()
def review(
    folder: FolderArgument,
    marks: MarksOption = None,
    policy: PolicyOption = None,
    changes: SetOption = None,
    processes: ProcessesOption = None,
) -> None:
    """Decide again, with marks or by another policy, without reading the sources; writes review.html again."""
    with Startup() as startup:
        from wildfern.launch import curating

        startup.part("reading the policy")
        found = curating.review(folder, policy, changes=changes or [], marks=marks, processes=processes)
    _tell(found)


@curate_app.command()
def remove(
    folder: FolderArgument,
    sha256: Annotated[list[str] | None, typer.Option(help="SHA-256 of a file; repeat for several")] = None,
    path: Annotated[list[str] | None, typer.Option(help="Path of an image; repeat for several")] = None,
    author: Annotated[list[str] | None, typer.Option(help="All images of an author; repeat for several")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record")] = "on request",
    runs: Annotated[Path, typer.Option(help="Folder with runs to look through for the images")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the images, and the runs that have seen them")
    ] = False,
) -> None:
    """Take images down, with all their copies: runs that start or resume do not read them any more.

    Lists the runs that have seen them, and in which steps.
    """
    with Startup() as startup:
        from wildfern.launch import takedown, takedown_runs

        startup.part("looking up the images")
        found = takedown.remove(
            folder, sha256=sha256 or [], path=path or [], author=author or [], reason=reason, dry_run=dry_run
        )
        startup.part("looking through the runs")
        seen = takedown_runs.runs_that_saw(folder, found.files, runs)
    new = {one.sha256 for one in found.new}
    before = sum(one.sha256 not in new for one in found.files)
    say(
        f"{'would be taken down' if dry_run else 'taken down'}, copies included: {counted(len(found.files), 'file')}"
        + (f" ({before:,} before)" if before else "")
    )
    for one in found.files[:20]:
        say(f"  {printable(one.path)}  {one.sha256[:16]}…")
    if len(found.files) > 20:
        say(f"  … {len(found.files) - 20:,} more")
    for line in (*found.notes, *seen):
        say(printable(line))
    if not dry_run:
        say("runs that start or resume from now on do not read them. The files are where they were, and review.html,")
        say(
            "attribution.csv, datasheet.md and croissant.json list them until the next scan; so do folders that were exported,"
        )
        say("until the next export. Delete the files, then")
        say(f"  wildfern curate scan --out {folder}")


@curate_app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option(help="Folder to write")],
    format: Annotated[str, typer.Option(help="folder, webdataset or parquet")] = "folder",
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a shard or a parquet file")] = 256,
) -> None:
    """Copy the kept images, with their licenses, into a folder, tar shards or parquet files. EXIF and GPS stay behind."""
    with Startup() as startup:
        from wildfern.launch import curating

        startup.part("copying images")
        count, files = curating.export(folder, out, format, shard_mb)
    if not count:
        say(f"no image of {folder} is kept: nothing was copied, and {out} has no images")
        return
    say(f"written: {count:,} images in {files:,} file{'s' * (files != 1)} in {out}, and attribution.csv; next:")
    shards = f"/images-{{000000..{max(0, files - 1):06d}}}.tar" if format == "webdataset" else ""
    say(f"  wildfern pretrain RECIPE data={format}:{out}{shards}")


@curate_app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Curated folders")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty")],
    policy: PolicyOption = None,
    changes: SetOption = None,
) -> None:
    """Join curated folders into one, deciding again on all images together; marks and takedowns are joined, too."""
    with Startup() as startup:
        from wildfern.launch import curating

        startup.part("merging")
        found = curating.merge(folders, out, policy, changes=changes or [])
    _tell(found)


@curate_app.command()
def diff(
    one: FolderArgument,
    other: FolderArgument,
    lines: Annotated[int, typer.Option(min=0, help="Images listed of each kind")] = 10,
) -> None:
    """Print how two curated folders differ: images added, removed and changed, and other decisions."""
    with Startup() as startup:
        from wildfern.launch import curating

        startup.part("comparing")
        found = curating.diff(one, other)
    for words, paths in (("added", found.added), ("removed", found.removed), ("other content", found.changed)):
        say(f"{words}: {len(paths):,}")
        for path in paths[:lines]:
            say(f"  {printable(path)}")
    say(f"other decisions: {len(found.decisions):,}")
    for path, before, after in found.decisions[:lines]:
        say(f"  {printable(path)}: {before} -> {after}")


@curate_app.command()
def policies(
    name: Annotated[str | None, typer.Argument(help="Print this policy", show_default=False)] = None,
) -> None:
    """List the bundled policies, or print one of them, as a start for your own."""
    from wildfern.launch.policies import list_policies, policy_text

    if name is not None:
        print(policy_text(name), end="")
        return
    found = list_policies()
    width = max(map(len, found))
    for policy, line in found.items():
        console.print(f"{policy.ljust(width)}  {line}", soft_wrap=True, markup=False, highlight=False)


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _tell(found) -> None:  # type: ignore[no-untyped-def]
    counts = found.counts
    total = sum(counts.values())
    kept, aside, left = (counts[name] for name in ("keep", "review", "reject"))
    say(f"{total:,} files, policy {found.policy}: {kept:,} kept, {aside:,} to review, {left:,} rejected")
    if found.reasons:
        say("reasons (a file may have several; the strictest decides):")
    for rule, count in sorted(found.reasons.items(), key=lambda pair: -pair[1]):
        say(f"  {count:>8,}  {rule}")
    for words in found.not_checked:
        say(f"not checked: {words}")
    for words in found.notes:
        say(printable(words))
    say(
        f"manifest {found.manifest_sha256[:16]}; open {found.folder / 'review.html'} to look and decide, then train with:"
    )
    say(f"  wildfern pretrain RECIPE data=curated:{found.folder}")
