"""The benchmark of small batches: its line, and a run of it."""

import pytest

from wildfern.benchmarks import scale_batches


def test_line_finds_what_a_batch_and_an_image_take():
    assert scale_batches.line({n: 0.5 + 0.01 * n for n in (1, 4, 16, 64, 256)}) == pytest.approx((0.5, 0.01))


def test_all_batches_are_compared_with_kornia(monkeypatch):
    monkeypatch.setattr(scale_batches, "BATCHES", (1, 2))
    result = scale_batches.run(0.0, images=3)
    assert [row["case"] for row in result.rows[::2]] == ["batches of 1", "batches of 2", "batches of 3"]
    assert {row["what"] for row in result.rows} == {"kornia", "wildfern"}
    assert result.figures["kornia, ms of a batch"] > 0
