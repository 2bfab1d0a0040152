"""Memory by the number of images, as the benchmark of losses measures it."""

import pytest
import torch

from wildfern.benchmarks import loss_scaling
from wildfern.benchmarks.peak_memory import free_bytes, peak_bytes
from wildfern.benchmarks.result import Benchmark
from wildfern.ssl.losses import CACRLoss, NTXentLoss

CPU = torch.device("cpu")


def test_peak_is_that_of_tensors_alive_at_once():
    def one_after_the_other():
        for _ in range(3):
            torch.zeros(1000, 250)

    assert peak_bytes(one_after_the_other, CPU) == pytest.approx(10**6, rel=0.01)
    assert peak_bytes(lambda: [torch.zeros(1000, 250) for _ in range(3)], CPU) == pytest.approx(3 * 10**6, rel=0.01)
    assert free_bytes(CPU) > 10**6


def test_whole_matrix_is_the_same_loss():
    z = torch.nn.functional.normalize(torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator()), dim=-1)
    torch.testing.assert_close(loss_scaling.whole_ntxent(z, 0.2), NTXentLoss(0.2)(z))


def test_pairs_of_views_are_the_same_loss():
    z = torch.nn.functional.normalize(torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator()), dim=-1)
    torch.testing.assert_close(loss_scaling.pairwise_cacr(z), CACRLoss()(z).total)


def test_rows_have_the_peak_and_say_what_was_skipped_for_memory(monkeypatch):
    monkeypatch.setattr(loss_scaling, "DIMENSIONS", 4)
    monkeypatch.setattr(loss_scaling, "MOST_STEPS", 1e9)
    monkeypatch.setattr(loss_scaling, "free_bytes", lambda device: 2e7)
    rows = loss_scaling.scaling_rows(CPU, 0.01, (128, 1024))
    skipped = [row for row in rows if "skipped" in row]
    assert [row["what"] for row in skipped] == ["NT-Xent, matrix of all pairs", "NT-Xent, lightly"]
    assert all(row["case"] == "2 × 1024 images" and row["rate"] is None for row in skipped)
    peaks = {(row["case"], row["what"]): row["peak_bytes"] for row in rows if "skipped" not in row}
    assert peaks["2 × 128 images", "NT-Xent, matrix of all pairs"] > 2 * 4 * 256**2
    assert peaks["2 × 128 images", "NT-Xent, wildfern, one of 8 ranks"] < 4 * 256**2
    benchmark = Benchmark("losses", "steps/s", "", rows)
    assert benchmark.as_json()["rows"][2]["peak_bytes"] == peaks["2 × 128 images", "NT-Xent, matrix of all pairs"]
    assert skipped[0]["skipped"].endswith("GB, 0.02 GB are free")
    assert len(benchmark.table().rows) == len(rows) == 14


def test_steps_that_would_take_too_long_are_skipped(monkeypatch):
    monkeypatch.setattr(loss_scaling, "DIMENSIONS", 4)
    monkeypatch.setattr(loss_scaling, "MOST_STEPS", 1e-9)
    rows = loss_scaling.scaling_rows(CPU, 0.01, (16, 32, 64))
    assert all("skipped" not in row for row in rows[:7])
    assert all(row["skipped"].endswith("s for a step") for row in rows[7:])
