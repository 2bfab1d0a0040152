"""Parameter regression against plain loops, and learning the exponents of noise."""

import pytest
import torch
from torch import nan
from two_ranks import SmallNet

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.methods import Batch, ParameterRegression
from wildfern.ssl.tracking import read_records

TARGETS = torch.tensor([[0.5, -1.0], [nan, nan], [2.5, 0.1]])
NOISE = ["data={source: spectrum, size: 24}", "evaluation.on=[]", "training.device=cpu"]
NOISE += ["views={name: simclr, size: 16, count: 1, flip: 0.0, gray: 0.0, jitter: 0.0}"]


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_loss_of_the_plain_loop(loss):
    torch.manual_seed(0)
    method = ParameterRegression(SmallNet(), 10, parameters=2, loss=loss).double().eval()
    views = torch.rand(2, 3, 3, 8, 8, dtype=torch.float64)
    errors, squares, variance = [], 0.0, 0.0
    for view in views:
        for predicted, target in zip(method.regressor(method.backbone(view)), TARGETS.double(), strict=True):
            for p, t in zip(predicted, target, strict=True):
                if t.isnan():
                    errors.append(torch.zeros((), dtype=torch.float64))
                    continue
                error = (p - t).abs()
                huber = error**2 / 2 if error < 1 else error - 0.5
                errors.append(error**2 if loss == "mse" else huber)
                squares, variance = squares + error.item() ** 2, variance + t.item() ** 2
    output = method(Batch.from_views([views], parameters=TARGETS))
    torch.testing.assert_close(output.loss, torch.stack(errors).mean())
    assert output.metrics["r2"].item() == pytest.approx(1 - squares / variance)


@pytest.mark.slow
def test_learns_the_exponents_of_noise(tmp_path):
    changes = ["method={name: parameter_regression, parameters: 2}", "training.steps=40", "training.log_every=1"]
    changes += [
        "model.stem=cifar",
        "model.arguments={layers: [1, 1, 1, 0], channels: [16, 32, 48, 64], stem_width: 16}",
    ]
    records = read_records(pretrain("quickstart", [*NOISE, *changes], run=tmp_path / "run") / "metrics.jsonl")
    assert sum(record["r2"] for record in records[-5:]) / 5 > 0.5
    assert sum(record["r2"] for record in records[:3]) / 3 < 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], r"method.parameters is 5, but the data has 2: horizontal_exponent, vertical_exponent"),
        (
            ["data={source: digits}"],
            "needs images with the parameters that they were rendered with, but digits has none",
        ),
        (
            ["data=[{source: spectrum, size: 24}, {source: ifs, size: 24, points: 100}]"],
            r"different parameters: \(horizontal_exponent, vertical_exponent\) and \(maps, larger",
        ),
    ],
)
def test_a_run_on_data_without_these_parameters_does_not_start(changes, message, tmp_path):
    noise = NOISE if not changes else NOISE[1:]
    changes = [*noise, "training.steps=1", "method={name: parameter_regression, parameters: 5}", *changes]
    with pytest.raises((RunError, ValueError), match=message):
        pretrain("quickstart", changes, run=tmp_path / "run")
