"""The registries that a recipe chooses from, and the recipe keys of a component, from its signature."""

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from wildfern.recipes.learning_rate import RATE_KEYS
from wildfern.recipes.wording import complaints
from wildfern.registry import LOCATION, ComponentError

# Strict and read as JSON (see checking.py): "12" is not an integer, true is not a number, but a list may fill a tuple.
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

CHOICE = {"data": "source", "on": "source"}  # the key that chooses the component, by section; elsewhere it is `name`
EVALUATION_LISTS = ("on", "protocols")  # lists of components in the section `evaluation`
DEFAULT_CHOICE = {"engine": "torch"}

Registry = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Components:
    """Registries, name → class or function. Keyword-only parameters are the recipe keys; the program fills the others.

    A parameter may be a pydantic model with keys of its own; if it has a field `data`, this has the form of the section `data`,
    and the component gets the checked entries.

    A component may have a static `check(**arguments)` that raises ValueError for arguments that are invalid together.
    Sources and views in `constructible` are cheap to build and are built as a check. `backbone_takes(name, key, former)` returns
    whether a backbone has this argument, with the meaning that it has for the backbone `former`, or allows a choice of `stem`;
    other arguments of a former backbone are dropped.
    `source_problem`, `guide_problem` and `backbone_problem` return what is wrong with a source, a file or a backbone, apart from
    its arguments, such as a folder that does not exist; None if nothing is.
    """

    sources: Registry
    views: Registry
    methods: Registry
    optimizers: Registry
    schedules: Registry
    engines: Registry
    evaluators: Registry = dataclasses.field(default_factory=dict)
    constructible: Container[str] = frozenset()
    backbone_takes: Callable[[str, str, str], bool] = lambda name, key, former: False
    source_problem: Callable[[str], str | None] = lambda source: None
    guide_problem: Callable[[str], str | None] = lambda file: None
    backbone_problem: Callable[[str], str | None] = lambda name: None

    def of_section(self, section: str) -> Registry:
        """The registry that a recipe section (`data`, `views`, `method` …) or a list of `evaluation` chooses from."""
        return {
            "data": self.sources,
            "views": self.views,
            "method": self.methods,
            "optimizer": self.optimizers,
            "schedule": self.schedules,
            "engine": self.engines,
            "on": self.sources,
            "protocols": self.evaluators,
        }[section]

    def arguments(self, section: str, choice: Any) -> type[BaseModel] | None:
        """The model of the arguments of the component `choice` (a name or a source string); None if there is none.

        Raises ComponentError for a component that cannot be imported or has no type annotations.
        """
        name = choice_name(section, choice)
        component = self.of_section(section).get(name) if name is not None else None
        if component is None:
            return None
        program = {*LOCATION, "split"} if CHOICE.get(section) == "source" else set()
        return arguments_model(component, frozenset(program | own_keys(section)))

    def accepts(self, section: str, choice: Any, key: str) -> bool | None:
        """Whether the chosen component takes `key`; None if there is no such component, or it cannot be used."""
        try:
            model = self.arguments(section, choice)
        except ComponentError:
            model = None
        if model is None:
            return None
        return key in own_keys(section) or key in argument_names(model)

    def invalid_parts(self, section: str, choice: Any, key: str, value: Any) -> set[tuple[str | int, ...]]:
        """Paths in `value`, () for the whole, that are invalid for the argument `key` of the chosen component.

        `accepts` must have returned True for the key. Keys that are missing are not counted.
        """
        model = self.arguments(section, choice)
        if model is None or key in own_keys(section):
            return set()
        given = {key: value}
        try:
            model.model_validate_json(json.dumps(given))
        except ValidationError as error:  # other arguments are missing here
            found = complaints(error.errors(include_url=False), given)
            return {
                complaint.path[1:]
                for complaint in found
                if complaint.path[:1] == (key,) and complaint.kind != "missing"
            }
        return set()


def own_keys(section: str) -> set[str]:
    """The keys of a component section that are not arguments of the component."""
    further = {
        "data": {"weight", "fingerprint", "imbalance", "guide", "order", "buffer"},
        "schedule": {"length", "afterwards"},
        "optimizer": {*RATE_KEYS},
    }
    return {CHOICE.get(section, "name")} | further.get(section, set())


def choice_name(section: str, choice: Any) -> str | None:
    """The registry key of a choice: the name, or the scheme of a source (`folder:/a/b` → `folder`)."""
    if not isinstance(choice, str):
        return None
    return choice.partition(":")[0] if CHOICE.get(section) == "source" else choice


@functools.lru_cache(maxsize=1024)
def arguments_model(component: Callable[..., Any], reserved: frozenset[str]) -> type[BaseModel]:
    """A strict pydantic model of the keyword-only parameters of `component`, without the `reserved` ones.

    Raises ComponentError for a keyword-only parameter without annotation, or with one of a type that recipes do not have.
    """
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in reserved:
            continue
        annotation = _annotation(component, parameter)
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is None:
            annotation = annotation | None
        # Numbered fields with an alias: a parameter may be called `copy` or `schema`, which pydantic models use.
        fields[f"argument_{len(fields)}"] = (annotation, Field(default, alias=parameter.name))
    try:
        return create_model(getattr(component, "__name__", "component"), __config__=STRICT, **fields)
    except (PydanticUserError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise ComponentError(
            f"{_named(component)}: its keyword-only parameters are recipe keys and need types of YAML values: {reason}"
        ) from error


def argument_names(model: type[BaseModel]) -> list[str]:
    """The recipe keys of an arguments model, in the order of the signature."""
    return [field.alias or name for name, field in model.model_fields.items()]


def settings_model(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of an argument that is a mapping with keys of its own; None for other arguments."""
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            kinds = (field.annotation, *get_args(field.annotation))  # PixMixSettings | None
            return next((kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)), None)
    return None


def takes_data(model: type[BaseModel] | None) -> bool:
    """Whether the settings have a key `data` with sources of images, like the section `data`."""
    return model is not None and "data" in model.model_fields


def needs_data(model: type[BaseModel] | None) -> bool:
    """Whether the key `data` of the settings must have a value."""
    return model is not None and model.model_fields["data"].is_required()


def argument_values(arguments: BaseModel) -> dict[str, Any]:
    """The checked arguments by parameter name, defaults included."""
    return {field.alias or name: getattr(arguments, name) for name, field in type(arguments).model_fields.items()}


def differing(arguments: BaseModel) -> dict[str, Any]:
    """The checked arguments that are not at their defaults, by parameter name."""
    return {
        field.alias or name: getattr(arguments, name)
        for name, field in type(arguments).model_fields.items()
        if field.is_required() or getattr(arguments, name) != field.default
    }


def _annotation(component: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The evaluated annotation, also if the component's module postpones evaluation.

    Evaluates that of one parameter only: positional ones may name types that only type checkers import.
    """
    annotation = parameter.annotation
    if annotation is parameter.empty:
        raise ComponentError(f"{_named(component)}: the recipe key {parameter.name} needs a type annotation")
    if isinstance(annotation, str):
        function = component.__init__ if inspect.isclass(component) else component
        function = inspect.unwrap(getattr(function, "func", function))
        scope = getattr(function, "__globals__", None) or vars(sys.modules[component.__module__])
        try:
            annotation = eval(annotation, dict(scope))
        except Exception as error:
            raise ComponentError(
                f"{_named(component)}: the annotation of {parameter.name} cannot be read: {error}"
            ) from error
    return annotation


def _named(component: Callable[..., Any]) -> str:
    return getattr(component, "__qualname__", None) or repr(component)
