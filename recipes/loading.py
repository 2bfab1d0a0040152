"""Loads recipes: bundled ones by name, others by path, with `extends` and overrides of the command line."""

import importlib.resources
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from wildfern.recipes.checking import ExtraCheck, check_recipe
from wildfern.recipes.components import Components
from wildfern.recipes.errors import COMMAND_LINE, Problem, RecipeErrors, nearest
from wildfern.recipes.merging import Layers
from wildfern.recipes.plugin_files import PluginFiles
from wildfern.recipes.schema import Recipe
from wildfern.recipes.wording import shown
from wildfern.recipes.yaml_text import MAX_BYTES, read_yaml

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class _File:
    """A recipe file: its name in messages, its place, and the folder that its `extends` is relative to."""

    label: str
    place: Traversable
    folder: Path

    def read(self) -> str:
        """The text; raises ValueError with a message for users."""
        try:
            with self.place.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror or error}") from None
        if len(content) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES // 1_000_000} MB")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(f"line {line}: not UTF-8 text") from None


def load_recipe(
    name_or_path: str | os.PathLike[str],
    overrides: Sequence[str],
    components: Components,
    *,
    base_dir: Path | None = None,
    extra_checks: Sequence[ExtraCheck] = (),
    plugins: Sequence[str | os.PathLike[str]] = (),
    trusted: bool = True,
    run_own_plugins: bool = True,
    announce: Callable[[str], None] = lambda message: None,
) -> Recipe:
    """The recipe of a bundled name or of a file (anything with a slash or ending in .yaml), checked and complete.

    `overrides` are `key.sub=value` with YAML values, list items by number (`data.0.weight=2`); they come last.
    Relative paths start at `base_dir`, the working folder unless given. `extra_checks` return `(dotted key, message)`
    for errors across sections; `announce` gets a message for each automatic change. Raises RecipeErrors with all errors.

    Runs the Python files of the key `plugins`, and those of `plugins`. With `trusted=False`, for the recipe in a run folder, its
    own plugins are not run, it extends nothing, and components that are not registered keep their arguments unchecked.
    `run_own_plugins=False`: each of its own plugins that is not in `plugins` too is an error.
    """
    base_dir = Path(base_dir or ".")
    chain, problems = _read_chain(name_or_path, base_dir, extends=trusted)
    whole = not any(problem.key in ("", "extends") for problem in problems)
    layers = Layers(components, main=chain[-1].label if chain else str(name_or_path))
    files = PluginFiles()
    for layer in chain:
        files.add(layer.tree.pop("plugins", []), layer.label, layer.folder, run=trusted and run_own_plugins)
    settings = files.take_from(overrides, base_dir)
    files.add([os.fspath(path) for path in plugins], COMMAND_LINE, base_dir)
    waiting = not run_own_plugins and files.require_all()
    problems += files.problems
    for layer in chain:
        layers.lay(layer.tree, layer.label)
    problems += layers.lay_overrides(settings)
    layers.tree["plugins"] = files.paths
    for message in layers.messages:
        announce(message)
    return check_recipe(layers, components, extra_checks, problems, whole, keep_unknown=not trusted or waiting)


def list_recipes() -> dict[str, str]:
    """The bundled recipes: name → first comment line."""
    return {name: _first_comment(file.read_text(encoding="utf-8")) for name, file in sorted(_bundled().items())}


def recipe_text(name: str) -> str:
    """The text of a bundled recipe, with comments; raises RecipeErrors if there is none of that name."""
    found = _find(name, Path("."), asked_by=name, key="")
    if isinstance(found, Problem):
        raise RecipeErrors([found])
    return found.read()


def likely_sources(name_or_path: str | os.PathLike[str], overrides: Sequence[str]) -> list[str]:
    """The sources of a recipe, read quickly and unchecked, to prepare for them; none of a recipe that cannot be read."""
    chain, problems = _read_chain(name_or_path, Path("."))
    texts = [override.partition("=")[::2] for override in overrides]
    given = [text for key, text in texts if key.startswith("data") and key.endswith(("data", "source"))]
    entries: Any = next((layer.tree["data"] for layer in reversed(chain) if "data" in layer.tree), [])
    entries = entries if isinstance(entries, list) else [entries]
    named = [entry.get("source") if isinstance(entry, dict) else entry for entry in entries]
    return [] if problems else [str(name) for name in [*given, *named] if name]


