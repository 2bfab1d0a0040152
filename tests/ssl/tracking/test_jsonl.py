import json
import math
import os

import numpy as np
import pytest
import torch

from wildfern.files import UnsafeFile
from wildfern.ssl.tracking import JsonLines, read_records


def record(step):
    return {"step": step, "loss": math.sin(step) / 3, "learning_rate": 1e-5 * step}


def write(path, steps):
    with JsonLines(path) as lines:
        for step in steps:
            lines.write(record(step))


@pytest.mark.parametrize("resume_at", [0, 1, 5, 9])
def test_a_resumed_file_has_the_bytes_of_an_uninterrupted_one(tmp_path, resume_at):
    write(tmp_path / "whole", range(10))
    write(tmp_path / "broken", range(9))
    with JsonLines.resume(tmp_path / "broken", before_step=resume_at) as lines:
        for step in range(resume_at, 10):
            lines.write(record(step))
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "whole"]


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_an_incomplete_last_line_is_dropped_and_rewritten(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    write(path, range(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with JsonLines.resume(path, before_step=3) as lines:
        lines.write(record(3))
    assert path.read_bytes() == whole


def test_a_last_line_that_lacks_only_its_newline_is_kept_when_its_step_is_past(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    JsonLines.resume(path, before_step=4).close()
    assert path.read_bytes() == whole


def test_a_missing_file_starts_empty(tmp_path):
    with JsonLines.resume(tmp_path / "new" / "metrics.jsonl", before_step=7) as lines:
        lines.write({"step": 7})
    assert lines.path.read_bytes() == b'{"step": 7}\n'


def test_lines_without_a_step_stay(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"note": "by hand"}\n{"step": 1}\n{"step": 2}\n')
    JsonLines.resume(path, before_step=2).close()
    assert path.read_text() == '{"note": "by hand"}\n{"step": 1}\n'


DAMAGE = {
    b"{broken\n": "is not a JSON object (Expecting property name",
    b"[1, 2]\n": "is not a JSON object (list instead of an object)",
    b"\n": "is not a JSON object",
    b"null\n": "is not a JSON object (NoneType instead",
    b'{"step": 0, "loss": 1\xff}\n': "is not a JSON object",
    b"\0" * 100 + b"\n": "is not a JSON object",
    b'{"step": ' + b"9" * 5000 + b"}\n": "is not a JSON object",
    b'{"step": 0, "a": ' + b"[" * 100_000 + b"\n": "is not a JSON object (nested too deeply)",
    b'{"step": 0, "a": "\\ud800"}\n': "is not a JSON object (a text that is no Unicode",
    b'{"step": 0, "a": "' + b"x" * 2**20 + b'"}\n': "is longer than 1,048,576 bytes",
    **{
        b'{"step": %s}\n' % step: "has a step that is not a whole number from 0 on"
        for step in (b'"0"', b"NaN", b"1e400", b"-1", b"true", b"0.5", b"null", b"[]")
    },
    b'{"step": 1180591620717411303424}\n': "is not a JSON object (a number of more than 64 bits)",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_file_is_continued_without_its_damaged_lines_and_kept(tmp_path, damage):
    path, messages = tmp_path / "metrics.jsonl", []
    before = b'{"step": 0}\n' + damage + b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(before)
    JsonLines.resume(path, 2, messages.append).close()
    assert path.read_bytes() == b'{"step": 0}\n{"step": 1}\n'
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    (message,) = messages
    assert message.startswith(f"{path} is damaged: line 2 {DAMAGE[damage]}")
    assert message.endswith("; it is left out, and the former file is kept as metrics.jsonl.damaged")
    path.write_bytes(before)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 .*; fix or delete it"):
        read_records(path)
    JsonLines.resume(path, 0, messages.append).close()
    assert (tmp_path / "metrics.jsonl.damaged-1").read_bytes() == before
    assert path.read_bytes() == b""
    JsonLines.resume(path, 0, messages.append).close()
    assert len(messages) == 2


def test_duplicate_steps_and_other_line_ends_are_no_damage(tmp_path):
    path, content = tmp_path / "metrics.jsonl", b'{"step": 0}\r\n{"step": 0, "<b>": [1]}\n{"step": 1, "loss": "nan"}\n'
    path.write_bytes(content)
    JsonLines.resume(path, 2).close()
    assert path.read_bytes() == content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_continued(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"(link|FIFO|folder).*metrics\.jsonl"):
        JsonLines.resume(tmp_path / "metrics.jsonl", 1)


def test_every_line_is_written_before_the_file_is_closed(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.write({"step": 0})
    assert lines.path.read_text() == '{"step": 0}\n'
    lines.sync()
    lines.close()


def test_key_order_does_not_depend_on_the_order_of_insertion(tmp_path):
    with JsonLines(tmp_path / "a") as lines:
        lines.write({"loss": 1.5, "accuracy": 0.25, "step": 3})
        lines.write({"step": 3, "accuracy": 0.25, "loss": 1.5})
    assert lines.path.read_text() == '{"step": 3, "accuracy": 0.25, "loss": 1.5}\n' * 2


def test_numbers_survive_the_round_trip(tmp_path):
    third = np.float32(1 / 3)
    values = {"double": 0.1 + 0.2, "single": third, "tensor": torch.tensor(2.5), "count": np.int64(2**53 + 1)}
    odd = {"nan": math.nan, "up": math.inf, "down": -math.inf, "text": "α", "flag": True, "none": None}
    with JsonLines(tmp_path / "a") as lines:
        lines.write({"step": 0, **values, **odd})
    strict = json.loads(lines.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (strict["nan"], strict["up"], strict["down"]) == ("nan", "inf", "-inf")
    (back,) = read_records(lines.path)
    assert back["double"] == 0.1 + 0.2
    assert back["single"] == float(third)
    assert back["tensor"] == 2.5
    assert back["count"] == 2**53 + 1
    assert math.isnan(back["nan"])
    assert (back["up"], back["down"]) == (math.inf, -math.inf)
    assert (back["text"], back["flag"], back["none"]) == ("α", True, None)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(3)])
def test_values_that_are_not_scalars_are_refused_by_name(tmp_path, value):
    with JsonLines(tmp_path / "a") as lines, pytest.raises(TypeError, match="'bad' must be a single number"):
        lines.write({"step": 0, "bad": value})
    assert lines.path.read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full is Linux's")
def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    with open("/dev/full", "ab") as full:
        os.dup2(full.fileno(), lines._file.fileno())
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        lines.write({"step": 0})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
@pytest.mark.parametrize("plant", [lambda path, victim: path.symlink_to(victim), lambda path, _: os.mkfifo(path)])
def test_links_and_fifos_are_neither_read_nor_written(plant, tmp_path):
    victim, planted = tmp_path / "victim", tmp_path / "metrics.jsonl"
    write(victim, range(3))
    before = victim.read_bytes()
    plant(planted, victim)
    for use in (JsonLines, lambda path: JsonLines.resume(path, 1), read_records):
        with pytest.raises(UnsafeFile):
            use(planted)
    assert victim.read_bytes() == before
    plant(tmp_path / "metrics.jsonl.partial", victim)  # the temporary name of earlier versions
    planted.unlink()
    write(planted, range(3))
    JsonLines.resume(planted, 2).close()
    assert [record["step"] for record in read_records(planted)] == [0, 1]
    assert victim.read_bytes() == before


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_line_that_does_not_fit_is_taken_back(taken, tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, range(3))
    before, lines = path.read_bytes(), JsonLines(path)

    class Full:
        """Accepts that many bytes, then no more, like a full disk."""

        def __init__(self, file):
            self.file, self.left = file, taken

        def write(self, text):
            if self.left == 0:
                raise OSError(28, "No space left on device")
            part, self.left = text[: self.left], 0
            return self.file.write(part)

        def __getattr__(self, name):
            return getattr(self.file, name)

    lines._file = Full(lines._file)
    with pytest.raises(OSError, match=r"No space left on device: .*metrics.jsonl"):
        lines.write(record(3))
    assert path.read_bytes() == before
    lines.close()
