"""Resuming a log: cut at the end where that is enough, with the bytes and the guarantees of a plain loop over all lines."""

import json
import math
import os
import random
import tracemalloc

import pytest

from wildfern.bounded_json import parse_json
from wildfern.ssl.tracking import JsonLines, cut_lines, read_undamaged

NEAR = 300  # bytes, some lines
LINE = '{{"step": {}, "loss": {!r}, "text": "ab"}}\n'


def log(steps):
    return [LINE.format(step, math.sin(step)).encode() for step in steps]


def kept(content, before_step):
    """What a plain loop over all lines leaves, and whether one of them is damaged."""
    lines, damaged = [], False
    for line in content.splitlines(keepends=True):
        try:
            step = parse_json(line).get("step", -1)
        except ValueError:
            damaged = damaged or line.endswith(b"\n")
            continue
        if step < before_step:
            lines.append(line if line.endswith(b"\n") else line + b"\n")
    return b"".join(lines), damaged


@pytest.fixture(params=[16 * 2**20, NEAR], ids=["checked as a whole", "checked at the end"])
def checked(request, monkeypatch):
    monkeypatch.setattr(cut_lines, "CHECKED", request.param)
    monkeypatch.setattr(cut_lines, "_BLOCK", 60)
    return request.param


@pytest.mark.parametrize(
    "end", [b"", b'{"step": 20, "lo', b'{"step": 20}', b"\0" * 50], ids=["", "part", "whole", "NUL"]
)
@pytest.mark.parametrize(
    "steps",
    [
        range(20),
        [n // 2 for n in range(40)],
        [*range(20), 3, 4],
        [5, *range(20)],
        [*range(9), 30, *range(9, 20)],
        [],
        [7],
    ],
)
def test_every_cut_leaves_what_a_plain_loop_leaves(tmp_path, checked, steps, end):
    path, content = tmp_path / "log", b"".join(log(steps)) + end
    for before_step in (0, 1, 5, 9, 10, 18, 20, 31):
        path.write_bytes(content)
        JsonLines.resume(path, before_step, lambda message: pytest.fail(message)).close()
        assert path.read_bytes() == kept(content, before_step)[0], before_step
    assert os.listdir(tmp_path) == ["log"]


def test_lines_without_a_step_stay_where_they_are(tmp_path, checked):
    lines = [b'{"note": 1}\n', *log(range(9)), b'{"note": 2}\n', *log(range(9, 12)), b'{"note": 3}\n']
    path = tmp_path / "log"
    for before_step in range(0, 13, 2):
        path.write_bytes(b"".join(lines))
        JsonLines.resume(path, before_step).close()
        assert path.read_bytes() == kept(b"".join(lines), before_step)[0]


def test_a_file_is_cut_in_place_and_replaced_where_that_will_not_do(tmp_path, checked):
    path, content = tmp_path / "log", b"".join(log(range(20)))
    path.write_bytes(content)
    number = path.stat().st_ino
    for before_step in (30, 20, 19, 19, 18):
        JsonLines.resume(path, before_step).close()
        assert path.stat().st_ino == number
        assert path.read_bytes() == b"".join(log(range(min(before_step, 20))))
    path.write_bytes(content)
    os.link(path, tmp_path / "snapshot")
    JsonLines.resume(path, 18).close()
    assert path.stat().st_ino != number
    assert path.read_bytes() == b"".join(log(range(18)))
    assert (tmp_path / "snapshot").read_bytes() == content


def test_a_file_without_the_permission_to_write_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(b"".join(log(range(5))))

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(cut_lines, "open_regular", refuse)
        JsonLines.resume(path, 3).close()
    assert path.read_bytes() == b"".join(log(range(3)))


NOTICED = {
    "the beginning": (b"{", b"("),
    "the end": (b"}\n", b")\n"),
    "no line end": (b"}\n", b"} "),
    "a second line end": (b'"loss"', b'"lo\nss"'),
    "an empty line": (b"}\n", b"}\n\n"),
    "NUL": (b"loss", b"lo\0s"),
    "no UTF-8": (b"loss", b"lo\xffs"),
    "not an object": (b'{"step"', b'["step"'),
    "no step": (b'"step"', b'"skip"'),
    "other line ends": (b"}\n", b"}\r\n"),
}


@pytest.mark.parametrize("what", NOTICED)
@pytest.mark.parametrize("number", [0, 4, 9, 17])
def test_damage_far_from_the_end_is_noticed(tmp_path, checked, number, what):
    lines, messages = log(range(20)), []
    lines[number] = lines[number].replace(*NOTICED[what])
    path, content = tmp_path / "log", b"".join(lines)
    path.write_bytes(content)
    JsonLines.resume(path, 19, messages.append).close()
    expected, damaged = kept(content, 19)
    assert path.read_bytes() == expected
    assert len(messages) == damaged == (what not in ("no step", "other line ends"))
    if damaged:
        assert f"damaged: line {number + 1 + (what == 'an empty line')} " in messages[0]
        assert (tmp_path / "log.damaged").read_bytes() == content


def test_a_letter_in_a_number_is_left_to_the_readers_unless_it_is_near_the_end(tmp_path, checked):
    lines, messages, path = log(range(20)), [], tmp_path / "log"
    lines[4] = lines[4].replace(b"0.7", b"0.x")
    path.write_bytes(b"".join(lines))
    JsonLines.resume(path, 19, messages.append).close()
    assert len(messages) == (checked > NEAR)
    assert (read_undamaged(path)[1] or "").startswith("line 5 " if checked == NEAR else "")


def test_a_line_over_the_limit_is_damaged_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(cut_lines, "CHECKED", 1000)
    long = b'{"step": 2, "text": "' + b"x" * 2**20 + b'"}\n'
    path, messages = tmp_path / "log", []
    for before, after in ((range(2), range(2, 90)), (range(90), ())):
        path.write_bytes(b"".join([*log(before), long, *log(after)]))
        JsonLines.resume(path, 50, messages.append).close()
        assert path.read_bytes() == b"".join(log(range(50)))
        assert "is longer than 1,048,576 bytes" in messages.pop()


def test_a_long_log_is_cut_in_little_memory_with_a_look_at_its_end_only(tmp_path, monkeypatch):
    monkeypatch.setattr(cut_lines, "CHECKED", 2**20)
    path, lines = tmp_path / "log", log(range(200_000))
    path.write_bytes(b"".join(lines))
    looked_at, step_of = [], cut_lines.step_of
    monkeypatch.setattr(cut_lines, "step_of", lambda line: looked_at.append(len(line)) or step_of(line))
    monkeypatch.setattr("wildfern.ssl.tracking.jsonl.read_lines", lambda *given: pytest.fail("every line was read"))
    tracemalloc.start()
    JsonLines.resume(path, 200_000 - 10).close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size == sum(map(len, lines[:-10]))
    assert sum(looked_at) <= 2**20
    assert peak < 3e6


def test_random_logs_and_damage_are_as_a_plain_loop_finds_them(tmp_path, monkeypatch):
    rng, path = random.Random(5), tmp_path / "log"
    others = [b'{"note": 1}\n', b"\n", b"null\n", b'{"step": 3}\r\n', b'{"step": "4"}\n', b'{"a": 1, "step": 5}\n']
    for _ in range(80):
        lines = log(sorted(rng.choices(range(9), k=rng.randrange(12))))
        for _ in range(rng.randrange(3)):
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(others))
        content, before_step = b"".join(lines)[: rng.choice((None, -1, -5))], rng.randrange(10)
        path.write_bytes(content)
        readable, damage = read_undamaged(path)
        messages = []
        JsonLines.resume(path, before_step, messages.append).close()
        assert read_undamaged(path) == ([one for one in readable if one.get("step", -1) < before_step], None)
        assert bool(messages) == (damage is not None)


def test_a_power_cut_leaves_either_length(tmp_path, monkeypatch):
    """The new length is on the disk before the first new line can be."""
    path, calls = tmp_path / "log", []
    path.write_bytes(b"".join(log(range(5))))
    monkeypatch.setattr(cut_lines.os, "fsync", lambda handle: calls.append(os.fstat(handle).st_size))
    with JsonLines.resume(path, 3) as lines:
        assert calls == [len(b"".join(log(range(3))))]
        lines.write({"step": 3})
    assert json.loads(path.read_bytes().splitlines()[-1]) == {"step": 3}
