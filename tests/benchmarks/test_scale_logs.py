"""The benchmark of long logs: both ways do the same work, and its figures are of what is said."""

import pytest

from wildfern.benchmarks import scale_logs
from wildfern.ssl.evaluation.report.series import read_series
from wildfern.ssl.tracking import read_records


def test_both_ways_of_resuming_leave_the_same_file(tmp_path):
    path = tmp_path / "log"
    left = []
    for resume in (scale_logs.rewrite, scale_logs.resume):
        scale_logs.write_log(path, 300)
        resume(path, 10 * 200)
        left.append(path.read_bytes())
    assert left[0] == left[1]
    records = read_records(path)
    assert [record["step"] for record in records] == list(range(0, 2000, 10))
    assert read_series(path, [])["loss"].values == [record["loss"] for record in records]


def test_seconds_rates_and_memory(monkeypatch):
    monkeypatch.setattr(scale_logs, "MOST_TRACED", 500)
    result = scale_logs.run([500, 1000])
    assert [row["ratio"] is None for row in result.rows] == [True, False] * 4
    for row in result.rows:
        lines = 500 if " 500 " in row["case"] else 1000
        name = f"{row['case']}, {row['what']}"
        assert row["rate"] == pytest.approx(lines / result.figures[f"{name}: s"])
        assert (f"{name}: peak MB" in result.figures) == (lines == 500 or row["ratio"] is not None)
    everything, bounded = (
        result.figures[f"report, 500 lines, {what}: peak MB"] for what in ("all records", "series of bounded length")
    )
    assert everything > 0.3  # 500 dicts of nine numbers
    assert bounded > 0


def test_memory_is_that_of_the_call():
    before = bytearray(10**7)
    assert scale_logs.peak(lambda: bytearray(3 * 10**6)) == pytest.approx(3, rel=0.01)
    assert len(before) == 10**7