@dataclass(frozen=True)
class _Layer:
    """The contents of a recipe file, its name in messages, and the folder that its paths are relative to."""

    label: str
    tree: dict[str, Any]
    folder: Path


def _read_chain(
    name_or_path: str | os.PathLike[str], base_dir: Path, extends: bool = True
) -> tuple[list[_Layer], list[Problem]]:
    """The chain of `extends`, from the file that extends nothing to the requested one; a problem unless `extends`."""
    chain: list[_Layer] = []
    problems: list[Problem] = []
    visited: list[_File] = []
    found = _find(name_or_path, base_dir, asked_by=str(name_or_path), key="")
    while True:
        if isinstance(found, Problem):
            problems.append(found)
            break
        label = found.label
        if any(_same(found, earlier) for earlier in visited):
            circle = " → ".join([*(file.label for file in visited), label])
            problems.append(Problem(visited[-1].label, "extends", f"files extend each other in a circle: {circle}"))
            break
        visited.append(found)
        try:
            tree, unreadable = read_yaml(found.read(), label)
        except ValueError as error:
            tree, unreadable = None, [Problem(label, "", str(error))]
        problems += unreadable
        if not isinstance(tree, dict):
            if not unreadable:
                what = "is empty" if tree is None else f"must be a mapping of sections, got {shown(tree)}"
                problems.append(Problem(label, "", what))
            break
        parent = tree.pop("extends", None)
        chain.insert(0, _Layer(label, tree, found.folder))
        if parent is None:
            break
        if not extends:
            message = "is not followed in the recipe of a run folder, which is complete in itself: remove the key"
            problems.append(Problem(label, "extends", message))
            break
        if not isinstance(parent, str):
            problems.append(Problem(label, "extends", f"must be one name or path, got {shown(parent)}"))
            break
        found = _find(parent, found.folder, asked_by=label, key="extends", label_folder=os.path.dirname(label))
    return chain, problems


def _find(
    reference: str | os.PathLike[str], folder: Path, *, asked_by: str, key: str, label_folder: str = ""
) -> _File | Problem:
    """The file of a name or path; relative paths start at `folder`."""
    text = os.fspath(reference)
    is_path = isinstance(reference, os.PathLike) or text.endswith(SUFFIXES) or "/" in text or os.sep in text
    if is_path:
        place = folder / os.path.expanduser(text)
        if place.is_file():
            return _File(os.path.join(label_folder, text), place, place.parent)
        beside = [file.name for file in place.parent.iterdir()] if place.parent.is_dir() else []
        near = nearest(place.name, [name for name in beside if name.endswith(SUFFIXES) and name != place.name])
        there = "is neither a file nor a folder" if place.exists() else "no such file"
        message = "is a folder, not a recipe" if place.is_dir() else there
        suggestion = str(Path(text).parent / near) if near else None
        if (place / "recipe.yaml").is_file():  # of a run
            suggestion = str(Path(text) / "recipe.yaml")
        return Problem(asked_by, key, f"{message}: {text}" if key else message, suggestion)
    bundled = _bundled()
    if text in bundled:
        return _File(f"{text}.yaml (bundled)", bundled[text], folder)
    near = nearest(text, bundled)
    here = [f"{text}{suffix}" for suffix in SUFFIXES if (folder / f"{text}{suffix}").is_file()]
    message = f"there is no bundled recipe {text!r}"
    return Problem(asked_by, key, message, here[0] if here else near, tuple(sorted(bundled)))


def _bundled() -> dict[str, Traversable]:
    files = importlib.resources.files("wildfern.recipes").iterdir()
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def _same(one: _File, other: _File) -> bool:
    if isinstance(one.place, Path) and isinstance(other.place, Path):
        return one.place.resolve() == other.place.resolve()
    return one.label == other.label


def _first_comment(text: str) -> str:
    comments = (line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#"))
    return next((comment for comment in comments if comment), "")
