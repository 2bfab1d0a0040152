"""Recipes laid over one another: `extends`, then the file, then the command line; every key remembers who wrote it."""

from collections.abc import Iterator
from typing import Any

from wildfern.recipes.components import CHOICE, Components
from wildfern.recipes.errors import COMMAND_LINE, Problem, dotted
from wildfern.recipes.schema import COMPONENT_SECTIONS
from wildfern.recipes.yaml_text import read_yaml

Path = tuple[str | int, ...]


class Layers:
    """The merged tree of a recipe. Mappings merge key by key; anything else, and an empty mapping, replaces.

    Where a layer names another component than before, inherited keys that belonged to the former one are dropped.
    """

    def __init__(self, components: Components, main: str):
        self.tree: dict[str, Any] = {}
        self.main = main  # the file that was asked for: where missing keys should be written
        self._components = components
        self._writers: dict[Path, str] = {}

    def lay(self, tree: dict[str, Any], file: str) -> None:
        """Lay the contents of a recipe file over what is there."""
        before = dict(self.choices())
        for key, value in tree.items():
            self._write((key,), value, file)
        self._drop_former_arguments(before, file)

    def lay_overrides(self, overrides: list[str]) -> list[Problem]:
        """Lay `key.sub=value` arguments over the files, all as one layer; gives back those that make no sense."""
        before = dict(self.choices())
        problems = []
        for override in overrides:
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals or not all(key.split(".")):
                problems.append(Problem(COMMAND_LINE, "", f"{override!r} must be written as key=value"))
                continue
            value, unreadable = read_yaml(text, COMMAND_LINE, key)
            problems += unreadable or self._override(key, value)
        self._drop_former_arguments(before, COMMAND_LINE)
        return problems

    def writer(self, path: Path) -> str:
        """Who wrote what is at `path`; for a key that nobody wrote, the file that was asked for."""
        return self._writers.get(path, self.main)

    def last_writer(self, path: Path) -> str:
        """Who wrote last at or under `path`."""
        last = [writer for written, writer in self._writers.items() if written[: len(path)] == path]
        return last[-1] if last else self.main

    def value(self, path: Path) -> Any:
        """What is at `path`; None where there is nothing."""
        node: Any = self.tree
        for part in path:
            if not _holds(node, part):
                return None
            node = node[part]
        return node

    def has(self, path: Path) -> bool:
        """Whether somebody wrote at `path`."""
        return path in self._writers

    def _write(self, path: Path, value: Any, writer: str) -> None:
        parent = self.value(path[:-1])
        old = parent[path[-1]] if _holds(parent, path[-1]) else None
        if _is_entry(path) and isinstance(value, str):
            value = {"source": value}
        if isinstance(old, dict) and isinstance(value, dict) and value:
            for key, item in value.items():
                self._write((*path, key), item, writer)
            return
        if path in self._writers:
            self._forget(path)
        self._writers[path] = writer
        if isinstance(value, dict | list):
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            value = {} if isinstance(value, dict) else [None] * len(items)
        else:
            items = []
        if isinstance(parent, list) and path[-1] == len(parent):
            parent.append(value)
        else:
            parent[path[-1]] = value
        for key, item in items:
            self._write((*path, key), item, writer)

    def _override(self, key: str, value: Any) -> list[Problem]:
        path: Path = ()
        node: Any = self.tree
        parts = key.split(".")
        for number, text in enumerate(parts):
            part: str | int = text
            if isinstance(node, list):
                if not text.isdecimal() or int(text) > len(node):
                    last = "" if not node else f", 0 to {len(node) - 1} (or {len(node)} for one more)"
                    return [Problem(COMMAND_LINE, key, f"{dotted(path)} is a list: its items are numbers{last}")]
                part = int(text)
            elif not isinstance(node, dict):
                return [Problem(COMMAND_LINE, key, f"{dotted(path)} is a single value, without keys of its own")]
            path = (*path, part)
            if number == len(parts) - 1:
                break
            if not _holds(node, part) or node[part] is None:
                self._write(path, {}, COMMAND_LINE)
            node = node[part]
        self._write(path, value, COMMAND_LINE)
        return []

    def _drop_former_arguments(self, before: dict[tuple[str, Path], Any], writer: str) -> None:
        for (section, path), choice in self.choices():
            former = before.get((section, path), choice)
            if former == choice:
                continue
            for key in list(self.value(path)):
                inherited = self.last_writer((*path, key)) != writer
                belonged = self._components.accepts(section, former, key) is not False
                if inherited and belonged and self._components.accepts(section, choice, key) is False:
                    self._forget((*path, key))
                    del self.value(path)[key]

    def choices(self) -> Iterator[tuple[tuple[str, Path], Any]]:
        """Each place of a component and what is chosen there, for all that are chosen now."""
        places = [(section, (section,), self.tree.get(section)) for section in COMPONENT_SECTIONS if section != "data"]
        for place, value in data_places(self.tree):
            places += [("data", path, entry) for path, entry in data_entries(value, place)]
        for section, path, entry in places:
            key = CHOICE.get(section, "name")
            if isinstance(entry, dict) and key in entry:
                yield (section, path), entry[key]

    def _forget(self, path: Path) -> None:
        for written in [written for written in self._writers if written[: len(path)] == path]:
            del self._writers[written]


def data_places(tree: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Path and value of each `data`: the section, and the key of that name among the settings of a component's argument."""
    if "data" in tree:
        yield ("data",), tree["data"]
    for section in COMPONENT_SECTIONS:
        arguments = tree.get(section)
        for key, settings in arguments.items() if isinstance(arguments, dict) else ():
            if is_data_place((section, key, "data")) and isinstance(settings, dict) and "data" in settings:
                yield (section, key, "data"), settings["data"]


def is_data_place(path: Path) -> bool:
    """Whether sources of images stand at this path."""
    return path == ("data",) or (
        len(path) == 3 and path[0] != "data" and path[0] in COMPONENT_SECTIONS and path[2] == "data"
    )


def data_entries(value: Any, place: Path) -> list[tuple[Path, Any]]:
    """Path and value of each entry of the `data` at `place`, written as a list or as a single entry."""
    return [((*place, n), entry) for n, entry in enumerate(value)] if isinstance(value, list) else [(place, value)]


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _is_entry(path: Path) -> bool:
    """Whether a data entry stands here, for which a bare source string is short."""
    return is_data_place(path) or (is_data_place(path[:-1]) and isinstance(path[-1], int))
