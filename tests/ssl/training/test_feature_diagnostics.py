"""Diagnostics that the loop logs: those of the features of the whole global batch, and nothing else changes."""

import torch
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import build_method, build_views, open_mixture
from wildfern.launch.components import read_recipe
from wildfern.ssl.evaluation.diagnostics import diagnostics
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import BatchReader
from wildfern.ssl.training.loop import StepResult, _whole_batch

VIT = "model={backbone: vit_tiny_patch16_224, arguments: {patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}}"
CHANGES = [*(c for c in TINY if not c.startswith("model.")), VIT, "training.steps=2", "training.precision=fp32"]
KEYS = {"rank_me", "feature_std", "alignment", "uniformity"}


def test_those_of_ranks_are_gathered_unless_the_method_has_gathered(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.training.loop.all_gather_embeddings", lambda x: torch.cat([x, x + 1], dim=1))
    features, embeddings = torch.rand(3, 4), torch.rand(2, 3, 4)
    for own, expected in ((embeddings, torch.cat([embeddings, embeddings + 1], dim=1)), (torch.rand(2, 6, 4), None)):
        found = _whole_batch(StepResult([], torch.ones(()), 0.1, 0.0, [features], [own]), 2)
        torch.testing.assert_close(found[0], torch.cat([features, features + 1]))
        torch.testing.assert_close(found[1], own if expected is None else expected)
    monkeypatch.undo()
    assert _whole_batch(StepResult([], torch.ones(()), 0.1, 0.0, [features[:1]], [embeddings[:, :1]]), 1) == (
        None,
        None,
    )


def test_features_that_are_not_finite_have_no_rank():
    assert diagnostics(torch.full((4, 3), torch.nan))["rank_me"].isnan()


def rows(run, *changes):
    return read_records(pretrain("quickstart", [*CHANGES, *changes], run=run) / "metrics.jsonl")


def test_they_are_those_of_the_global_batch_in_one_part_or_two(tmp_path):
    without = rows(tmp_path / "without", "evaluation.diagnostics=false")
    whole = rows(tmp_path / "whole")
    halves = rows(tmp_path / "halves", "training.accumulation=2")
    assert [{k: v for k, v in row.items() if k not in KEYS} for row in whole] == without
    recipe = read_recipe("quickstart", CHANGES)
    reader = BatchReader(open_mixture(recipe), build_views(recipe), seed=0, batch_size=8)
    torch.manual_seed(0)
    output = build_method(recipe)(reader.batch(reader(0)))
    expected = diagnostics(output.features, output.embeddings)
    assert expected.keys() == KEYS
    for name in KEYS:
        torch.testing.assert_close(whole[0][name], float(expected[name]), rtol=1e-4, atol=0)
    for name in ("rank_me", "feature_std"):  # the projection's batch normalization has the statistics of a half
        torch.testing.assert_close(halves[0][name], whole[0][name], rtol=1e-4, atol=0)
