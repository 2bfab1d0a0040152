"""Paths that commands write to: checked before the work, so that its result is not lost."""

import os
from pathlib import Path

from wildfern.launch.errors import RunError

# What a run folder keeps of its run; only the report and the views may be written again.
OF_A_RUN = frozenset(
    {
        "recipe.yaml",
        "environment.json",
        "data.json",
        "data_files.txt.gz",
        "metrics.jsonl",
        "timings.jsonl",
        "skipped.jsonl",
        "nonfinite.jsonl",
        "evaluation.json",
        "backbone.safetensors",
        ".lock",
    }
)


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


def check_not_of_a_run(file: Path) -> None:
    """Raise RunError for a file that a run folder keeps of its run: another result would destroy it."""
    folder = file.resolve().parent
    if file.name in OF_A_RUN and is_run(folder):
        raise RunError(f"cannot write {file}: it belongs to the run {folder.name}; choose another file")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, rather than one with a recipe."""
    return all((folder / name).is_file() for name in ("recipe.yaml", "environment.json"))
