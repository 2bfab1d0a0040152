"""Names of files as Unicode and back, and manifests that are damaged, of strangers, or former ones."""

import hashlib
import json
import os
import random
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import manifest_row

from wildfern.ssl.curation.manifest import (
    FORMAT,
    MANIFEST,
    SCHEMA,
    STORED,
    VERSIONS,
    CurationError,
    Info,
    Manifest,
    path_on_disk,
    stored_path,
    version_path,
)

INFO = Info(["folder:x"], {"name": "default"}, {"keep": 3, "review": 0, "reject": 0}, notes=["fine"], wildfern="0.1.0")


def write(folder, rows: int = 3, schema: pa.Schema = SCHEMA, info: object = None, row_group_size: int = 2) -> None:
    folder.mkdir(exist_ok=True)
    found = json.dumps(INFO.as_json() if info is None else info)
    table = pa.Table.from_pylist([manifest_row(n) for n in range(rows)], schema)
    pq.write_table(table.replace_schema_metadata({"wildfern": found}), folder / MANIFEST, row_group_size=row_group_size)


def error_of(folder, version: str | None = None) -> str:
    with pytest.raises(CurationError) as error:
        Manifest(folder, version)
    assert "Traceback" not in str(error.value)
    return str(error.value)


# Names


def test_plain_names_stay():
    for name in ("a.jpg", "ä/日本.png", "two\nlines", "😀.jpg", ""):
        assert stored_path(name) == path_on_disk(name) == name


def test_names_that_are_no_utf8_become_unicode_and_back():
    rng = random.Random(0)
    for _ in range(2000):
        raw = bytes(rng.choice((rng.randrange(1, 256), 0x61, 0xF4, 0x8F, 0xBF)) for _ in range(rng.randrange(1, 12)))
        stored = stored_path(os.fsdecode(raw))
        assert os.fsencode(path_on_disk(stored)) == raw
        assert path_on_disk(stored_path(path_on_disk(stored))) == path_on_disk(stored)
        assert pa.array([stored], pa.string())[0].as_py() == stored


def test_no_two_names_become_one():
    single = bytes([0x80])
    private = "\U0010ff80"  # what the byte becomes
    names = {
        os.fsdecode(single),
        private,
        private * 2,
        os.fsdecode(single) * 2,
        os.fsdecode(private.encode()[:3]) + "a",
    }
    names |= {os.fsdecode(bytes([byte])) for byte in range(128, 256)} | {chr(0x10FF80 + n) for n in range(128)}
    assert len({stored_path(name) for name in names}) == len(names)
    assert {os.fsencode(path_on_disk(stored_path(name))) for name in names} == {os.fsencode(name) for name in names}


# Schemas


def test_columns_are_named_once_and_what_is_kept_comes_first():
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)
    assert SCHEMA.names[: len(STORED.names)] == STORED.names


# Manifests


def test_a_manifest_is_read(tmp_path):
    write(tmp_path / "x")
    manifest = Manifest(tmp_path / "x")
    assert len(manifest) == 3
    assert manifest.info == INFO
    assert manifest.table(["path", "width"]).to_pydict() == {"path": ["0.jpg", "1.jpg", "2.jpg"], "width": [64] * 3}
    assert [batch.num_rows for batch in manifest.batches(["path"], rows=2)] == [2, 1]
    assert all(batch.schema.names == SCHEMA.names for batch in manifest.batches())
    assert manifest.sha256 == hashlib.sha256((tmp_path / "x" / MANIFEST).read_bytes()).hexdigest()
    manifest.close()


def test_an_empty_manifest(tmp_path):
    write(tmp_path / "x", 0)
    assert len(Manifest(tmp_path / "x")) == 0
    assert list(Manifest(tmp_path / "x").batches(["path"])) == []


