"""Signatures as schemas, and the schema for editors."""

import functools
import types
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from wildfern.recipes import json_schema, load_recipe
from wildfern.recipes.components import argument_names, argument_values, arguments_model
from wildfern.registry import ComponentError

NOTHING: frozenset[str] = frozenset()


def test_only_keyword_only_parameters_are_keys():
    def method(backbone, total_steps: int = 3, *heads: int, width: int = 8, name: str = "x", **others: float): ...

    assert argument_names(arguments_model(method, frozenset({"name"}))) == ["width"]


def test_postponed_annotations_are_resolved_in_their_module():
    module = types.ModuleType("elsewhere")
    source = """
from __future__ import annotations
from typing import Annotated, TYPE_CHECKING
from pydantic import Field
import dataclasses
if TYPE_CHECKING:
    from torch import nn

class Method:
    def __init__(self, backbone: nn.Module, *, schema: Annotated[float, Field(gt=0)], _low: tuple[int, ...] = (1,)): ...
class Derived(Method): ...
"""
    exec(source, vars(module))
    model = arguments_model(module.Derived, NOTHING)
    assert argument_values(model.model_validate_json('{"schema": 1, "_low": [3, 4]}')) == {
        "schema": 1.0,
        "_low": (3, 4),
    }
    with pytest.raises(ValidationError, match="greater than 0"):
        model.model_validate_json('{"schema": 0}')


def test_a_default_of_none_admits_null():
    def component(*, limit: Annotated[float, Field(gt=0)] = None, seed: int = None): ...  # noqa: RUF013

    model = arguments_model(component, NOTHING)
    assert argument_values(model.model_validate_json('{"limit": null}')) == {"limit": None, "seed": None}
    with pytest.raises(ValidationError, match="greater than 0"):
        model.model_validate_json('{"limit": -1}')


def test_a_partial_keeps_its_signature():
    def dataset(name: str, *, download: bool = False): ...

    model = arguments_model(functools.partial(dataset, "cifar10"), NOTHING)
    assert argument_values(model.model_validate_json('{"download": true}')) == {"download": True}


def test_a_key_without_annotation_is_an_error_of_the_component():
    with pytest.raises(ComponentError, match="the recipe key width needs a type annotation"):
        arguments_model(lambda *, width=3: None, NOTHING)


def test_a_key_of_a_type_that_yaml_does_not_have_is_an_error_of_the_component():
    class Device: ...

    def component(*, device: Device): ...

    with pytest.raises(ComponentError, match=r"component: .* recipe keys and need types of YAML values: .*Device"):
        arguments_model(component, NOTHING)


def test_the_editor_schema_knows_every_key(components):
    schema = json_schema(components)
    sections = schema["properties"]
    assert set(sections) == {
        "extends", "seed", "plugins", "data", "views", "model", "method", "optimizer",
        "schedule", "training", "engine", "evaluation", "tracking",
    }  # fmt: skip
    assert schema["additionalProperties"] is False
    simclr, dino = sections["method"]["anyOf"]
    assert simclr["properties"]["name"] == {"const": "simclr"}
    assert set(dino["properties"]) == {"name", "temperature", "momentum", "center", "copy"}
    assert simclr["properties"]["temperature"]["exclusiveMinimum"] == 0
    assert "required" not in dino
    assert sections["training"]["properties"]["precision"]["enum"] == ["auto", "fp32", "bf16"]
    described = [key for key, value in sections["training"]["properties"].items() if not value.get("description")]
    assert described == []
    folder = next(form for form in schema["$defs"]["data_entry"]["anyOf"] if form.get("title") == "folder")
    own = {"source", "weight", "fingerprint", "imbalance", "guide", "order", "buffer"}
    assert set(folder["properties"]) == own | {"recursive", "size"}
    assert set(schema["$defs"]["Imbalance"]["properties"]) == {"kind", "ratio", "seed", "minimum"}


def test_the_editor_schema_admits_what_loads_and_refuses_what_does_not(components, folder, load):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema(components))
    plain = load_recipe(folder / "minimal.yaml", [], components).as_dict()
    assert list(validator.iter_errors(plain)) == []
    assert list(validator.iter_errors({"extends": "fern", "method": {"temperature": 1}, "data": "folder:/a"})) == []
    for wrong in (
        {"method": {"temprature": 1}},
        {"training": {"steps": 0}},
        {"data": [{"source": "ifs", "path": "/"}]},
    ):
        assert list(validator.iter_errors(wrong)) != []
