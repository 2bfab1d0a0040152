"""The online probe against torch's cross entropy and Adam; it does not influence the backbone."""

import shutil

import pytest
import torch
from engine_ranks import batch, build
from safetensors.torch import load_file
from small_runs import TINY
from torch.nn import functional as F

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.methods import Batch
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import OnlineProbe

CPU = torch.device("cpu")


def test_it_equals_cross_entropy_with_adam():
    torch.manual_seed(0)
    probe, layer = OnlineProbe(5, 3, 0.02, CPU), torch.nn.Linear(5, 3)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    adam = torch.optim.Adam(layer.parameters(), lr=0.02)
    right = answers = 0
    for _ in range(20):
        features, labels = 7 + 3 * torch.randn(12, 5), torch.randint(-1, 3, (12,))
        for part in range(3):  # accumulated
            probe.observe(features[4 * part : 4 * part + 4], labels[4 * part : 4 * part + 4])
        x, y = F.layer_norm(features, (5,))[labels >= 0], labels[labels >= 0]
        right, answers = right + int((layer(x).argmax(1) == y).sum()), answers + len(y)
        adam.zero_grad()
        F.cross_entropy(layer(x), y).backward()
        adam.step()
        probe.step()
    torch.testing.assert_close(probe.weight, torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach())
    assert probe.take_accuracy() == {"online_probe_accuracy": right / answers}
    assert probe.take_accuracy() == {}


def test_discarded_observations_have_no_effect():
    probe, other = OnlineProbe(5, 3, 0.02, CPU), OnlineProbe(5, 3, 0.02, CPU)
    features, labels = torch.randn(2, 4, 5), torch.tensor([0, 1, 2, 1])
    probe.observe(features[0] * torch.nan, labels)
    probe.forget()
    for each in (probe, other):
        each.observe(features[1], labels)
        each.step()
    assert torch.equal(probe.weight, other.weight)
    assert probe.weight.any()


@pytest.mark.parametrize(
    ("features", "labels", "what"),
    [
        (None, [0, 1], "no features"),
        (torch.randn(2, 5), None, "one label"),
        (torch.randn(2, 5), [0, 3], "label 3"),
    ],
)
def test_what_is_missing_is_named(features, labels, what):
    with pytest.raises(ValueError, match=what):
        OnlineProbe(5, 3, 0.02, CPU).observe(features, None if labels is None else torch.tensor(labels))


def test_the_features_are_the_first_view_of_every_method():
    for case in ("simclr-sgd", "dino-adamw", "cacr_momentum-lars"):
        engine = build(case, None)
        views, _ = batch(0, 0, 1)
        output = engine(Batch.from_views(views))
        with torch.no_grad():
            expected = engine.method.backbone(views[0].flatten(0, 1))[: views[0].shape[1]]
        torch.testing.assert_close(output.features, expected)
        assert not output.features.requires_grad


WITHOUT = [*TINY, "training.steps=12", "training.checkpoint_every=4", "training.log_every=3", "data.classes=4"]
WITH = [*WITHOUT, "evaluation.online_probe={learning_rate: 0.01}"]


@pytest.fixture(scope="module")
def with_probe(tmp_path_factory):
    return pretrain("quickstart", WITH, run=tmp_path_factory.mktemp("probe") / "run")


def test_the_backbone_is_bit_identical_with_and_without(with_probe, tmp_path):
    without = pretrain("quickstart", WITHOUT, run=tmp_path / "run")
    assert (without / "backbone.safetensors").read_bytes() == (with_probe / "backbone.safetensors").read_bytes()
    ours, theirs = (read_records(run / "metrics.jsonl") for run in (with_probe, without))
    accuracies = [row.pop("online_probe_accuracy") for row in ours]
    assert ours == theirs
    assert all(0 <= a <= 1 for a in accuracies)
    assert len(set(accuracies)) > 1
    state = load_file(with_probe / "checkpoints/step_00000012/training.safetensors")
    assert state["probe/weight"].any()


def test_a_probe_resumes_exactly(with_probe, tmp_path):
    run = shutil.copytree(with_probe, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/step_00000012")  # step 8 is in the middle of the mean that is logged next
    pretrain("quickstart", WITH, run=run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == (with_probe / "metrics.jsonl").read_bytes()


def test_a_probe_can_be_added_to_a_resumed_run(tmp_path, capsys):
    run = pretrain("quickstart", [*WITHOUT, "training.checkpoint_every=8"], run=tmp_path / "run")
    shutil.rmtree(run / "checkpoints/step_00000012")
    capsys.readouterr()
    pretrain("quickstart", [*WITH, "training.checkpoint_every=8"], run=run, resume=True)
    assert "starts untrained at step 8" in capsys.readouterr().out
    assert ["online_probe_accuracy" in row for row in read_records(run / "metrics.jsonl")] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("data=[{source: ifs, size: 32}, {source: contours, size: 32}]", "one source"),
        ("data={source: dead_leaves, size: 32}", "dead_leaves has none"),
        ("data={source: ifs, size: 32, classes: 1000000}", "up to 100000 classes"),
    ],
)
def test_unsuitable_sources_are_refused(data, what, tmp_path):
    arguments = [data, *(a for a in TINY if not a.startswith("data")), "evaluation.online_probe={}"]
    with pytest.raises(RunError, match=what):
        pretrain("quickstart", arguments, run=tmp_path / "run")
