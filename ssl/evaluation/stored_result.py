"""Read an `evaluation.json`, which may be damaged or come from a stranger: its usable parts, and what is not usable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.ssl.evaluation.result import upgraded_rows

EVALUATION = "evaluation.json"
MOST_BYTES = 16 * 2**20
MOST_ROWS = 5_000

# What the values of a row may be; other keys are kept as they are.
_TEXT, _COUNT = "a text", "a whole number of at least 0"
_FORMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("dataset", "protocol", "backbone", "metric"), (_TEXT,)),
    "value": ("a number",),
    **dict.fromkeys(("low", "high", "difference_low", "difference_high"), ("a number", "null")),
    **dict.fromkeys(("n", "train_images", "test_images"), (_COUNT, "null")),
    **dict.fromkeys(("train_split", "test_split"), (_TEXT, "null")),
    "share": ("true or false",),
    "detail": (_TEXT,),
}
_FORMER = {"accuracy": ("a number",), "std": ("a number", "null")}  # of rows without a metric
_IS: dict[str, Callable[[Any], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    "a number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    _COUNT: lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def read_evaluation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The `usable` parts of the folder's `evaluation.json`, and what is wrong with the others; ({}, []) if it is missing."""
    try:
        return usable(read_json(folder / EVALUATION, MOST_BYTES))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [error.strerror or str(error)]
    except ValueError as error:
        return {}, [f"not JSON: {error}"]


def usable(stored: Any) -> tuple[dict[str, Any], list[str]]:
    """What `EvaluationResult.from_json` takes of a JSON value, and a message for each kind of part that is left out.

    Of more than `MOST_ROWS` rows the first ones are kept. A list is the rows, as the first versions wrote them.
    """
    if isinstance(stored, list):
        stored = {"rows": stored}
    if not isinstance(stored, dict):
        return {}, [f"must be a mapping, got {_kind(stored)}"]
    found, faults = dict(stored), []
    for name, check in (("rows", _rows), ("protocols", _words), ("notes", _notes)):
        if name in stored:
            found[name], fault = check(stored[name])
            faults += [f"{name}{fault}"] if fault else []
    baseline = stored.get("baseline", "")
    if not isinstance(baseline, str) and not (isinstance(baseline, dict) and _all_texts(baseline.values())):
        del found["baseline"]
        faults.append(f"baseline must be a name, or a mapping of names to names, got {_kind(baseline)}")
    if not isinstance(stored.get("backbone_sha256"), str | None):
        del found["backbone_sha256"]
        faults.append(f"backbone_sha256 must be a text, got {_kind(stored['backbone_sha256'])}")
    return found, faults


def _rows(rows: Any) -> tuple[list[dict[str, Any]], str]:
    if not isinstance(rows, list):
        return [], f" must be a list, got {_kind(rows)}"
    kept, fault, left_out = [], "", 0
    for number, row in enumerate(rows[:MOST_ROWS]):
        why = _wrong_in(row)
        if why is None:
            kept.append(row)
        else:
            fault, left_out = fault or f".{number}{why}", left_out + 1
    if len(rows) > MOST_ROWS:
        fault, left_out = fault or f" are more than {MOST_ROWS:,}", left_out + len(rows) - MOST_ROWS
    return kept, fault and f"{fault} ({left_out:,} row{'s' * (left_out > 1)} left out)"


def _wrong_in(row: Any) -> str | None:
    """What is wrong with a row, beginning with its key; None for a usable one."""
    if not isinstance(row, dict):
        return f" must be a mapping, got {_kind(row)}"
    former = "metric" not in row and "accuracy" in row
    for key, forms in _FORMER.items() if former else ():
        if key in row and not any(_IS[form](row[key]) for form in forms):
            return f".{key} must be {' or '.join(forms)}, got {_kind(row[key])}"
    [now] = upgraded_rows([row]) or [row]
    for key, forms in _FORMS.items():
        if key not in now and forms[-1] != "null":
            return f".{key} is missing"
        if key in now and not any(_IS[form](now[key]) for form in forms):
            return f".{key} must be {' or '.join(forms)}, got {_kind(now[key])}"
    return None


def _words(words: Any) -> tuple[dict[str, str], str]:
    if not isinstance(words, dict):
        return {}, f" must be a mapping of names to texts, got {_kind(words)}"
    kept = {name: text for name, text in words.items() if isinstance(text, str)}
    wrong = next((name for name in words if name not in kept), None)
    return kept, "" if wrong is None else f".{wrong[:80]!r} must be a text, got {_kind(words[wrong])}"


def _notes(notes: Any) -> tuple[dict[str, list[str]], str]:
    if not isinstance(notes, dict):
        return {}, f" must be a mapping of data sets to lists of texts, got {_kind(notes)}"
    kept = {name: found for name, found in notes.items() if isinstance(found, list) and _all_texts(found)}
    wrong = next((name for name in notes if name not in kept), None)
    return kept, "" if wrong is None else f".{wrong[:80]!r} must be a list of texts, got {_kind(notes[wrong])}"


def _all_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "a text", bool: str(value).lower(), type(None): "null"}
    return kinds.get(type(value), "a number")
