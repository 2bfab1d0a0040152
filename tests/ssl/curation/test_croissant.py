"""The Croissant metadata of a manifest: what it says, and that the reference library reads the manifest by it."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import manifest_row

from wildfern.ssl.curation.croissant import croissant
from wildfern.ssl.curation.datasheet import Summary
from wildfern.ssl.curation.manifest import MANIFEST, SCHEMA, Info, Manifest

ROWS = [
    manifest_row(0, path="a/1.jpg", width=7, height=9, license="CC-BY-2.0", author="Ada"),
    manifest_row(1, path="Zoë.png", source_url="https://example.org/2"),
    manifest_row(2, path="3.gif", decision="reject", reasons=[{"rule": "tiny", "action": "reject"}]),
]


@pytest.fixture
def manifest(tmp_path):
    info = Info(["folder:/home/ada/photos"], {}, {}, not_checked=["people: no detector was used"])
    schema = SCHEMA.with_metadata({"wildfern": json.dumps(info.as_json())})
    (tmp_path / "trees").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS, schema=schema), tmp_path / "trees" / MANIFEST)
    return Manifest(tmp_path / "trees")


def test_what_the_metadata_says(manifest):
    summary = Summary.of(manifest, "2026-01-02")
    found = croissant(summary, url="https://example.org", creators=["Ada"])
    assert json.loads(json.dumps(found)) == found
    assert (found["name"], found["datePublished"]) == ("trees", "2026-01-02")
    assert found["license"] == ["https://creativecommons.org/licenses/by/2.0/", "unknown"]
    assert found["description"] == "2 images without labels, kept of 3."
    assert found["creator"] == [{"@type": "sc:Person", "name": "Ada"}]
    (file,) = found["distribution"]
    assert (file["contentUrl"], file["sha256"]) == (MANIFEST, manifest.sha256)
    (records,) = found["recordSet"]
    columns = [field["source"]["extract"]["column"] for field in records["field"]]
    assert columns == ["path", "sha256", "width", "height", "license", "author", "source_url", "decision"]
    assert set(columns) <= set(SCHEMA.names)
    assert found["rai:dataPreprocessingProtocol"] == ["tiny: 1 images set to reject"]
    assert found["rai:dataLimitations"] == ["Not checked: people: no detector was used"]
    assert found["rai:personalSensitiveInformation"][0] == "2 of 2 images were not examined for people"
    assert "/home" not in json.dumps(found)


def test_what_is_not_known_is_left_out(manifest):
    summary = Summary.of(manifest, "2026-01-02")
    assert not {"url", "creator", "citeAs"} & set(croissant(summary))
    nothing = {"licenses": Counter(), "unknown_licenses": 0, "by_reason": {}, "not_checked": []}
    found = croissant(Summary(**vars(summary) | nothing))
    assert not {"license", "rai:dataPreprocessingProtocol", "rai:dataLimitations"} & set(found)


def test_the_reference_library_validates_it_and_reads_the_manifest_by_it(manifest):
    mlcroissant = pytest.importorskip("mlcroissant")
    path = manifest.folder / "croissant.json"
    summary = Summary.of(manifest, "2026-01-02")
    path.write_text(
        json.dumps(croissant(summary, url="https://example.org", creators=["Ada", "Grace"], citation="Ada, 2026"))
    )
    dataset = mlcroissant.Dataset(path)
    issues = dataset.metadata.ctx.issues
    assert (set(issues.errors), set(issues.warnings)) == (set(), set())
    records = [
        {key.removeprefix("images/"): value for key, value in record.items()} for record in dataset.records("images")
    ]
    assert [record["path"].decode() for record in records] == ["a/1.jpg", "Zoë.png", "3.gif"]
    assert records[0]["width"] == 7
    assert [record["decision"].decode() for record in records] == ["keep", "keep", "reject"]
