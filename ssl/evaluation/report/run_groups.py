"""Groups of runs that differ only in their seed, and the settings in which runs differ."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wildfern.ssl.evaluation.run_record import RunRecord

SEED = "seed"
NO_EFFECT = ("tracking",)  # sections that change no result
MOST_SETTINGS = 2_000  # of a run
MOST_CHARACTERS = 500  # of a value
MISSING = "–"


@dataclass(frozen=True)
class Group:
    """Runs of one setting: its label in tables, the places of its runs among all, and, in a series, the values that vary."""

    label: str
    members: tuple[int, ...]
    settings: dict[str, Any] | None = None


def groups_by_seed(records: Sequence[RunRecord], names: Sequence[str]) -> list[Group]:
    """Runs whose recipe, data, start weights and version of wildfern differ at most in the seed, in order of appearance.

    A run without a readable recipe is a group of its own.
    """
    found: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        recipe = {key: value for key, value in record.recipe.items() if key not in (SEED, *NO_EFFECT)}
        key = json.dumps([recipe, _recorded(record)], sort_keys=True) if record.recipe else f"run {index}"
        found.setdefault(key, []).append(index)
    return [Group(_label([names[i] for i in members]), tuple(members)) for members in found.values()]


def differing_settings(records: Sequence[RunRecord], groups: Sequence[Group]) -> dict[str, list[str]]:
    """Dotted keys of the resolved recipes that differ between groups, with a text for each group; "–" where a key is not set.

    Runs without a readable recipe are left out of the comparison. What `environment.json` and `data.json` record follows the
    recipe if it differs: versions, the weights that training started from, and the files of each source.
    """
    several = any(isinstance(record.recipe.get("data"), list) for record in records)
    flats = [dict(_limited(_flat(_as_listed(record.recipe, several)))) for record in records]
    columns = [[flats[member] for member in group.members] for group in groups]
    found = {}
    for key in dict.fromkeys(key for flat in flats for key in flat):
        row = [_together([flat.get(key, MISSING) for flat in column if flat]) for column in columns]
        if len({text for text, column in zip(row, columns, strict=True) if any(column)}) > 1:
            found[key] = row
    recorded = [[{**_recorded(records[i]), **_commit(records[i])} for i in group.members] for group in groups]
    for key in dict.fromkeys(key for column in recorded for one in column for key in one):
        row = [_together([one.get(key, MISSING) for one in column]) for column in recorded]
        if len({text for text in row if text != MISSING}) > 1:
            found[key] = row
    return found


def _recorded(record: RunRecord) -> dict[str, str]:
    """What a run folder says about what the recipe only names; nothing that is not recorded."""
    found = {"(version of wildfern)": record.environment.get("wildfern")}
    weights = record.environment.get("weights")
    if isinstance(weights, dict):
        found["(SHA-256 of model.weights)"] = weights.get("sha256")
    for number, entry in enumerate(record.data):
        for key, words in (
            ("items", "number of images"),
            ("names", "SHA-256 of names and sizes"),
            ("contents", "SHA-256"),
        ):
            found[f"(data.{number}: {words})"] = entry.get(key)
    return {key: str(value)[:16] for key, value in found.items() if isinstance(value, str | int)}


def _commit(record: RunRecord) -> dict[str, str]:
    """The commit is shown, but does not separate groups: most commits change no result."""
    git = record.environment.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    return {"(git commit)": commit[:12]} if isinstance(commit, str) else {}


def _label(names: Sequence[str]) -> str:
    """The names of the runs of a group; what they have in common, and their seeds, where these end their names."""
    ends = [re.fullmatch(r"(.*?),?seed=(\d+)", name, re.DOTALL) for name in names]
    found = [end for end in ends if end]
    if len(names) > 1 and len(found) == len(names) and len({end[1] for end in found}) == 1:
        return f"{found[0][1]} seed={_label([end[2] for end in found])}".lstrip()
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _as_listed(recipe: dict[str, Any], several: bool) -> dict[str, Any]:
    """With `several`, the sources as a list, as in another of the recipes."""
    data = recipe.get("data")
    return {**recipe, "data": [data]} if several and isinstance(data, dict) else recipe


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"[:MOST_CHARACTERS]
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value[:MOST_CHARACTERS] if isinstance(value, str) else json.dumps(value)[:MOST_CHARACTERS]


def _limited(items: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for _, item in zip(range(MOST_SETTINGS), items, strict=False):
        yield item


def _together(texts: Sequence[str]) -> str:
    """The different texts of the runs of one group; "–" where no run has one."""
    return ", ".join(dict.fromkeys(texts)) or MISSING
