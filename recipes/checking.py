"""Turns the merged tree into a `Recipe`: checks every key and collects all errors."""

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from wildfern.recipes.components import (
    CHOICE,
    DEFAULT_CHOICE,
    EVALUATION_LISTS,
    Components,
    argument_names,
    argument_values,
    choice_name,
    differing,
    needs_data,
    own_keys,
    settings_model,
    takes_data,
)
from wildfern.recipes.errors import Problem, RecipeErrors, dotted, nearest
from wildfern.recipes.learning_rate import IMAGES, scaled_rate
from wildfern.recipes.merging import Layers, Path, data_entries, data_places, entry_section
from wildfern.recipes.schema import (
    COMPONENT_SECTIONS,
    FIXED_SECTIONS,
    Component,
    DataEntry,
    Evaluation,
    EvaluationEntry,
    OptimizerChoice,
    Recipe,
    ScheduleChoice,
    Seed,
)
from wildfern.recipes.wording import complaints, shown
from wildfern.registry import ComponentError, location_parameter

ExtraCheck = Callable[[Recipe], Iterable[tuple[str, str]]]
Check = TypeVar("Check", bound=ExtraCheck)
SectionModel = TypeVar("SectionModel", bound=BaseModel)


def needs(*sections: str) -> Callable[[Check], Check]:
    """Mark a check as one that reads only these sections: it also runs if others have errors."""

    def mark(check: Check) -> Check:
        check.sections = sections  # type: ignore[attr-defined]
        return check

    return mark


BUILT = ("data", "views")  # sections whose components can be built from their arguments alone
OWN_MODELS = {"data": DataEntry, "on": EvaluationEntry, "schedule": ScheduleChoice, "optimizer": OptimizerChoice}
_MISSING = "is missing"


def check_recipe(
    layers: Layers,
    components: Components,
    extra_checks: Sequence[ExtraCheck],
    earlier: Sequence[Problem] = (),
    whole: bool = True,
    keep_unknown: bool = False,
) -> Recipe:
    """The recipe of `layers`, or RecipeErrors with the `earlier` problems and those found here.

    Unless the layers are `whole`, missing keys are not reported: they may be in a file that could not be read. With
    `keep_unknown`, components that are not registered keep their arguments, unchecked.
    `extra_checks` run on a recipe without other errors; those marked by `needs` run if their sections have none.
    """
    checking = _Checking(layers, components, keep_unknown)
    sections = checking.sections()
    unread = {problem.key for problem in earlier}
    problems = [p for p in checking.problems if p.message != _MISSING or (whole and p.key not in unread)]
    if earlier or problems:
        missing_here = checking.missing_here  # these sections can still be checked
        invalid = {
            problem.key.partition(".")[0] for problem in (*earlier, *checking.problems) if problem not in missing_here
        }
        recipe = Recipe.model_construct(**{name: value for name, value in sections.items() if name not in invalid})
        runnable = [
            check for check in extra_checks if whole and not invalid.intersection(getattr(check, "sections", invalid))
        ]
    else:
        recipe, runnable = Recipe(**sections), list(extra_checks)
    checking.problems = [*earlier, *problems]
    for check in runnable:
        for key, message in check(recipe):
            path = checking.path_of(key)
            checking.complain(path, message, writer=layers.last_writer(path))
    if checking.problems:
        raise RecipeErrors(checking.problems)
    return recipe


