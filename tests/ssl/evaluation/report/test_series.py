"""The series of a log: those of a plain loop, in bounded memory for a long one, and from its end alone."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from wildfern.ssl.evaluation import read_run
from wildfern.ssl.evaluation.report import series as module
from wildfern.ssl.evaluation.report.series import Series, read_series
from wildfern.ssl.tracking import JsonLines, json_line


def write(path, count):
    with path.open("w") as file:
        for n in range(count):
            file.write(f'{{"step": {10 * n}, "learning_rate": {1e-3 / (n + 1)!r}, "loss": {math.sin(n)!r}}}\n')
            if n % 1000 == 999:
                file.write(f'{{"step": {10 * n}, "digits/knn": {n / count!r}}}\n')
    return path


def test_the_series_of_a_short_log_are_those_of_a_plain_loop(tmp_path):
    path = write(tmp_path / "metrics.jsonl", 5000)
    expected: dict[str, Series] = {}
    for line in path.open():
        record = json.loads(line)
        for key in record.keys() - {"step"}:
            expected.setdefault(key, Series()).steps.append(record["step"])
            expected[key].values.append(record[key])
    remarks = []
    found = read_series(path, remarks)
    assert found == expected
    assert remarks == []
    assert list(found) == ["learning_rate", "loss", "digits/knn"]


def peak_of(read):
    tracemalloc.start()
    try:
        return read(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 500)
    path, remarks = tmp_path / "metrics.jsonl", []
    path.write_text("".join(f'{{"step": {n}, "loss": {n % 7}.5}}\n' for n in range(30_000)))
    found, peak = peak_of(lambda: read_series(path, remarks))
    assert peak < 3e5  # all values and steps: 480 kB, and as much again while arrays grow
    assert remarks == ["metrics.jsonl: more than 500 points of a key are thinned"]
    assert len(found["loss"].steps) < 500
    assert found["loss"].total() == sum(n % 7 + 0.5 for n in range(30_000))


def test_a_long_log_keeps_ends_extremes_and_rare_values(tmp_path):
    count = 30_000
    found = read_series(write(tmp_path / "metrics.jsonl", count), [])
    values = np.sin(np.arange(count))
    loss = found["loss"]
    assert (loss.steps[0], loss.steps[-1]) == (0, 10 * (count - 1))
    for place in (np.argmin(values), np.argmax(values), count - 1):
        assert loss.values[loss.steps.index(10 * place)] == pytest.approx(values[place], rel=1e-12)
    assert found["digits/knn"].values == [n / count for n in range(999, count, 1000)]
    assert found["learning_rate"].total() == pytest.approx(1e-3 * (1 + 10 * (1 / np.arange(2, count + 1)).sum()))


def test_memory_is_bounded_also_where_lines_are_damaged_in_step_with_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 64)
    monkeypatch.setattr(module, "MOST_POINTS", 100)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join("{\n" if n % 64 == 63 else f'{{"step": {n}, "a": 1}}\n' for n in range(15_000)))
    found, peak = peak_of(lambda: read_series(path, []))
    assert set(found["a"].values) == {1}
    assert peak < 2e5  # all values and steps: 240 kB, and as much again while arrays grow


def test_numbers_that_a_run_has_written_as_not_finite_are_counted(tmp_path):
    path, remarks = tmp_path / "metrics.jsonl", []
    with JsonLines(path) as lines:
        for step, loss in enumerate([1.0, math.nan, math.inf, -math.inf, 2.0]):
            lines.write({"step": step, "loss": loss, "text": "nano"})
    assert read_series(path, remarks) == {"loss": Series([0, 4], [1.0, 2.0])}
    assert remarks == ["metrics.jsonl: 3 values NaN or infinite"]


def test_the_end_of_a_log_has_its_last_values(tmp_path):
    path = write(tmp_path / "metrics.jsonl", 30_000)
    assert path.stat().st_size > 1.5 * json_line.LAST_BYTES
    whole, end = read_run(tmp_path).metrics, read_run(tmp_path, whole=False).metrics
    for key in whole:
        assert (end[key].steps[-1], end[key].values[-1]) == (whole[key].steps[-1], whole[key].values[-1])
    assert len(end["loss"].steps) < 20_000
    write(path, 100)
    assert read_run(tmp_path, whole=False) == read_run(tmp_path)
