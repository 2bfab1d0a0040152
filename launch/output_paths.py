"""Paths that commands write to: checked before the work, so that its result is not lost."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.files import replacing
from wildfern.launch.errors import RunError

# Files of a run folder that are written as a whole, and those that grow.
REPLACED = frozenset(
    {
        "recipe.yaml",
        "environment.json",
        "data.json",
        "data_files.txt.gz",
        "views.png",
        "skipped.jsonl",
        "backbone.safetensors",
        "decoder.safetensors",
        "evaluation.json",
        "report.html",
        "wandb_id",
    }
)
APPENDED = frozenset({"metrics.jsonl", "timings.jsonl", "nonfinite.jsonl"})
# What a run folder keeps of its run; only the report and the views may be written again.
OF_A_RUN = (REPLACED | APPENDED | {".lock"}) - {"report.html", "views.png"}
FOLDERS_OF_A_RUN = ("checkpoints", "evaluation_details", "plugins", "wandb")
SERIES = "series.json"


def written_path(path: str | Path) -> Path:
    """`path` with ~ replaced by the home folder. Raises RunError where there is none."""
    expanded = os.path.expanduser(path)
    if expanded == os.fspath(path) and expanded.startswith("~"):
        raise RunError(
            f"{path}: the home folder that ~ stands for is not known here; write the whole path, or ./{path} for a folder of "
            "this name"
        )
    return Path(expanded)


def output_file(path: str | Path) -> Path:
    """The file at `path`, ~ replaced, in a folder that is made if it is missing.

    Raises RunError for a folder, for a file of a run, and where the file cannot be written.
    """
    file = written_path(path)
    if file.is_dir():
        raise RunError(f"cannot write {path}: it is a folder; name a file in it")
    check_not_of_a_run(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.filename}: {error.strerror}") from error
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise RunError(f"cannot write {path}: {file if file.exists() else file.parent} is read-only")
    return file


def output_folder(path: str | Path, kept: str) -> Path:
    """The folder at `path`, ~ replaced, made if it is missing: empty, or with the file `kept` of an earlier command.

    Raises RunError for a run folder, for one with other files, and where it cannot be written to.
    """
    folder = written_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = any(folder.iterdir()) and not (folder / kept).is_file()
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.filename}: {error.strerror}") from error
    if is_run(folder) or (folder / "recipe.yaml").exists():
        raise RunError(f"{path} is a run folder; name another folder")
    if others:
        raise RunError(f"{path} has other files; name a new folder")
    if not os.access(folder, os.W_OK):
        raise RunError(f"cannot write to {path}: it is read-only")
    return folder


@contextmanager
def writing(file: Path) -> Iterator[Path]:
    """Yield the path to write the content of `file` to, a file that the user has named.

    A regular file is replaced as a whole at the end of the block, also one behind a link, except in a run folder, where links are
    replaced. Devices and FIFOs, such as /dev/stdout, and files in a folder that cannot be written to are written directly.
    """
    place = file if is_run(file.parent) else Path(os.path.realpath(file))
    try:
        status = os.stat(file)
    except FileNotFoundError:
        status = None
    direct = status is not None and place is not file and not stat.S_ISREG(status.st_mode)
    if direct or not os.access(place.parent, os.W_OK):
        try:
            yield file
        except OSError as error:
            if error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, os.fspath(file)) from error
            raise
        return
    with replacing(place) as beside:
        yield beside
        if status is not None and stat.S_ISREG(status.st_mode):
            beside.chmod(stat.S_IMODE(status.st_mode))


def write_json_file(file: Path, value: object) -> None:
    """Write a JSON file that the user has named, as `writing` does."""
    with writing(file) as path:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check_not_of_a_run(file: Path) -> None:
    """Raise RunError for a file that a run or a series keeps: another result would destroy it."""
    folder = Path(os.path.realpath(file)).parent
    if file.name in OF_A_RUN and is_run(folder):
        raise RunError(f"cannot write {file}: it belongs to the run {folder.name}; choose another file")
    for below in (folder, *folder.parents):
        if below.name in FOLDERS_OF_A_RUN and is_run(below.parent):
            raise RunError(
                f"cannot write {file}: {below.name}/ belongs to the run {below.parent.name}; choose another file"
            )
    if file.name == SERIES and os.path.lexists(folder / SERIES):
        raise RunError(f"cannot write {file}: it belongs to the series {folder.name}; choose another file")


def is_recipe_of_run(file: Path) -> bool:
    """Whether a recipe file lies in the folder of a run, complete or not."""
    parts = ("environment.json", "metrics.jsonl", "backbone.safetensors", "checkpoints")
    return file.name == "recipe.yaml" and any(os.path.lexists(file.parent / name) for name in parts)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, rather than one with a recipe."""
    return all((folder / name).is_file() for name in ("recipe.yaml", "environment.json"))
