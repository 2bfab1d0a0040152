"""What to evaluate on, and how: names and arguments are checked together, before anything is computed."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from wildfern.launch.components import missing_place
from wildfern.recipes.components import argument_names, argument_values, arguments_model, differing
from wildfern.recipes.errors import COMMAND_LINE, Problem, RecipeErrors, nearest
from wildfern.recipes.wording import complaints
from wildfern.recipes.yaml_text import read_argument
from wildfern.registry import EVALUATORS, GENERATORS, LOCATION, ComponentError
from wildfern.ssl.data import DataError, source_signature
from wildfern.ssl.evaluation import Evaluator

SOURCE_RESERVED = frozenset(
    {*LOCATION, "split", "source", "weight", "fingerprint", "imbalance", "guide", "order", "buffer"}
)


class ProtocolEntry(Protocol):
    """A protocol in a recipe."""

    name: str
    arguments: Mapping[str, Any]


class DatasetEntry(Protocol):
    """A data set in a recipe."""

    source: str
    arguments: Mapping[str, Any]


ProtocolLike = str | Mapping[str, Any] | ProtocolEntry
DatasetLike = str | Mapping[str, Any] | DatasetEntry


@dataclass(frozen=True)
class Dataset:
    """A data set to evaluate on: the arguments are those of its source, `label` names it in results."""

    source: str
    arguments: dict[str, Any] = field(default_factory=dict)
    label: str = ""


def check_request(
    on: Iterable[DatasetLike], protocols: Iterable[ProtocolLike], few_shot: Iterable[int] = (), seeds: int = 5
) -> tuple[list[Dataset], dict[str, Evaluator]]:
    """The data sets, and the evaluators by the name of their protocol; duplicates are dropped.

    A single name stands for its defaults; each of `few_shot` adds a linear probe and kNN on N labels per class, with `seeds`
    draws. Raises RecipeErrors with all errors.
    """
    request = _Request()
    datasets = [request.dataset(entry, f"on.{number}") for number, entry in enumerate(on)]
    evaluators = request.evaluators(protocols, few_shot, seeds)
    if request.problems:
        raise RecipeErrors(request.problems)
    return list({dataset.label: dataset for dataset in datasets if dataset}.values()), evaluators


def check_protocols(
    protocols: Iterable[ProtocolLike], few_shot: Iterable[int] = (), seeds: int = 5
) -> dict[str, Evaluator]:
    """Only the evaluators of `check_request`."""
    return check_request((), protocols, few_shot, seeds)[1]


def check_dataset(entry: DatasetLike, command: str = "evaluate", key: str = "on.0") -> Dataset:
    """One data set, checked as by `check_request`; errors name `command` and `key`."""
    request = _Request(command)
    dataset = request.dataset(entry, key)
    if dataset is None or request.problems:
        raise RecipeErrors(request.problems)
    return dataset


def checked_arguments(
    component: Callable[..., Any], given: Mapping[str, Any], key: str, command: str
) -> dict[str, Any]:
    """The given arguments of a source, checked as by `check_request`; raises RecipeErrors that name `command` and `key`."""
    request = _Request(command)
    arguments = request._arguments(component, SOURCE_RESERVED, dict(given), key)
    if arguments is None:
        raise RecipeErrors(request.problems)
    values = argument_values(arguments)
    return {name: values[name] for name in values if name in given}


def parse_datasets(texts: Sequence[str]) -> list[DatasetLike]:
    """Values of `--on`: `digits`, `parquet:X image_column=img` or `{source: parquet:X, image_column: img}`."""
    return [_parsed(text, "source", "--on") for text in texts]


def parse_source(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a source, written as for `--on`."""
    parsed = _parsed(text, "source", "source")
    given = {"source": parsed} if isinstance(parsed, str) else parsed
    name = given.pop("source", None)
    if not isinstance(name, str):
        raise RecipeErrors(
            [Problem(COMMAND_LINE, "source", f"must name a source, as in {{source: folder:PATH}}; got {text}")]
        )
    return name, given


def parse_protocols(texts: Sequence[str]) -> list[ProtocolLike]:
    """Values of `--protocol`: `linear,knn`, `knn k=5` or `{name: knn, k: 5}`."""
    parsed: list[ProtocolLike] = []
    for text in texts:
        mapping = text.lstrip().startswith("{") or "=" in text
        words = [text] if mapping else [word for word in text.split(",") if word.strip()]
        parsed += [_parsed(word, "name", "--protocol") for word in words]
    return parsed


def _parsed(text: str, choice: str, option: str) -> str | dict[str, Any]:
    """A name, `name key=value …`, or a YAML mapping. A name may contain blanks, as in a path. Raises RecipeErrors."""
    text = text.strip()
    if text.startswith("{"):
        value, problems = read_argument(text, COMMAND_LINE, option)
        if problems:
            raise RecipeErrors(problems)
        return value
    name, *words = re.split(r"\s+(?=[A-Za-z_]\w*=)", text)
    values: dict[str, Any] = {choice: name}
    for word in words:
        key, _, written = word.partition("=")
        values[key], problems = read_argument(written, COMMAND_LINE, f"{option} {key}")
        if problems:
            raise RecipeErrors(problems)
    return values if words else name


