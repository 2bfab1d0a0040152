"""Merges recipes: `extends`, then the file, then the command line; records which of them set each key."""

from collections.abc import Iterator
from typing import Any

from wildfern.recipes.components import CHOICE, EVALUATION_LISTS, Components
from wildfern.recipes.errors import COMMAND_LINE, Problem, dotted
from wildfern.recipes.learning_rate import RATE_KEYS
from wildfern.recipes.schema import COMPONENT_SECTIONS
from wildfern.recipes.yaml_text import read_argument

Path = tuple[str | int, ...]

_LIST_KEYS = [(key,) for key in EVALUATION_LISTS]


class Layers:
    """The merged tree of a recipe. Mappings merge key by key; anything else, and an empty mapping, replaces.

    If a layer names another component, inherited keys of the former one are dropped, and values that only it accepts.
    """

    def __init__(self, components: Components, main: str):
        self.tree: dict[str, Any] = {}
        self.main = main  # the requested file, where missing keys are reported
        self._components = components
        self._writers: dict[Path, str] = {}
        self.messages: list[str] = []  # automatic changes, for the user

    def lay(self, tree: dict[str, Any], file: str) -> None:
        """Merge the contents of a recipe file over the layers so far."""
        before, backbone = dict(self.choices()), self.value(("model", "backbone"))
        for key, value in tree.items():
            self._write((key,), value, file)
        self._settle(before, backbone, file)

    def lay_overrides(self, overrides: list[str]) -> list[Problem]:
        """Merge `key.sub=value` arguments over the files as one layer; returns the problems of invalid ones."""
        before, backbone = dict(self.choices()), self.value(("model", "backbone"))
        problems = []
        for override in overrides:
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals or not all(key.split(".")):
                problems.append(Problem(COMMAND_LINE, "", f"{override!r} must be written as key=value"))
                continue
            value, unreadable = read_argument(text, COMMAND_LINE, key)
            problems += unreadable or self._override(key, value)
        self._settle(before, backbone, COMMAND_LINE)
        return problems

    def writer(self, path: Path) -> str:
        """The layer that set `path`; the requested file for a key that none set."""
        return self._writers.get(path, self.main)

    def last_writer(self, path: Path) -> str:
        """The layer that last set a key at or under `path`."""
        last = [writer for written, writer in self._writers.items() if written[: len(path)] == path]
        return last[-1] if last else self.main

    def value(self, path: Path) -> Any:
        """The value at `path`; None if there is none."""
        node: Any = self.tree
        for part in path:
            if not _holds(node, part):
                return None
            node = node[part]
        return node

    def has(self, path: Path) -> bool:
        """Whether a layer set `path`."""
        return path in self._writers

    def _write(self, path: Path, value: Any, writer: str) -> None:
        parent = self.value(path[:-1])
        old = parent[path[-1]] if _holds(parent, path[-1]) else None
        section = entry_section(path)
        if section is not None and isinstance(value, str):
            value = {CHOICE.get(section, "name"): value}
        if path[:1] == ("evaluation",) and path[1:] in _LIST_KEYS and isinstance(value, str | dict):
            value = [value]
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

    def _settle(self, choices: dict[tuple[str, Path], Any], backbone: Any, writer: str) -> None:
        """Drop what the layer of `writer` has replaced; `choices` and `backbone` are those before it."""
        self._drop_former_arguments(choices, writer)
        self._drop_former_rate(writer)
        self._note_former_optimizer(choices.get(("method", ("method",))), writer)
        self._drop_arguments_of_backbone(backbone, writer)

    def _drop_former_rate(self, writer: str) -> None:
        """A layer that states the learning rate in one form replaces an inherited one in the other form."""
        stated = {key for key in ("learning_rate", *RATE_KEYS) if self.value(("optimizer", key)) is not None}
        here = {key for key in stated if self.writer(("optimizer", key)) == writer}
        for form, other in ((["learning_rate"], RATE_KEYS), (RATE_KEYS[:1], ("learning_rate",))):
            if not here.issuperset(form):
                continue
            former = [f"optimizer.{key}" for key in other if key in stated - here]
            for key in stated.intersection(other) - here:
                self._drop(("optimizer", key))
            if former and writer == COMMAND_LINE:
                self.messages.append(f"optimizer.{form[0]} replaces {' and '.join(former)} of the recipe")

    def _note_former_optimizer(self, former: Any, writer: str) -> None:
        """A message if a layer names a method whose paper trains otherwise than the former one's, and no optimizer."""
        now, methods = self.value(("method", "name")), self._components.methods
        if not {former, now} <= {name for name in methods if isinstance(name, str)} or former == now:
            return
        if any(written[:1] == ("optimizer",) and by == writer for written, by in self._writers.items()):
            return
        if getattr(methods[now], "usual", None) != getattr(methods[former], "usual", None):
            name = self.value(("optimizer", "name"))
            self.messages.append(f"method.name is now {now}: the section optimizer ({name}) is that of {former}")

    def _drop_former_arguments(self, before: dict[tuple[str, Path], Any], writer: str) -> None:
        for (section, path), choice in self.choices():
            former = before.get((section, path), choice)
            if former == choice:
                continue
            invalid = []
            for key in list(self.value(path)):
                belonged = self._components.accepts(section, former, key)
                if belonged is False:
                    continue
                accepted = self._components.accepts(section, choice, key)
                if accepted is False and self.last_writer((*path, key)) != writer:
                    self._drop((*path, key))
                elif accepted and belonged:
                    invalid += self._only_former_accepts(section, (former, choice), path, key, writer)
            for place in invalid:
                self._drop(place)
            if invalid:
                chosen = dotted((*path, CHOICE.get(section, "name")))
                keys = ", ".join(dotted(place) for place in invalid)
                self.messages.append(
                    f"{chosen} is now {choice}: dropped {keys} of {former}, which {choice} does not accept"
                )

    def _only_former_accepts(
        self, section: str, choices: tuple[Any, Any], component: Path, key: str, writer: str
    ) -> list[Path]:
        """Paths at or below `key`, not set by `writer`, whose values the former component accepts and the new one does not."""
        path, value = (*component, key), self.value((*component, key))
        former, choice = (self._components.invalid_parts(section, chosen, key, value) for chosen in choices)
        places = {(*path, *_up_to_a_list(value, part)) for part in choice - former}
        inherited = sorted(place for place in places if self.last_writer(place) != writer)
        return [place for place in inherited if not any(place[:n] in places for n in range(len(place)))]

    def _drop(self, path: Path) -> None:
        self._forget(path)
        del self.value(path[:-1])[path[-1]]

    def _drop_arguments_of_backbone(self, former: Any, writer: str) -> None:
        """If this layer names another backbone, drop inherited keys that the new one does not take, with a message."""
        model = self.tree.get("model")
        if not isinstance(model, dict):
            return
        now = model.get("backbone")
        if former in (None, now) or not isinstance(now, str):
            return
        arguments = model.get("arguments")
        keys = list(arguments) if isinstance(arguments, dict) else []
        places: list[tuple[Path, str]] = [(("model", "arguments", key), key) for key in keys]
        own = ("stem", "weights", "weights_key")
        places += [(("model", key), key) for key in own if model.get(key) not in (None, "standard")]
        dropped = []
        for path, key in places:
            inherited = self.last_writer(path) != writer
            of_file = key in ("weights", "weights_key")
            if inherited and (of_file or not self._components.backbone_takes(now, key, str(former))):
                self._drop(path)
                dropped.append(dotted(path))
        if dropped:
            self.messages.append(f"model.backbone is now {now}: dropped {', '.join(dropped)} of {former}")

    def choices(self) -> Iterator[tuple[tuple[str, Path], Any]]:
        """The path of each component in the current tree, and its name."""
        places: list[tuple[str, Path, Any]] = [
            (section, (section,), self.tree.get(section)) for section in COMPONENT_SECTIONS if section != "data"
        ]
        for place, value in data_places(self.tree):
            places += [("data", path, entry) for path, entry in data_entries(value, place)]
        evaluation = self.tree.get("evaluation")
        for section in EVALUATION_LISTS:
            entries = evaluation.get(section) if isinstance(evaluation, dict) else None
            for number, entry in enumerate(entries if isinstance(entries, list) else ()):
                places.append((section, ("evaluation", section, number), entry))
        for section, path, entry in places:
            key = CHOICE.get(section, "name")
            if isinstance(entry, dict) and key in entry:
                yield (section, path), entry[key]

    def _forget(self, path: Path) -> None:
        for written in [written for written in self._writers if written[: len(path)] == path]:
            del self._writers[written]


