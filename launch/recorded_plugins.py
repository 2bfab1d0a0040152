"""Plugins in a run folder: copied, described in `environment.json`, compared on resume, and never run from there."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.files import check_folder, open_reading, replacing
from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.registry import REGISTRIES, Plugin, loaded_plugin
from wildfern.ssl.evaluation.run_record import MOST_ENVIRONMENT

KINDS = {"data": "source"}  # the kind of a recipe section, if its name differs


def plugins_of(recipe: Recipe) -> list[Plugin]:
    """The plugin files of the recipe, with the content that was run."""
    return [plugin for path in recipe.plugins if (plugin := loaded_plugin(path)) is not None]


def copy_plugins(recipe: Recipe, run: Path) -> dict[str, str]:
    """Copy the recipe's plugin files to `plugins/` in the run folder: SHA-256 of each → its path from that folder.

    A copy of other content, which earlier steps were trained with, is kept as `NAME-SHA256.py`.
    """
    copies: dict[str, str] = {}
    for plugin in plugins_of(recipe):
        name = f"plugins/{plugin.path.name}"
        if name in copies.values():  # two files of one name, from different folders
            name = f"plugins/{plugin.path.stem}-{plugin.sha256[:8]}.py"
        copies.setdefault(plugin.sha256, name)
    for plugin in plugins_of(recipe):
        copy = run / copies[plugin.sha256]
        check_folder(copy.parent)
        copy.parent.mkdir(exist_ok=True)
        try:
            with open_reading(copy) as file:
                earlier = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            pass
        else:
            if earlier == plugin.sha256:
                continue
            copy.replace(copy.with_name(f"{copy.stem}-{earlier[:8]}.py"))
        with replacing(copy) as beside:
            beside.write_bytes(plugin.content)
    return copies


def describe_plugins(copies: Mapping[str, str]) -> list[dict[str, str]]:
    """Kind, name and origin of each component from outside wildfern: from installed packages and the copied files."""
    rows = []
    for kind, registry in REGISTRIES.items():
        for name, origin in registry.foreign().items():
            row = {"kind": kind, "name": name, "origin": Path(origin.name).name}
            if origin.sha256 is not None:
                if origin.sha256 not in copies:
                    continue  # of another run in this process
                row |= {"file": copies[origin.sha256], "sha256": origin.sha256}
            if origin.version is not None:
                row["version"] = origin.version
            rows.append(row)
    return rows


def changed_plugins(recipe: Recipe, run: Path) -> list[str]:
    """A message for each plugin file of the recipe whose content differs from what `environment.json` recorded."""
    recorded: dict[str, set[str]] = {}
    for row in _rows(run):
        if "sha256" in row:
            recorded.setdefault(str(row["origin"]), set()).add(str(row["sha256"]))
    return [
        f"the plugin {plugin.name} has changed since this run was started (sha256 {plugin.sha256[:12]} now)"
        for plugin in plugins_of(recipe)
        if plugin.sha256 not in recorded.get(plugin.path.name, {plugin.sha256})
    ]


def check_registered(recipe: Recipe, sections: Sequence[str], run: Path) -> None:
    """Raise RunError for a component of these sections that is not registered, naming its plugin or package."""
    for section in sections:
        kind = KINDS.get(section, section)
        names = [entry.scheme for entry in recipe.data] if section == "data" else [getattr(recipe, section).name]
        for name in names:
            if name not in REGISTRIES[kind]:
                raise RunError(f"{run}: {kind} {name!r} is not registered. {_how_to_register(kind, name, run)}")


def _how_to_register(kind: str, name: str, run: Path) -> str:
    kinds = ("source", "generator") if kind == "source" else (kind,)  # a generator is a source, too
    rows = (row for row in _rows(run) if row.get("kind") in kinds and row.get("name") == name)
    row: dict[str, Any] = next(rows, {})
    if "sha256" in row:
        file = run / "plugins" / Path(str(row.get("file"))).name
        return f"This run needs the plugin {file.name}: read {file}, then pass --plugin {file}"
    if "version" in row:
        return f"This run needs the package {row['origin']!r} {row['version']!r}: install it"
    return "Pass the plugin file that registers it with --plugin"


def _rows(run: Path) -> Iterator[dict[str, Any]]:
    """The recorded plugins; empty if `environment.json` is missing or has none."""
    try:
        found = read_json(run / "environment.json", MOST_ENVIRONMENT)
    except (OSError, ValueError):
        return
    rows = found.get("plugins") if isinstance(found, dict) else None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and "origin" in row and all(isinstance(value, str) for value in row.values()):
            yield row
