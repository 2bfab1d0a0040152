"""Precision and recall of a curation for each planted fault, from a table that says which files have which.

    python -m wildfern.benchmarks.studies.curation_quality FOLDER TRUTH.csv --json benchmarks/results/curation_quality.json

TRUTH has the columns path, truth and of: the fault of each file, and for copies the path of the image that it is a copy of. Two
files are a true pair if they go back to one image, also over several steps.
"""

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wildfern.launch.curating import scan
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.tracking import environment

# Rules of a policy that find a fault of the table.
FOUND_BY = {
    "truncated": ("truncated", "unreadable"),
    "empty_file": ("unreadable",),
    "not_an_image": ("not_an_image",),
    "decompression_bomb": ("bomb",),
    "single_colour": ("flat",),
    "too_small": ("tiny",),
    "extreme_aspect": ("aspect",),
}
PAIRED_BY = {
    "exact_duplicate": ("exact_duplicate", "near_duplicate"),
    "near_duplicate_reencoded": ("exact_duplicate", "near_duplicate"),
    "near_duplicate_resized": ("near_duplicate",),
    "near_duplicate_cropped": ("similar",),
}


def quality(folder: str, truth: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Recall of every fault, precision of every rule, and how many images without a fault were not kept."""
    with truth.open(newline="", encoding="utf-8") as file:
        table = {row["path"]: (row["truth"], row["of"]) for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as out:
        scan([folder], out, changes=changes)
        rows = {row["path"]: row for row in Manifest(out).table(["path", "decision", "reasons", "group"]).to_pylist()}
    recall: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    right: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    groups: dict[int, list[str]] = defaultdict(list)
    for path, row in rows.items():
        if row["group"] >= 0:
            groups[row["group"]].append(path)
    for path, (fault, of) in table.items():
        rules = {reason["rule"] for reason in rows[path]["reasons"]}
        if fault in FOUND_BY:
            recall[fault][0] += bool(rules & set(FOUND_BY[fault]))
            recall[fault][1] += 1
        elif fault in PAIRED_BY:
            together = rows[path]["group"] >= 0 and rows[path]["group"] == rows[of]["group"]
            like = any(_named(rows[one], table, one, root(table, path)) for one in (path, of))
            recall[fault][0] += together or like
            recall[fault][1] += 1
        for rule in rules:
            if rule in ("exact_duplicate", "near_duplicate", "similar"):
                right[rule][0] += _named(rows[path], table, path, root(table, path), rule)
            else:
                right[rule][0] += any(rule in found for name, found in FOUND_BY.items() if name == fault)
            right[rule][1] += 1
    fine = [path for path, (fault, of) in table.items() if fault.startswith("ok") and not of]
    lost = [
        path
        for path in fine
        if any(r["rule"] in ("page", "screenshot", "dark", "light", "blurred", "flat") for r in rows[path]["reasons"])
    ]
    return {
        "recall": {fault: {"found": found, "of": of} for fault, (found, of) in recall.items()},
        "precision": {rule: {"right": found, "of": of} for rule, (found, of) in right.items()},
        "fine_images": len(fine),
        "fine_images_with_a_fault": len(lost),
        "mixed_groups": sum(len({root(table, path) for path in paths}) > 1 for paths in groups.values()),
        "groups": len(groups),
    }


def root(table: Mapping[str, tuple[str, str]], path: str) -> str:
    """The image that a file goes back to."""
    while table[path][1]:
        path = table[path][1]
    return path


def _named(
    row: Mapping[str, Any], table: Mapping[str, tuple[str, str]], path: str, origin: str, rule: str = "similar"
) -> bool:
    """Whether the rule names an image of the same origin in its words."""
    details = [reason["detail"] for reason in row["reasons"] if reason["rule"] == rule]
    return any(
        words.split(" ", 2)[-1] in table and root(table, words.split(" ", 2)[-1]) == origin
        for words in map(_other, details)
    )


def _other(detail: str) -> str:
    """`copy of PATH` and `like PATH` -> `x y PATH`, so that a path is always the third word."""
    return detail if detail.startswith("copy of ") else "x " + detail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("truth", type=Path)
    parser.add_argument("changes", nargs="*", help="changes to the default policy: key.sub=value")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = quality(given.folder, given.truth, given.changes)
    for name, one in found["recall"].items():
        print(f"{name:28} recall    {one['found']:4} of {one['of']:4}  {one['found'] / one['of']:.3f}")
    for name, one in found["precision"].items():
        print(f"{name:28} precision {one['right']:4} of {one['of']:4}  {one['right'] / one['of']:.3f}")
    print(
        f"images without a fault: {found['fine_images']}, of which {found['fine_images_with_a_fault']} have a fault by a rule"
    )
    print(f"groups of copies: {found['groups']}, of which {found['mixed_groups']} mix images")
    if given.json:
        result = {"benchmark": "curation quality", "changes": given.changes, **found, "environment": environment()}
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