def data_places(tree: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Path and value of each `data`: the section, and the key of that name in settings of components."""
    if "data" in tree:
        yield ("data",), tree["data"]
    for section in COMPONENT_SECTIONS:
        arguments = tree.get(section)
        for key, settings in arguments.items() if isinstance(arguments, dict) else ():
            if (
                is_data_place((section, key, "data"))
                and isinstance(settings, dict)
                and settings.get("data") is not None
            ):
                yield (section, key, "data"), settings["data"]


def is_data_place(path: Path) -> bool:
    """Whether this path is one of sources of images."""
    return path == ("data",) or (
        len(path) == 3 and path[0] != "data" and path[0] in COMPONENT_SECTIONS and path[2] == "data"
    )


def data_entries(value: Any, place: Path) -> list[tuple[Path, Any]]:
    """Path and value of each entry of the `data` at `place`, a list or a single entry."""
    return [((*place, n), entry) for n, entry in enumerate(value)] if isinstance(value, list) else [(place, value)]


def _up_to_a_list(value: Any, path: Path) -> Path:
    """The start of a path in `value` that leads through mappings only: a list is dropped whole."""
    for number, part in enumerate(path):
        if not isinstance(value, dict):
            return path[:number]
        value = value[part]
    return path


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def entry_section(path: Path) -> str | None:
    """The list (`data`, `on` or `protocols`) that this path is an entry of, if any; a string is short for a mapping there."""
    if is_data_place(path) or (is_data_place(path[:-1]) and isinstance(path[-1], int)):
        return "data"
    if len(path) == 3 and path[0] == "evaluation" and path[1:2] in _LIST_KEYS and isinstance(path[2], int):
        return str(path[1])
    return None
