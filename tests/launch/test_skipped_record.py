"""The list of files that could not be used: read again only when others have changed it, and never written in part."""

import os

import pytest

from wildfern.launch import skipped_record
from wildfern.launch.skipped_record import SkippedRecord
from wildfern.ssl.tracking import read_records


def nothing(message):
    pytest.fail(message)


@pytest.fixture
def record(tmp_path):
    return SkippedRecord(tmp_path / "skipped.jsonl")


@pytest.fixture
def reads(monkeypatch):
    """The number of times that the file has been read."""
    calls, read = [], skipped_record._read
    monkeypatch.setattr(skipped_record, "_read", lambda path: calls.append(path) or read(path))
    return calls


def rows(record):
    return {row["file"]: row["reason"] for row in read_records(record.path)}


def test_files_are_added_without_reading_the_list_again(record, reads):
    record.note({}, nothing)
    assert not record.path.exists()
    skipped = {}
    for name in ("b.png", "c.png", "a.png"):
        skipped[name] = f"of {name}"
        for _ in range(3):
            record.note(skipped, nothing)
        assert rows(record) == skipped
        assert list(rows(record)) == sorted(skipped)
    assert len(reads) == 1


def test_nothing_is_written_without_a_new_file(record, reads):
    record.note({"a.png": "truncated"}, nothing)
    before = record.path.stat()
    SkippedRecord(record.path).note({"a.png": "another word"}, nothing)
    record.note({"a.png": "another word"}, nothing)
    after = record.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert rows(record) == {"a.png": "truncated"}


def test_rows_that_another_process_has_added_stay(record, reads):
    record.note({"a.png": "1"}, nothing)
    SkippedRecord(record.path).note({"b.png": "2"}, nothing)
    record.note({"a.png": "1", "c.png": "3"}, nothing)
    assert rows(record) == {"a.png": "1", "b.png": "2", "c.png": "3"}
    record.path.unlink()
    record.note({"a.png": "1"}, nothing)
    assert rows(record) == {"a.png": "1"}


def test_damage_since_the_last_look_is_told_and_kept(record):
    record.note({"a.png": "1"}, nothing)
    with record.path.open("a") as file:
        file.write("{broken\n")
    before, said = record.path.read_bytes(), []
    record.note({"a.png": "1"}, said.append)
    assert rows(record) == {"a.png": "1"}
    assert (record.path.parent / "skipped.jsonl.damaged").read_bytes() == before
    assert len(said) == 1
    record.note({"a.png": "1"}, nothing)


def test_a_list_that_could_not_be_written_is_written_the_next_time(record, monkeypatch):
    record.note({"a.png": "1"}, nothing)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*skipped\.jsonl'"):
            record.note({"a.png": "1", "b.png": "2"}, nothing)
    assert rows(record) == {"a.png": "1"}
    record.note({"a.png": "1", "b.png": "2"}, nothing)
    assert rows(record) == {"a.png": "1", "b.png": "2"}


def test_names_that_are_no_unicode_are_written(record):
    record.note({os.fsdecode(b"\xff.png"): "truncated", "ä.png": "empty"}, nothing)
    assert record.path.read_bytes() == (
        b'{"file": "\\u00e4.png", "reason": "empty"}\n{"file": "\\udcff.png", "reason": "truncated"}\n'
    )
