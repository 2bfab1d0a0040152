"""The numbers of a manifest against plain loops over its rows, and the datasheet written from them."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from curated_images import manifest_row

from wildfern.ssl.curation.datasheet import BY_HAND, PERCENTILES, Summary, datasheet
from wildfern.ssl.curation.manifest import MANIFEST, SCHEMA, Info, Manifest


def random_rows(count: int, seed: int = 0) -> list[dict]:
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        decision = generator.choice(["keep", "keep", "review", "reject"])
        reason = {"rule": generator.choice(["tiny", "optout"]), "action": decision, "value": 1.0, "detail": "x"}
        rows.append(
            manifest_row(number)
            | {
                "bytes": generator.randrange(1000, 9000),
                "width": generator.randrange(30, 90),
                "height": generator.randrange(30, 90),
                "format": generator.choice(["JPEG", "PNG"]),
                "license": generator.choice(["CC-BY-2.0", "CC0-1.0", None]),
                "author": generator.choice(["Ada", "Grace", "Emmy", None]),
                "date": generator.choice(["2015-06-01", "1999", None]),
                "has_gps": generator.choice([True, False, None]),
                "optout": generator.choice(["xmp: noai", None]),
                "people": generator.choice([0.0, 0.3, None]),
                "people_checked": "centerface 00ff",
                "decision": decision,
                "reasons": [reason] if decision in ("review", "reject") else [],
            }
        )
    return rows


def written(folder: Path, rows: list[dict], **info: object) -> Manifest:
    known = {
        "sources": ["folder:/home/ada/photos", "parquet:b.parquet"],
        "policy": {},
        "counts": {},
        "wildfern": "0.1.0",
    }
    schema = SCHEMA.with_metadata({"wildfern": json.dumps(Info(**known | info).as_json())})
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / MANIFEST, row_group_size=100)
    return Manifest(folder)


def test_numbers_are_those_of_a_plain_loop(tmp_path):
    rows = random_rows(6000)  # more than are read at a time
    manifest = written(tmp_path / "trees", rows, not_checked=["leaks"], checked=["people"], notes=["a note"])
    found = Summary.of(manifest, "2026-01-02")
    kept = [row for row in rows if row["decision"] == "keep"]
    assert (found.name, found.date, found.wildfern) == ("trees", "2026-01-02", "0.1.0")
    assert found.sources == ["folder:photos", "parquet:b.parquet"]
    assert (found.images, found.kept) == (6000, len(kept))
    assert found.by_decision == Counter(row["decision"] for row in rows)
    assert found.by_reason == {
        rule: Counter(one["action"] for row in rows for one in row["reasons"] if one["rule"] == rule)
        for rule in ("tiny", "optout")
    }
    assert found.licenses == Counter(row["license"] for row in kept if row["license"])
    assert found.unknown_licenses == sum(row["license"] is None for row in kept)
    assert found.authors == 3
    assert found.formats == Counter(row["format"] for row in kept)
    for name in ("width", "height", "bytes"):
        values = [row[name] for row in kept]
        assert found.sizes[name] == np.percentile(values, PERCENTILES, method="inverted_cdf").tolist()
    assert found.dates == ("1999", "2015-06-01")
    assert found.people_checked == ["centerface 00ff"]
    assert found.people_unchecked == sum(row["people"] is None for row in kept)
    assert (found.checked, found.not_checked, found.notes) == (["people"], ["leaks"], ["a note"])
    assert found.has_gps == sum(bool(row["has_gps"]) for row in kept)
    assert found.optout == sum(row["optout"] is not None for row in kept)
    assert found.manifest_sha256 == manifest.sha256


def test_a_manifest_that_keeps_nothing(tmp_path):
    rows = [manifest_row(1, decision="reject", reasons=[{"rule": "unreadable", "action": "reject"}])]
    for name, some in {"rejected": rows, "empty": []}.items():
        found = Summary.of(written(tmp_path / name, some), "2026-01-02")
        assert (found.images, found.kept, found.dates, found.authors) == (len(some), 0, None, 0)
        assert found.sizes == {"width": [], "height": [], "bytes": []}
        assert "0, of " in datasheet(found)


def answers(text: str) -> dict[str, str]:
    parts = re.split(r"^\*\*(.*)\*\*$", re.sub(r"^## .*$", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return {question: answer.strip() for question, answer in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_datasheet_has_all_sections_and_says_what_the_manifest_knows(tmp_path):
    policy = {
        "name": "mine",
        "tiny": {"action": "reject", "min_side": 32},
        "leak": {"action": "reject", "against": ["cifar10"]},
        "people": {"action": "reject", "detector": "centerface", "blur": True},
        "caps": {"author": 80},
    }
    summary = Summary.of(
        written(tmp_path / "trees", random_rows(500), policy=policy, not_checked=["poses"]), "2026-01-02"
    )
    text = datasheet(summary)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning, labeling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]
    found = answers(text)
    assert found["Who paid for it?"] == BY_HAND
    assert found["How many are there?"].startswith(f"{summary.kept:,}, of 500 that were found.")
    assert f"| keep | {summary.kept} |" in text
    assert f"| tiny | reject | {summary.by_reason['tiny']['reject']} |" in found["Is it a sample of a larger set?"]
    assert "| tiny | reject | min\\_side: 32 |" in found["If it is a sample, how was it drawn?"]
    assert "| caps |  | author: 80 |" in found["If it is a sample, how was it drawn?"]
    assert "Compared with cifar10." in found["Are there recommended splits? Is it free of test images of others?"]
    assert "- Not checked: poses" in found["Are there errors, noise or redundancies?"]
    people = found["Does it show or concern people?"]
    assert people.startswith(f"Images were examined with centerface 00ff; {summary.people_unchecked} were not.")
    assert people.endswith(BY_HAND)
    assert "blurred" in found["What was done?"]
    assert f"| CC-BY-2.0 | {summary.licenses['CC-BY-2.0']} |" in found["Under which license?"]
    assert f"| not known | {summary.unknown_licenses} |" in found["Under which license?"]
    assert summary.manifest_sha256 in text
    assert sum(BY_HAND in answer for answer in found.values()) > len(found) / 2


def test_a_dataset_that_was_not_examined_for_people_is_not_called_free_of_them(tmp_path):
    rows = [manifest_row(1)]
    text = datasheet(Summary.of(written(tmp_path / "trees", rows), "2026-01-02"))
    assert answers(text)["Does it show or concern people?"].startswith("Not checked: none of the images")


def test_texts_of_strangers_are_no_markdown(tmp_path):
    rows = [manifest_row(1, license="LicenseRef-a|b](x)<b>\x1b\n# c")]
    text = datasheet(Summary.of(written(tmp_path / "trees", rows), "2026-01-02"))
    assert r"| LicenseRef-a\|b\](x)\<b\>\\x1b\\n\# c | 1 |" in text
