"""A JSON schema of recipe files, for editors that complete and check YAML as it is written."""

import re
from typing import Any

from wildfern.recipes.components import CHOICE, EVALUATION_LISTS, Components
from wildfern.recipes.learning_rate import RATE_KEYS
from wildfern.recipes.schema import (
    COMPONENT_SECTIONS,
    FIXED_SECTIONS,
    DataEntry,
    Evaluation,
    OptimizerChoice,
    Recipe,
    ScheduleChoice,
)
from wildfern.registry import location_parameter

EXTENDS = {"type": "string", "description": "A bundled recipe or a path relative to this file, to start from."}


def json_schema(components: Components) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of recipe files.

    No key is required, since a file may extend another. Component sections have one variant per registered component.
    """
    properties: dict[str, Any] = {"extends": EXTENDS}
    definitions: dict[str, Any] = {}
    schema: dict[str, Any]
    for section, field in Recipe.model_fields.items():
        if section == "plugins":
            schema = {"type": "array", "items": {"type": "string"}, "default": []}
        elif section == "evaluation":
            schema = _evaluation(components, definitions)
        elif section in FIXED_SECTIONS:
            schema = _partial(FIXED_SECTIONS[section].model_json_schema(), definitions)
        elif section in COMPONENT_SECTIONS:
            names = components.of_section(section)
            schema = {"anyOf": [_form(components, section, name, definitions) for name in names]}
        else:
            schema = {"type": "integer", "minimum": 0, "default": field.default}
        if section == "data":
            entry = {"anyOf": [{"type": "string"}, *schema["anyOf"]]}
            definitions["data_entry"] = entry
            reference = {"$ref": "#/$defs/data_entry"}
            schema = {"anyOf": [reference, {"type": "array", "items": reference, "minItems": 1}]}
        properties[section] = {**schema, "description": field.description}
    for definition in definitions.values():  # settings of components: they may be partial too, and may contain sources
        definition.pop("required", None)
        if "data" in definition.get("properties", {}):
            former = definition["properties"]["data"]
            kinds = [*properties["data"]["anyOf"], *([{"type": "null"}] if former.get("default", "") is None else [])]
            definition["properties"]["data"] = {"anyOf": kinds, "description": former.get("description")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wildfern recipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _evaluation(components: Components, definitions: dict[str, Any]) -> dict[str, Any]:
    """The section `evaluation`; each of its lists of components is a name, a mapping, or a list of both."""
    schema = Evaluation.model_json_schema()
    own = schema.pop("$defs")
    definitions |= {name: own[name] for name in ("ProbeSettings", "OnlineKNNSettings")}
    schema = _partial(schema, definitions)
    for key in EVALUATION_LISTS:
        names = components.of_section(key)
        entry = {"anyOf": [{"type": "string"}, *(_form(components, key, name, definitions) for name in names)]}
        definitions[f"evaluation_{key}"] = entry
        reference = {"$ref": f"#/$defs/evaluation_{key}"}
        about = schema["properties"][key]["description"]
        schema["properties"][key] = {"anyOf": [reference, {"type": "array", "items": reference}], "description": about}
    return schema


def _form(components: Components, section: str, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The section with the component `name` chosen."""
    model = components.arguments(section, name)
    arguments = _partial(model.model_json_schema(), definitions)["properties"] if model else {}
    rules: dict[str, Any] = {}
    if CHOICE.get(section) == "source":
        takes_location = location_parameter(components.sources[name]) is not None
        pattern = f"^{re.escape(name)}(:.+)?$" if takes_location else f"^{re.escape(name)}$"
        own: dict[str, Any] = {
            "source": {"type": "string", "pattern": pattern},
        }
        if section == "data":
            own["weight"] = {"type": "number", "exclusiveMinimum": 0, "default": 1}
            described = DataEntry.model_json_schema()
            definitions["Imbalance"] = _partial(described["$defs"]["Imbalance"], definitions)
            own |= {
                key: described["properties"][key] for key in ("fingerprint", "imbalance", "guide", "order", "buffer")
            }
    else:
        own = {"name": {"const": name}}
        if section == "schedule":
            described = ScheduleChoice.model_json_schema()["properties"]
            own |= {key: described[key] for key in ("length", "afterwards")}
        if section == "optimizer":
            described = OptimizerChoice.model_json_schema()["properties"]
            own |= {key: described[key] for key in RATE_KEYS}
            rules = {"not": {"required": ["learning_rate", "base_learning_rate"]}}
    properties = {**own, **arguments}
    return {"title": name, "type": "object", "properties": properties, "additionalProperties": False, **rules}


def _partial(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema without required keys, its definitions moved to the root."""
    definitions.update(schema.pop("$defs", {}))
    schema.setdefault("properties", {})
    return {key: value for key, value in schema.items() if key != "required"}
