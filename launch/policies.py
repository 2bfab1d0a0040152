"""Policies of curation: bundled ones by name, files, and changes from the command line; all errors are reported together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wildfern.files import read_bytes
from wildfern.recipes import Problem, RecipeErrors, nearest, read_argument, read_yaml
from wildfern.recipes.errors import COMMAND_LINE, dotted
from wildfern.recipes.wording import complaints
from wildfern.ssl.curation.hash_pairs import MOST_BITS
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.policy import Policy, as_tree
from wildfern.ssl.curation.spdx import check_pattern

_MOST_BYTES = 2**20
_SUFFIXES = (".yaml", ".yml")


def list_policies() -> dict[str, str]:
    """The bundled policies: name → first line of their comment."""
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in sorted(_bundled().items())}


def policy_text(name: str) -> str:
    """The text of a bundled policy; raises RecipeErrors if there is none of this name."""
    bundled = _bundled()
    if name not in bundled:
        known = tuple(sorted(bundled))
        raise RecipeErrors([Problem("", "policy", f"there is no policy {name!r}", nearest(name, known), known)])
    return bundled[name]


def read_policy(name_or_path: str | Path = "default", changes: Sequence[str] = ()) -> Policy:
    """The policy of a name or a YAML file, with `changes` key.sub=value. Raises RecipeErrors with all errors."""
    text = str(name_or_path)
    if text.endswith(_SUFFIXES):
        try:
            content, label, name = read_bytes(Path(text).resolve(), _MOST_BYTES).decode(), text, Path(text).stem
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeErrors(
                [Problem(text, "", f"cannot be read: {getattr(error, 'strerror', None) or error}")]
            ) from error
    else:
        content, label, name = policy_text(text), f"{text}.yaml (bundled)", text
    tree, problems = read_yaml(content, label)
    if not problems and not isinstance(tree, dict):
        problems = [Problem(label, "", "a policy must be a mapping of rules")]
    tree = tree if isinstance(tree, dict) else {}
    given = _change(tree, changes, problems)
    return _checked({"name": name} | tree, label, given, problems)


def policy_of(tree: dict[str, Any], label: str, changes: Sequence[str] = ()) -> Policy:
    """The policy that a manifest records, with changes. Raises RecipeErrors, naming `label`, for one of another version."""
    problems: list[Problem] = []
    given = _change(tree, changes, problems)
    return _checked(tree, label, given, problems)


def _change(tree: dict[str, Any], changes: Sequence[str], problems: list[Problem]) -> dict[tuple[str, ...], str]:
    """Put changes key.sub=value into a policy; returns who set which key."""
    given: dict[tuple[str, ...], str] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            wanted = f"--set needs key=value, for example tiny.min_side=64; got {change!r}"
            problems.append(Problem(COMMAND_LINE, "", wanted))
            continue
        parsed, found = read_argument(value, COMMAND_LINE, key)
        problems += found
        path = tuple(key.split("."))
        given[path] = COMMAND_LINE
        _put(tree, path, parsed)
    return given


def _checked(tree: dict[str, Any], label: str, given: dict[tuple[str, ...], str], problems: list[Problem]) -> Policy:
    policy = None
    try:
        policy = TypeAdapter(Policy).validate_json(json.dumps(_filled(tree)))
    except ValidationError as error:
        for complaint in complaints(error.errors(), tree):
            path = tuple(map(str, complaint.path))
            where = _origin(path, given, label)
            message, suggestion = complaint.message, complaint.suggestion
            if complaint.kind == "unexpected_keyword_argument":
                message, suggestion = "unknown key", nearest(path[-1], _keys(path[:-1]))
            problems.append(Problem(where, dotted(path), message, suggestion))
    if policy is not None:
        problems += [
            Problem(_origin(tuple(key.split(".")), given, label), key, message) for key, message in _misfits(policy)
        ]
    if problems or policy is None:
        raise RecipeErrors(problems)
    return policy


def _origin(path: tuple[str, ...], given: Mapping[tuple[str, ...], str], label: str) -> str:
    """Where a key was set: on the command line, or in the policy that `label` names."""
    return next((where for key, where in given.items() if key[: len(path)] == path or path[: len(key)] == key), label)


def _filled(tree: dict[str, Any]) -> dict[str, Any]:
    """A policy whose sections have all keys: those that are not given are the default's."""
    filled = as_tree(Policy())
    for key, value in tree.items():
        default = filled.get(key)
        filled[key] = default | value if isinstance(default, dict) and isinstance(value, dict) else value
    return filled


