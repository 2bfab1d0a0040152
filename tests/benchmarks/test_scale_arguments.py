"""Command lines of the benchmarks of scale: numbers below 1 are refused."""

import runpy
import sys

import pytest


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("number", ["0", "-5", "2.5", "many"])
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("scale_folder", "files"),
        ("scale_batches", "--images"),
        ("scale_shards", "--images"),
        ("scale_parquet", "--images"),
        ("scale_remote", "--images"),
        ("scale_logs", "--lines"),
    ],
)
def test_numbers_below_1_are_refused(name, argument, number, monkeypatch, capsys):
    given = [number] if argument == "files" else [f"{argument}={number}"]
    monkeypatch.setattr(sys, "argv", [name, *given])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"wildfern.benchmarks.{name}", run_name="__main__")
    assert end.value.code == 2
    complaint = capsys.readouterr().err
    assert f"argument {argument}: must be 1 or more, and a whole number, got '{number}'" in complaint