class _Request:
    def __init__(self, command: str = "evaluate") -> None:
        self.command = command
        self.problems: list[Problem] = []

    def complain(self, key: str, message: str, suggestion: str | None = None, known: Iterable[str] = ()) -> None:
        self.problems.append(Problem(self.command, key, message, suggestion, tuple(known)))

    def dataset(self, entry: DatasetLike, key: str) -> Dataset | None:
        source, given = self._split(entry, "source", key)
        if source is None:
            return None
        if source.partition(":")[0] in GENERATORS:
            what = "a data set with labels" if self.command == "evaluate" else "a set of images"
            self.complain(key, f"{source} is endless; name {what}, such as digits or folder:PATH")
            return None
        try:
            component = source_signature(source)
        except DataError as error:
            self.complain(key, str(error))
            return None
        if problem := missing_place(source):
            self.complain(key, problem)
        arguments = self._arguments(component, SOURCE_RESERVED, given, key)
        if arguments is None:
            return None
        values = argument_values(arguments)
        return Dataset(
            source, {name: values[name] for name in values if name in given}, _label(source, differing(arguments))
        )

    def evaluators(
        self, protocols: Iterable[ProtocolLike], few_shot: Iterable[int], seeds: int
    ) -> dict[str, Evaluator]:
        entries: list[tuple[str, ProtocolLike]] = [(f"protocols.{i}", entry) for i, entry in enumerate(protocols)]
        for number, shots in enumerate(few_shot):
            for classifier in ("linear", "knn"):
                added = {"name": "few_shot", "classifier": classifier, "shots": shots, "seeds": seeds}
                entries.append((f"few_shot.{number}", added))
        found: dict[str, Evaluator] = {}
        for key, entry in entries:
            named = self._evaluator(entry, key)
            if named is not None:
                found.setdefault(*named)
        return found

    def _evaluator(self, entry: ProtocolLike, key: str) -> tuple[str, Evaluator] | None:
        name, given = self._split(entry, "name", key)
        if name is None:
            return None
        if name not in EVALUATORS:
            self.complain(key, f"unknown protocol {name!r}", nearest(name, EVALUATORS), sorted(EVALUATORS))
            return None
        if key.startswith("protocols."):  # a number means little to who typed --protocol
            key = f"{key} ({name})"
        try:
            component = EVALUATORS[name]
        except ComponentError as error:
            self.complain(key, str(error))
            return None
        arguments = self._arguments(component, frozenset({"name"}), given, key)
        if arguments is None:
            return None
        values = argument_values(arguments)
        try:
            evaluator = component(**values)
        except ValueError as error:
            self.complain(key, str(error))
            return None
        if not isinstance(evaluator, Evaluator):
            self.complain(key, f"{name} is not a subclass of wildfern.ssl.evaluation.Evaluator")
            return None
        named = {argument: values[argument] for argument in evaluator.named}
        return _label(name, named | differing(arguments)), evaluator

    def _split(self, entry: Any, choice: str, key: str) -> tuple[str | None, dict[str, Any]]:
        """The name (or source) of an entry, and its arguments."""
        if isinstance(entry, str):
            return entry, {}
        if isinstance(entry, Mapping):
            name, given = entry.get(choice), {str(k): v for k, v in entry.items() if k != choice}
        else:
            name, given = getattr(entry, choice, None), dict(getattr(entry, "arguments", {}))
        if not isinstance(name, str):
            self.complain(key, f"must be a name or a mapping such as {{{choice}: …}}, got {entry!r}")
            return None, {}
        return name, given

    def _arguments(
        self, component: Callable[..., Any], reserved: frozenset[str], given: dict[str, Any], key: str
    ) -> BaseModel | None:
        """A component's checked arguments, defaults included; None after a complaint."""
        try:
            model = arguments_model(component, reserved)
        except ComponentError as error:
            self.complain(key, str(error))
            return None
        value = to_jsonable_python(given)
        try:
            return model.model_validate_json(json.dumps(value))
        except ValidationError as error:
            names = argument_names(model)
            for complaint in complaints(error.errors(include_url=False), value):
                where = ".".join((key, *map(str, complaint.path)))
                if complaint.kind == "extra_forbidden":
                    near = nearest(str(complaint.path[-1]), names)
                    self.complain(where, "unknown argument", near, () if near else names)
                else:
                    self.complain(where, complaint.message, complaint.suggestion)
            return None


def _whole(value: Any) -> Any:
    """Whole numbers without decimals, as people write them."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _label(name: str, arguments: Mapping[str, Any]) -> str:
    """`knn (k=5)`."""

    def text(value: Any) -> str:
        written = to_jsonable_python(value)
        return value if isinstance(value, str) else json.dumps(_whole(written), ensure_ascii=False)

    return f"{name} ({', '.join(f'{key}={text(value)}' for key, value in arguments.items())})" if arguments else name