def _misfits(policy: Policy) -> list[tuple[str, str]]:
    """What is impossible, or does not fit together: key and message."""
    found = []
    for number, pattern in enumerate(policy.license.allow):
        try:
            check_pattern(pattern)
        except CurationError as error:
            found.append((f"license.allow.{number}", str(error)))
    if not 0 <= policy.near_duplicate.bits <= MOST_BITS:
        found.append(("near_duplicate.bits", f"must be 0 to {MOST_BITS}, got {policy.near_duplicate.bits}"))
    if not 0 < policy.similar.similarity <= 1:
        found.append(("similar.similarity", f"must be above 0 and at most 1, got {policy.similar.similarity}"))
    people = policy.people
    if not 0 <= people.review <= people.reject <= 1:
        found.append(
            ("people", f"review must be at most reject, both in 0 to 1; got {people.review} and {people.reject}")
        )
    selection = policy.selection
    needed = ("filter", "clusters", "epsilon", "atypical", "balance", "diversity")
    wanting = [name for name in needed if getattr(selection, name) not in (None, ())]
    if wanting and policy.features.backbone is None:
        found.append(
            (f"selection.{wanting[0]}", "needs features: set features.backbone to a run folder or a network of timm")
        )
    for name in ("epsilon", "balance"):
        if getattr(selection, name) is not None and not selection.clusters:
            found.append((f"selection.{name}", "needs selection.clusters, for example [1000, 100]"))
    if policy.caps.cluster is not None and not selection.clusters:
        found.append(("caps.cluster", "needs selection.clusters, for example [1000, 100]"))
    for section, name, least in (
        ("caps", "author", 1),
        ("caps", "album", 1),
        ("caps", "cluster", 1),
        ("selection", "balance", 1),
        ("selection", "diversity", 1),
        ("tiny", "min_side", 1),
    ):
        value = getattr(getattr(policy, section), name)
        if value is not None and value < least:
            found.append((f"{section}.{name}", f"must be {least} or more, got {value}"))
    if any(size < 1 for size in selection.clusters):
        found.append(("selection.clusters", f"must be 1 or more, got {list(selection.clusters)}"))
    if list(selection.clusters) != sorted(set(selection.clusters), reverse=True):
        found.append(("selection.clusters", f"must decrease, such as [1000, 100], got {list(selection.clusters)}"))
    if people.blur and people.detector is None:
        found.append(("people.blur", "needs people.detector, for example centerface"))
    for name, high in (("epsilon", 1.0), ("filter", 1.0), ("atypical", 1.0)):
        value = getattr(selection, name)
        if value is not None and not 0 <= value <= high:
            found.append((f"selection.{name}", f"must be 0 to {high:g}, got {value}"))
    return found


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inner = tree.get(part)
        tree[part] = dict(inner) if isinstance(inner, dict) else {}
        tree = tree[part]
    tree[path[-1]] = value


def _keys(path: Sequence[str]) -> list[str]:
    """The keys of a section of a policy."""
    at: Any = asdict(Policy())
    for part in path:
        at = at.get(part, {}) if isinstance(at, dict) else {}
    return list(at) if isinstance(at, dict) else []


def _bundled() -> dict[str, str]:
    folder = files("wildfern.recipes").joinpath("policies")
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }
