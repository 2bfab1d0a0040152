import statistics

import pytest
import torch

from wildfern.ssl.evaluation import few_shot, knn, linear_probe
from wildfern.ssl.evaluation.few_shot import STRENGTHS, draw_shots


def test_a_draw_has_so_many_of_every_class_and_draws_differ(blobs):
    train = blobs(100)
    draws = [draw_shots(train, 5, seed) for seed in range(4)]
    for drawn in draws:
        assert torch.unique(drawn.y, return_counts=True)[1].tolist() == [5, 5, 5, 5]
    assert not torch.equal(draws[0].x, draws[1].x)
    assert torch.equal(draw_shots(train, 5, 2).x, draws[2].x)


def test_mean_and_deviation_are_those_of_the_single_draws(blobs):
    train, test = blobs(100), blobs(60, seed=3)
    results = few_shot(train, test, shots=3, seeds=3)
    draws = [draw_shots(train, 3, seed) for seed in range(3)]
    by_hand = {
        "linear": [
            linear_probe(drawn, test, strengths=STRENGTHS, seed=seed).accuracy for seed, drawn in enumerate(draws)
        ],
        "knn": [knn(drawn, test, k=3).accuracy for drawn in draws],
    }
    for protocol, values in by_hand.items():
        assert results[protocol].accuracies == tuple(values)
        assert results[protocol].mean == pytest.approx(statistics.fmean(values))
        assert results[protocol].std == pytest.approx(statistics.stdev(values))
        assert "3 labeled images of each class" in results[protocol].protocol


def test_one_shot_one_seed_and_small_classes(blobs):
    train, test = blobs(10), blobs(20, seed=3)
    assert few_shot(train, test, shots=1, seeds=1)["linear"].std is None
    assert "smallest class has only 2" in few_shot(train, test, shots=5, seeds=1, protocols=("knn",))["knn"].detail


def test_impossible_settings_are_refused(blobs):
    with pytest.raises(ValueError, match="shots"):
        few_shot(blobs(8), blobs(4), shots=0)
    with pytest.raises(ValueError, match="seeds"):
        few_shot(blobs(8), blobs(4), seeds=0)
    with pytest.raises(ValueError, match="not finetune"):
        few_shot(blobs(8), blobs(4), protocols=("finetune",))