class _Checking:
    def __init__(self, layers: Layers, components: Components, keep_unknown: bool):
        self.layers, self.components, self.keep_unknown = layers, components, keep_unknown
        self.problems: list[Problem] = []
        self.missing_here: list[Problem] = []  # problems that say that something valid does not exist

    def sections(self) -> dict[str, Any]:
        """The valid sections by name; errors of the others are in `problems`."""
        tree = self.layers.tree
        for key in tree:
            if key not in Recipe.model_fields:
                self._unknown_key((key,), list(Recipe.model_fields))
        sections: dict[str, Any] = {}
        for name, field in Recipe.model_fields.items():
            if name not in tree and field.is_required():
                self.complain((name,), _MISSING, known=self._names(name))
            elif name == "seed":
                seed = self._validate(Seed, {key: tree[key] for key in tree if key == "seed"}, ())
                sections[name] = seed and seed.seed
            elif name == "plugins":
                sections[name] = tree.get(name, [])
            elif name == "evaluation":
                sections[name] = self._evaluation(tree.get(name, {}), (name,))
            elif name == "data":
                sections[name] = self._data(tree[name], ("data",))
            elif name in COMPONENT_SECTIONS:
                sections[name] = self._component(name, tree.get(name, {}), (name,))
            else:
                sections[name] = self._validate(FIXED_SECTIONS[name], tree.get(name, {}), (name,))
        backbone = self.layers.value(("model", "backbone"))
        if isinstance(backbone, str) and backbone and (problem := self.components.backbone_problem(backbone)):
            self._complain_of_missing(("model", "backbone"), problem)
        return sections

    def complain(
        self, path: Path, message: str, suggestion: str | None = None, known: Iterable[str] = (), writer: str = ""
    ) -> None:
        """Add a problem at `path`, reported for the file that set it unless `writer` names another."""
        writer = writer or self.layers.writer(path)
        self.problems.append(Problem(writer, dotted(path), message, suggestion, tuple(known)))

    def _complain_of_missing(self, path: Path, message: str) -> None:
        self.complain(path, message)
        self.missing_here.append(self.problems[-1])

    def path_of(self, key: str) -> Path:
        """The path of a dotted key in this recipe: `data.0.x` is `data.x` if data is not a list."""
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        for place, value in data_places(self.layers.tree):
            if path[: len(place) + 1] == (*place, 0) and isinstance(value, dict):
                return (*place, *path[len(place) + 1 :])
        return path

    def _data(self, value: Any, place: Path) -> list[DataEntry | None]:
        if not isinstance(value, dict | list) or not value:
            self.complain(place, f"must be a source or a list of sources, got {shown(value)}")
            return []
        entries: list[Any] = [self._component("data", entry, path) for path, entry in data_entries(value, place)]
        return entries

    def _evaluation(self, value: Any, path: Path) -> Evaluation | None:
        if not isinstance(value, dict):
            return self._validate(Evaluation, value, path)
        given = {key: value[key] for key in EVALUATION_LISTS if key in value}
        evaluation = self._validate(Evaluation, {key: value[key] for key in value if key not in given}, path)
        lists: dict[str, list[Component | DataEntry | EvaluationEntry | None]] = {}
        for key, entries in given.items():
            if not isinstance(entries, list):
                self.complain((*path, key), f"must be a list, got {shown(entries)}")
                continue
            lists[key] = [self._component(key, entry, (*path, key, number)) for number, entry in enumerate(entries)]
        return evaluation and evaluation.model_copy(update=lists)

    def _data_of_arguments(
        self, signature: type[BaseModel], given: dict[str, Any], path: Path
    ) -> dict[str, list[DataEntry | None]]:
        """The sources in the settings of arguments that have any, by argument."""
        return {
            key: self._data(settings["data"], (*path, key, "data"))
            for key, settings in given.items()
            if isinstance(settings, dict) and "data" in settings and takes_data(settings_model(signature, key))
            if settings["data"] is not None or needs_data(settings_model(signature, key))
        }

    def _component(self, section: str, value: Any, path: Path) -> Component | DataEntry | EvaluationEntry | None:
        key = CHOICE.get(section, "name")
        if not isinstance(value, dict):
            self.complain(path, f"must be a mapping such as {{{key}: …}}, got {shown(value)}")
            return None
        if section in DEFAULT_CHOICE:
            value = {key: DEFAULT_CHOICE[section], **value}
        own = {name: value[name] for name in value if name in own_keys(section)}
        given = {name: value[name] for name in value if name not in own}
        model: Any = OWN_MODELS.get(section, Component)
        entry = self._validate(model, own, path, self._names(section), self.layers.last_writer(path))
        if isinstance(entry, DataEntry) and entry.guide and (problem := self.components.guide_problem(entry.guide)):
            self._complain_of_missing((*path, "guide"), problem)
        choice = value.get(key)
        if not isinstance(choice, str):
            return None
        if self.keep_unknown and choice_name(section, choice) not in self.components.of_section(section):
            return entry and entry.model_copy(update={"arguments": given})
        check = self._source if key == "source" else self._named
        try:
            signature = self.components.arguments(section, choice) if check(section, choice, (*path, key)) else None
        except ComponentError as error:
            self.complain((*path, key), str(error))
            signature = None
        if signature is None:
            return None
        follows = section == "optimizer" and self._rate_follows(
            own, given, "learning_rate" in argument_names(signature)
        )
        number = len(self.problems)
        arguments = self._validate(signature, given, path, writer=self.layers.writer((*path, key)))
        if follows:
            self.problems[number:] = [self._blame_base_rate(problem, given) for problem in self.problems[number:]]
        data = self._data_of_arguments(signature, given, path)
        if arguments is None or entry is None:
            return None
        values = argument_values(arguments)
        for argument, entries in data.items():
            values[argument] = values[argument].model_copy(update={"data": entries})
        number = len(self.problems)
        component = self.components.of_section(section)[choice_name(section, choice) or ""]
        for argument in getattr(component, "nested", ()):
            self._nested(values[argument], (*path, argument))
        if len(self.problems) == number:
            self._check_together(section, choice, values, path)
        if follows:
            del values["learning_rate"]  # Recipe.optimizer_arguments has it
        if section in EVALUATION_LISTS:
            values = differing(arguments)
        return entry.model_copy(update={"arguments": values})

    def _nested(self, value: Any, path: Path) -> None:
        """Check an argument that is itself a source: its name, or a mapping like an entry of `data`."""
        given = {"source": value} if isinstance(value, str) else value
        if "source" not in given:
            self.complain(path, "must be the name of a source, or a mapping with the key source")
            return
        for key in own_keys("data") & given.keys() - {"source"}:
            self.complain((*path, key), "is for the entries of data, not for a source that another one is made from")
        self._component("data", given, path)

    def _rate_follows(self, own: dict[str, Any], given: dict[str, Any], takes_rate: bool) -> bool:
        """Whether the learning rate follows from the batch size; it is then added to `given`, to be checked like a stated one."""
        base, path = own.get("base_learning_rate"), ("optimizer", "base_learning_rate")
        if base is None:
            if "scaling" in own:
                self.complain(("optimizer", "scaling"), "applies to optimizer.base_learning_rate, which is not given")
            return False
        if "learning_rate" in given:
            message = "is given together with optimizer.learning_rate: give one of the two"
            self.complain(path, f"{message} (base_learning_rate is for {IMAGES} images and follows the batch size)")
            return False
        if not takes_rate:
            self.complain(path, f"{own['name']} has no learning_rate")
            return False
        batch_size = self.layers.value(("training", "batch_size"))
        valid = all(isinstance(value, int | float) and 0 < value < 1e9 for value in (base, batch_size))
        # Invalid ones have errors of their own; the value stands in for them.
        given["learning_rate"] = scaled_rate(base, batch_size, own.get("scaling", "linear")) if valid else 1e-3
        return True

    def _blame_base_rate(self, problem: Problem, given: dict[str, Any]) -> Problem:
        """A problem of the learning rate that follows, as one of `base_learning_rate`."""
        if problem.key != "optimizer.learning_rate":
            return problem
        key, batch_size = ("optimizer", "base_learning_rate"), self.layers.value(("training", "batch_size"))
        message = f"makes learning_rate {given['learning_rate']:g} for batches of {batch_size} images, which {problem.message}"
        return Problem(self.layers.writer(key), dotted(key), message)

    def _named(self, section: str, name: str, path: Path) -> bool:
        registry = self.components.of_section(section)
        known = name in registry
        if not known:
            kind = {"data": "source", "on": "source", "protocols": "protocol"}.get(section, section)
            self.complain(path, f"unknown {kind} {name!r}", nearest(name, registry), sorted(registry))
        return known

    def _source(self, section: str, source: str, path: Path) -> bool:
        scheme, colon, location = source.partition(":")
        registry = self.components.sources
        if scheme not in registry and (re.search(r"[/\\]|\.(parquet|tar)$", scheme) or os.path.isdir(source)):
            kind = {".parquet": "parquet", ".tar": "webdataset"}.get(os.path.splitext(scheme)[1], "folder")
            if kind in registry:
                self.complain(path, f"unknown source {source!r}", f"{kind}:{source}", sorted(registry))
                return False
        if not self._named(section, scheme, path):
            return False
        parameter = location_parameter(registry[scheme])
        if parameter is None and colon:
            self.complain(path, f"{scheme} takes nothing after a colon, got {shown(source)}", scheme)
        elif parameter is not None and parameter.default is parameter.empty and not location:
            self.complain(path, f"needs a {parameter.name}: {scheme}:{parameter.name.upper()}")
        elif problem := self.components.source_problem(source):
            self._complain_of_missing(path, problem)
        return True

    def _check_together(self, section: str, choice: str, arguments: dict[str, Any], path: Path) -> None:
        """Run the component's own check; its error is reported at the first argument that the message names."""
        name = choice_name(section, choice) or ""
        component = self.components.of_section(section)[name]
        built = component if section in BUILT and name in self.components.constructible else None
        check = getattr(component, "check", built)
        if check is None:
            return
        try:
            check(**arguments)
        except ValueError as error:
            places = {key: re.search(rf"\b{re.escape(key)}\b", str(error)) for key in arguments}
            mentioned = sorted((place.start(), key) for key, place in places.items() if place)
            where = (*path, mentioned[0][1]) if mentioned else path
            self.complain(where, str(error), writer=self.layers.last_writer(where if self.layers.has(where) else path))

    def _validate(
        self, model: type[SectionModel], value: Any, path: Path, known: Sequence[str] = (), writer: str = ""
    ) -> SectionModel | None:
        """Validate `value` as JSON: strictly, but a list may fill a tuple."""
        try:
            return model.model_validate_json(json.dumps(value))
        except ValidationError as error:
            for complaint in complaints(error.errors(include_url=False), value):
                where = (*path, *complaint.path)
                if complaint.kind == "extra_forbidden":
                    self._unknown_key(where, self._keys_of(model, path, complaint.path))
                elif complaint.kind == "missing":
                    self.complain(where, complaint.message, known=known, writer=writer)
                else:
                    self.complain(where, complaint.message, complaint.suggestion)
            return None

    def _keys_of(self, model: type[BaseModel], path: Path, below: Path) -> list[str]:
        """The valid keys in place of the unknown key `below`, relative to `path`."""
        settings = settings_model(model, str(below[0])) if len(below) > 1 else None
        if settings is not None:
            return argument_names(settings)
        section = entry_section(path) or (str(path[0]) if path else "")
        own = own_keys(section) if section in (*COMPONENT_SECTIONS, *EVALUATION_LISTS) else ()
        return [*sorted(own), *argument_names(model)]

    def _unknown_key(self, path: Path, names: list[str]) -> None:
        """Report an unknown key, with a similar key of the same section or the same key of another section."""
        word = str(path[-1])
        beside = nearest(word, names)
        if beside is not None:
            self.complain(path, "unknown key", dotted((*path[:-1], beside)))
            return
        elsewhere = next((key for key in self._all_keys() if key.rpartition(".")[2] == word), None)
        known = () if elsewhere else tuple(names)
        problem = Problem(self.layers.writer(path), dotted(path), "unknown key", elsewhere, known, self._advice(path))
        self.problems.append(problem)

    def _advice(self, path: Path) -> str:
        """For a key of another engine than the chosen one, how to get that engine."""
        if path[0] != "engine" or len(path) != 2:
            return ""
        engines = self.components.of_section("engine")
        others = [name for name in sorted(engines) if self.components.accepts("engine", name, str(path[1]))]
        if not others:
            return ""
        launchers = "start the run with deepspeed or torchrun, or " if "deepspeed" in others else ""
        return f"it is a key of engine.name={' or '.join(others)}: {launchers}add engine.name={others[0]}"

    def _all_keys(self) -> Iterable[str]:
        for section, model in FIXED_SECTIONS.items():
            yield from (f"{section}.{name}" for name in model.model_fields)
        for (section, path), choice in self.layers.choices():
            try:
                arguments = self.components.arguments(section, choice)
            except ComponentError:
                continue
            yield from (dotted((*path, name)) for name in (argument_names(arguments) if arguments else ()))

    def _names(self, section: str) -> list[str]:
        known = section in (*COMPONENT_SECTIONS, *EVALUATION_LISTS)
        return sorted(self.components.of_section(section)) if known else []
