"""Words that the shell completes: recipes, run folders, data sources and generators. Imports no torch."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMPLETE = "_WILDFERN_COMPLETE"  # set by the shell's completion function
Words = list[tuple[str, str]]  # (word, what it is)


def complete(command: Any) -> None:
    """Print completions of the command line and exit, if a shell's completion function has started this process."""
    if instruction := os.environ.get(COMPLETE):
        from typer.completion import completion_init, shell_complete

        completion_init()
        sys.exit(shell_complete(command, {}, "wildfern", COMPLETE, instruction))


def recipe_words(incomplete: str) -> Words:
    """Bundled recipes, and paths of YAML files and folders."""
    from wildfern.recipes import list_recipes

    bundled = [(name, line) for name, line in list_recipes().items() if name.startswith(incomplete)]
    return bundled + [(path, "") for path in _paths(incomplete) if path.endswith(("/", ".yaml", ".yml"))]


def run_words(incomplete: str) -> Words:
    """Run folders, and folders that may hold some."""
    folders = (path for path in _paths(incomplete) if path.endswith("/"))
    return [(path.rstrip("/"), "run") if (Path(path) / "recipe.yaml").is_file() else (path, "") for path in folders]


def recipe_or_run_words(incomplete: str) -> Words:
    """Bundled recipes, recipe files and run folders."""
    return list(dict(recipe_words(incomplete) + run_words(incomplete)).items())


def source_words(incomplete: str) -> Words:
    """Data sources; those that open a place end with a colon."""
    from wildfern.registry import SOURCES, location_parameter

    words = [
        name + (":" if location_parameter(SOURCES[name]) else "") for name in SOURCES if name.startswith(incomplete)
    ]
    return [(word, "") for word in words]


def generator_words(incomplete: str) -> Words:
    """Generators of images."""
    from wildfern.registry import GENERATORS

    return [(name, "") for name in GENERATORS if name.startswith(incomplete)]


def _paths(incomplete: str) -> Iterator[str]:
    """Paths that start with this text, as it is written; folders end with a slash. Hidden ones only if the text names a dot."""
    written, slash, start = incomplete.rpartition("/")
    folder = os.path.expanduser(written + slash) or "."
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start.startswith(".") or not entry.name.startswith(".")):
            yield written + slash + entry.name + ("/" if entry.is_dir() else "")
