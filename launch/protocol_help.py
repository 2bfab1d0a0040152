"""All protocols of an evaluation with their arguments and defaults, for the terminal."""

import inspect

from rich.text import Text

from wildfern.registry import EVALUATORS


def protocol_help() -> Text:
    """A paragraph for each protocol: its name, the first line of its docstring, and `argument=default`."""
    text = Text()
    for name in sorted(EVALUATORS):
        component = EVALUATORS[name]
        line = (inspect.getdoc(component) or "").splitlines()[0]
        text.append(name, "bold").append(f"  {line}\n")
        for argument, parameter in inspect.signature(component).parameters.items():
            default = "" if parameter.default is inspect.Parameter.empty else f"={_yaml(parameter.default)}"
            text.append(f"    {argument}{default}\n")
    return text.append("docs/evaluation.md says what each does and where its settings come from")


def _yaml(value: object) -> str:
    """A default as a recipe writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
