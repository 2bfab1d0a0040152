"""Figures of `wildfern bench pipeline` from given rates, computed by hand."""

from types import SimpleNamespace

import pytest
import torch

from wildfern.benchmarks import pipeline
from wildfern.benchmarks.pipeline import CEILING, LIGHTLY, MODEL, SIDE, VIEWS, WHOLE, Parts


def test_figures_follow_from_the_rates(monkeypatch):
    parts = Parts(
        recipe="some",
        backbone="resnet18",
        device=torch.device("cpu"),
        precision="fp32",
        config=SimpleNamespace(batch_size=64, accumulation=2),
        mixture=None,
        views=SimpleNamespace(shape=[(2, 32)]),
        build_backbone=None,
        build_method=None,
        make_optimizer=None,
        compile=None,
        lightly=None,
    )
    monkeypatch.setattr(pipeline, "step_flops", lambda parts: 4 * 10**9)
    rates = {MODEL: 320.0, VIEWS: 3200.0, WHOLE: 256.0, LIGHTLY: 128.0, CEILING: 64.0, f"{MODEL}, compiled": 480.0}
    rows = [{"case": "some", "what": what, "rate": rate, "ratio": None} for what, rate in rates.items()]
    found = pipeline._report(parts, rates, rows, 0.25)
    ceiling = 64.0 / 32 * 2 * SIDE["cpu"] ** 3  # two products a second
    assert found.figures == pytest.approx(
        {
            "data_wait": 0.25,
            "views_to_model": 0.1,
            "model_tflops": 0.04,  # ten micro-batches of 32 a second
            "ceiling_tflops": ceiling / 1e12,
            "utilization": 4e10 / ceiling,
            "whole_to_lightly": 2.0,
            "compiled_to_plain": 1.5,
        }
    )
    assert [row["what"] for row in found.rows] == [what for what in rates if what != CEILING]
    assert "25.0% of the time waiting for data" in found.words
    assert "2.00 × as fast as lightly's loop" in found.words


def test_data_wait_is_measured_over_the_whole_pipeline():
    class Late:
        wait_seconds = 1e6

        def __next__(self):
            return None

    whole = pipeline.WholeWay(SimpleNamespace(batch=lambda micro_batch: micro_batch), lambda batch: None, Late())
    whole()
    assert whole.waited == 1e6
    assert 0 < whole.took < 1e6
    whole.forget()
    assert whole.waited == whole.took == 0
