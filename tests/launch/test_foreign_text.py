"""Markup and control characters in names and errors are shown as they are, or escaped, and change nothing else."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from wildfern.benchmarks.result import Benchmark
from wildfern.launch import doctor
from wildfern.launch.exit_codes import explained
from wildfern.launch.stats import describe_source
from wildfern.ssl.data import DataError
from wildfern.ssl.evaluation import EvaluationResult

HOSTILE = "[/red][bold]x\x1b]0;t\x07\u202e"
SHOWN = r"[/red][bold]x\x1b]0;t\x07\u202e"


def drawn(table):
    screen = io.StringIO()
    Console(file=screen, width=300).print(table)
    return screen.getvalue()


def evaluation():
    row = {"dataset": HOSTILE, "protocol": HOSTILE, "metric": HOSTILE, "value": 0.5, "low": 0.4, "high": 0.6}
    row |= {"n": 2, "share": True, "detail": ""}
    rows = tuple({**row, "backbone": name} for name in ("random", HOSTILE))
    return EvaluationResult(rows, {HOSTILE: HOSTILE}, notes={HOSTILE: [HOSTILE]})


def benchmark():
    rows = [{"case": HOSTILE, "what": HOSTILE, "rate": 1.0, "ratio": None}]
    return Benchmark(HOSTILE, "images/s", HOSTILE, rows)


@pytest.mark.parametrize("result", [evaluation(), benchmark()])
def test_tables_show_names_as_they_are(result):
    text = drawn(result.table())
    assert text.count(SHOWN) >= 4
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_doctor_shows_an_error_as_it_is(monkeypatch):
    def broken():
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(doctor, "CHECKS", {"[/red]part": broken})
    screen = io.StringIO()
    assert doctor.examine(Console(file=screen, width=300)) == 1
    assert f"RuntimeError: {SHOWN}" in screen.getvalue()
    assert "[/red]part" in screen.getvalue()


@pytest.mark.parametrize(
    "error", [DataError(HOSTILE), FileNotFoundError(2, "No such file", HOSTILE), MemoryError(HOSTILE)]
)
def test_errors_are_one_printable_line(error):
    _, message = explained(error)
    assert SHOWN in message
    assert message.isprintable()


def test_a_path_in_a_command(wildfern, tmp_path):
    result = wildfern("evaluate", HOSTILE, "--on", "digits")
    assert (result.returncode, result.stderr) == (2, f"there is no run folder {SHOWN}\n")
    result = wildfern(HOSTILE)
    assert result.returncode == 2
    assert "\x07" not in result.stderr


def test_stats_keeps_the_name_of_a_class_on_its_line(tmp_path):
    for name in ("a", "b\nnote: checked"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "train" / name / "0.png")
    lines = describe_source(f"folder:{tmp_path / 'train'}", {}).split("\n")
    assert "classes: 2, in all images: a 1, b\\nnote: checked 1" in lines
    assert not [line for line in lines if line.startswith("note: checked")]