def test_there_is_none(tmp_path):
    assert "there is no folder" in error_of(tmp_path / "gone")
    assert f"has no {MANIFEST}" in error_of(tmp_path)
    assert f"--out {tmp_path}" in error_of(tmp_path)
    (tmp_path / MANIFEST).mkdir()
    assert f"has no {MANIFEST}" in error_of(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_manifest(tmp_path, keep):
    write(tmp_path)
    content = (tmp_path / MANIFEST).read_bytes()
    (tmp_path / MANIFEST).write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert f"{MANIFEST} cannot be read" in error_of(tmp_path)


def test_damaged_bytes_are_an_error_or_other_values(tmp_path):
    write(tmp_path)
    content = (tmp_path / MANIFEST).read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / MANIFEST).write_bytes(bytes(damaged))
        with suppress(CurationError):
            for batch in Manifest(tmp_path).batches(["path", "width"]):
                assert batch.num_columns == 2


def test_a_file_of_other_columns_or_types(tmp_path):
    write(tmp_path, schema=pa.schema([field for field in SCHEMA if field.name != "optout"]))
    assert "it has no column optout" in error_of(tmp_path)
    changed = [pa.field("width", pa.float64()) if field.name == "width" else field for field in SCHEMA]
    write(tmp_path, schema=pa.schema(changed))
    assert "width is double, and should be int32" in error_of(tmp_path)


@pytest.mark.parametrize(
    "info",
    [
        [],
        [1, 2],
        "text",
        7,
        {},
        {"format": FORMAT},
        {**INFO.as_json(), "unknown": 1},
        {**INFO.as_json(), "format": "1"},
        {**INFO.as_json(), "sources": "folder:x"},
        {**INFO.as_json(), "counts": None},
        {**INFO.as_json(), "policy": []},
    ],
)
def test_what_it_says_of_itself_is_checked(tmp_path, info):
    write(tmp_path, info=info)
    assert "is damaged, or no manifest of wildfern" in error_of(tmp_path)


def test_a_file_without_what_it_says_of_itself(tmp_path):
    pq.write_table(SCHEMA.empty_table(), tmp_path / MANIFEST)
    assert "is damaged, or no manifest of wildfern" in error_of(tmp_path)


def test_a_later_version(tmp_path):
    write(tmp_path, info={**INFO.as_json(), "format": FORMAT + 1, "new": True})
    assert error_of(tmp_path).endswith("was written by a later version of wildfern; update this one")


# Versions


def test_former_manifests_by_their_first_digits(tmp_path):
    digests = []
    (tmp_path / VERSIONS).mkdir()
    for rows in (2, 5):
        write(tmp_path, rows)
        digests.append(Manifest(tmp_path).sha256)
        os.link(tmp_path / MANIFEST, version_path(tmp_path, digests[-1]))
        (tmp_path / MANIFEST).unlink()
    for digest, rows in zip(digests, (2, 5), strict=True):
        for digits in (8, 12, 16, 64):
            manifest = Manifest(tmp_path, digest[:digits])
            assert len(manifest) == rows
            assert manifest.sha256 == digest
    assert "does not keep the manifest 00000000" in error_of(tmp_path, "00000000")
    for wrong in (digests[0][:7], "", "xyzxyzxyz", "../../../etc", digests[0][:8].upper() + "G", "????????"):
        assert "must be 8 digits or more" in error_of(tmp_path, wrong)


def test_digits_of_several_manifests(tmp_path):
    (tmp_path / VERSIONS).mkdir()
    for end in "ab":
        (tmp_path / VERSIONS / f"0123456789{end}00000.parquet").touch()
    assert "2 manifests" in error_of(tmp_path, "01234567")
    assert "cannot be read" in error_of(tmp_path, "0123456789a")


def test_large_manifests_are_read_in_parts(tmp_path):
    write(tmp_path, 1000, row_group_size=300)
    manifest = Manifest(tmp_path)
    batches = list(manifest.batches(["path"], rows=400))
    assert sum(batch.num_rows for batch in batches) == 1000
    assert max(batch.num_rows for batch in batches) <= 400
    assert np.concatenate([batch.column("path").to_pylist() for batch in batches]).tolist() == [
        f"{n}.jpg" for n in range(1000)
    ]
