"""Image files that the rows of a table name by their paths, which a stranger may have written."""

import os
import stat
from pathlib import Path

from wildfern.ssl.data.base import UnreadableImage

_MOST_PATH = 4096  # characters


def folders_of(folder: str | os.PathLike[str]) -> list[str]:
    """A folder that rows name files in, without links; in a cache of the Hugging Face hub, also that of the files' contents.

    There the files of `snapshots/REVISION` are links into `blobs` beside `snapshots`.
    """
    found = os.path.realpath(folder)
    before, snapshots, _ = found.rpartition("/snapshots/")
    return [found, os.path.join(before, "blobs")] if snapshots else [found]


def file_below(folders: list[str], named: str, advice: str = "", beside: str | os.PathLike[str] | None = None) -> Path:
    """The regular file `named`, relative to the first of `folders`, if it is below one of them after links are followed.

    Where there is none, it is looked up relative to `beside`, which may have links into `folders`. These are paths without
    links. Raises UnreadableImage for other files, folders, pipes and devices.
    """
    if len(named) > _MOST_PATH:
        raise UnreadableImage(f"the row has no bytes, and names a file by {len(named):,} characters")
    there = os.path.join(folders[0], named)
    if beside is not None and not os.path.lexists(there) and os.path.lexists(os.path.join(beside, named)):
        there = os.path.join(beside, named)
    shown = there if there.isprintable() else ascii(there)
    try:
        file = os.path.realpath(there)
        inside = any(file.startswith(os.path.join(folder, "")) or file == folder for folder in folders)
        mode = os.stat(file).st_mode if inside else 0
    except (OSError, ValueError):
        raise UnreadableImage(f"the row has no bytes, and there is no file {shown}") from None
    if not inside:
        raise UnreadableImage(
            f"the row has no bytes, and names {shown}, which is not below {' or '.join(dict.fromkeys(folders))}"
            + (f"; {advice}" if advice else "")
        )
    if not stat.S_ISREG(mode):
        raise UnreadableImage(f"the row has no bytes, and names {shown}, which is not a regular file")
    return Path(file)
