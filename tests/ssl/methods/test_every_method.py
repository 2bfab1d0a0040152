"""What holds for every method: gradients, its interface, and learning."""

import json

import pytest
import torch
from method_cases import CASES, IMAGES, TRAINED, batch, build

from wildfern.launch import pretrain
from wildfern.launch.builders import build_method
from wildfern.launch.components import read_recipe
from wildfern.ssl.methods import METHODS
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import read_records


def test_every_method_has_a_case():
    assert {case.method for case in CASES.values()} >= set(METHODS)
    assert {CASES[name].method for name in TRAINED} | {"supervised", "parameter_regression", "freecos"} >= set(
        METHODS
    ) - {
        "queue_contrast",
        "toy_segmentation",
    }


@pytest.mark.parametrize("name", [name for name in CASES if name != "masks"])  # that plugin reads one early map
def test_every_optimized_parameter_gets_a_gradient(name):
    method = build(name, 10)
    output = method(batch(name, 3))
    output.loss.backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    still = [n for n, p in method.named_parameters() if p.ndim > 1 and p.requires_grad and not p.grad.abs().max() > 0]
    assert not still
    assert output.features is None or output.features.shape[0] == IMAGES


def test_methods_that_compare_views_give_embeddings_for_the_diagnostics():
    predictive = {"mae", "simmim", "ijepa", "denoising_autoencoder", "supervised", "parameter_regression", "freecos"}
    plain = {"instance_identity, linear", "queue"}  # no normalized embeddings; a plugin
    for name, case in CASES.items():
        if case.method not in predictive and name not in {*plain, "masks"}:
            embeddings = build(name, 10)(batch(name, 3)).embeddings
            assert embeddings.shape[:2] in {(views, IMAGES) for views in range(2, 5)}, name


@pytest.mark.parametrize("name", CASES)
def test_collapsed_loss_is_known_where_ranks_share_the_weights(name):
    method = build(name, 10)
    expected = method.collapsed_loss(256)
    for weight in method.parameters():
        weight.data = torch.empty(0)  # as under ZeRO stage 3
    assert method.collapsed_loss(256) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_learns_digits_without_collapse(name, tmp_path, monkeypatch):
    monkeypatch.setattr("wildfern.launch.run_evaluation.write_report", lambda *given, **named: None)  # takes a second
    run = pretrain("quickstart", list(CASES[name].recipe), run=tmp_path / "run")
    last = read_records(run / "metrics.jsonl")[-1]
    assert last["feature_std"] > 0.1
    assert last["rank_me"] > 3
    recipe = read_recipe(run / "recipe.yaml", [])
    collapsed = build_method(recipe).collapsed_loss(recipe.training.batch_size)
    assert collapsed is None or last["loss"] < collapsed - 0.02 * max(1, collapsed)
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    accuracy = {row["backbone"]: row["value"] for row in rows if row["metric"] == "accuracy"}
    assert accuracy["pretrained"] > accuracy["random"] + 0.02


def test_cases_are_reproducible():
    for name in CASES:
        one, two = (build(name, 10)(batch(name, 3)).loss for _ in range(2))
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["cacr", "cacr_queue"])
def test_attraction_and_repulsion_are_not_both_off(name):
    with pytest.raises(ValueError, match="alpha and beta are both 0"):
        METHODS[name](Backbone("resnet18"), 10, alpha=0.0, beta=0.0)
