"""All parts of scale in one command: what is run, shown and written."""

import json
import sys

import pytest

from wildfern.benchmarks import scale_parts
from wildfern.benchmarks.result import Benchmark


@pytest.fixture
def parts(monkeypatch):
    def part(name: str) -> Benchmark:
        return Benchmark(
            name, "images/s", "words", [{"case": "c", "what": name, "rate": 2.0, "ratio": None}], {"x": 3.0}
        )

    monkeypatch.setattr(scale_parts, "PARTS", {name: lambda name=name: part(name) for name in ("one", "two")})


@pytest.mark.usefixtures("parts")
def test_results_of_all_parts_are_in_one_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale_parts", "--json", str(tmp_path / "out.json")])
    scale_parts.main()
    content = json.loads((tmp_path / "out.json").read_text())
    assert list(content["parts"]) == ["one", "two"]
    assert content["environment"]["date"]
    assert content["parts"]["two"]["rows"] == [{"case": "c", "what": "two", "rate": 2.0, "ratio": None}]
    assert content["parts"]["one"]["figures"] == {"x": 3.0}
    assert "one: images/s" in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_some_parts_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale_parts", "--only", "two"])
    scale_parts.main()
    assert "one: images/s" not in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_unknown_part_is_refused_with_the_names_of_all(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale_parts", "--only", "three"])
    with pytest.raises(SystemExit):
        scale_parts.main()
    assert "'one', 'two'" in capsys.readouterr().err


def test_every_part_is_a_measurement():
    assert list(scale_parts.PARTS) == ["losses", "folder", "shards", "parquet", "remote", "logs", "batches"]
