"""Diagnostics that the loop logs: those of the features of the whole global batch, and nothing else changes."""

import torch
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import build_method, build_views, open_mixture
from wildfern.launch.components import read_recipe
from wildfern.ssl.evaluation.diagnostics import diagnostics
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import BatchReader

VIT = "model={backbone: vit_tiny_patch16_224, arguments: {patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}}"
CHANGES = [*(c for c in TINY if not c.startswith("model.")), VIT, "training.steps=2", "training.precision=fp32"]
KEYS = {"rank_me", "feature_std"}


def rows(run, *changes):
    return read_records(pretrain("quickstart", [*CHANGES, *changes], run=run) / "metrics.jsonl")


def test_they_are_those_of_the_global_batch_in_one_part_or_two(tmp_path):
    without = rows(tmp_path / "without")
    whole = rows(tmp_path / "whole", "evaluation.diagnostics=true")
    halves = rows(tmp_path / "halves", "evaluation.diagnostics=true", "training.accumulation=2")
    assert [{k: v for k, v in row.items() if k not in KEYS} for row in whole] == without
    recipe = read_recipe("quickstart", CHANGES)
    reader = BatchReader(open_mixture(recipe), build_views(recipe), seed=0, batch_size=8)
    torch.manual_seed(0)
    expected = diagnostics(build_method(recipe)(reader.batch(reader(0))).features)
    for name in KEYS:
        torch.testing.assert_close(whole[0][name], float(expected[name]), rtol=1e-4, atol=0)
        torch.testing.assert_close(halves[0][name], whole[0][name], rtol=1e-4, atol=0)
