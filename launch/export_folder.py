"""A folder that an export writes as a whole; only a folder of an earlier export is replaced."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wildfern.bounded_json import read_json
from wildfern.files import sync_folder
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import check_not_of_a_run, is_run

CONFIG = "config.json"
MARK = "wildfern"  # the key of config.json that says who wrote the folder
MOST_CONFIG = 2**20  # bytes
# All files that exports write: of a folder with others, nothing is removed.
OF_AN_EXPORT = frozenset({CONFIG, "model.safetensors", "preprocessor_config.json", "README.md", "modeling_backbone.py"})


def check_folder_out(out: Path) -> None:
    """Raise RunError if `out` is a file, or a folder with anything but an earlier export."""
    check_not_of_a_run(out)
    check_not_of_a_run(out / CONFIG)  # in checkpoints/ of a run, for example
    place = _place(out)
    if place.is_symlink() or not os.path.lexists(place):
        return
    if not place.is_dir():
        raise RunError(f"--out {out} is a file, but this format is a folder of several: name a new folder")
    names = {path.name for path in place.iterdir()}
    if names and not (names <= OF_AN_EXPORT and _is_export(place)):
        raise RunError(f"--out {out} is a folder with other files, which stay as they are: name a new or empty folder")


@contextmanager
def writing_folder(out: Path) -> Iterator[Path]:
    """Yield the path of a new folder beside `out`, which takes its place at the end of the block.

    After an error `out` is as before. Only a kill between the renaming of the old folder and of the new one leaves neither: the
    old one is then in `.partial_…`, beside it. Call `check_folder_out` first.
    """
    place = _place(out)
    place.parent.mkdir(parents=True, exist_ok=True)
    new, old = (place.with_name(f".partial_{secrets.token_hex(4)}_{place.name[-50:]}") for _ in range(2))
    try:
        new.mkdir()
        yield new
        sync_folder(new)
        if os.path.lexists(place):
            os.rename(place, old)
        try:
            os.rename(new, place)
        except OSError:
            if os.path.lexists(old):
                os.rename(old, place)
            raise
        sync_folder(place.parent)
    finally:
        for folder in (new, old):
            _remove(folder)


def _place(out: Path) -> Path:
    """`out` behind its links; in a run folder, a link at `out` itself is replaced and not followed."""
    return out if is_run(out.parent) else Path(os.path.realpath(out))


def _is_export(folder: Path) -> bool:
    try:
        config = read_json(folder / CONFIG, MOST_CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get(MARK), dict)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        with suppress(OSError):
            folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
