import re

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.evaluation import Finetune, HeldOut, LabeledImages, Preprocessing, finetune
from wildfern.ssl.evaluation.protocols.finetune_learning_rate import held_out
from wildfern.ssl.evaluation.protocols.finetune_training import FinetuneTraining, TrainImages

RATES = (3e-2, 1e-7, 1e30)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def shades(n, seed=0):
    """Dark, gray and bright images with noise."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(seed).integers(0, 60, (n, 6, 6, 3))
    return (noise + 90 * labels[:, None, None, None]).astype(np.uint8), labels


OPTIONS = {"epochs": 3, "batch_size": 16, "padding": 0}


def test_the_best_rate_on_held_out_images_is_trained_again_on_all_of_train(backbone):
    data = (*shades(45), *shades(30, seed=1))
    found = finetune(backbone, *data, learning_rate=RATES, **OPTIONS)
    alone = finetune(backbone, *data, learning_rate=3e-2, **OPTIONS)
    assert found.learning_rate == alone.learning_rate == 3e-2
    assert (found.losses, found.accuracy) == (alone.losses, alone.accuracy)
    assert torch.equal(found.ranked, alone.ranked)
    assert found.protocol == Finetune(learning_rate=RATES, **OPTIONS).describe()
    assert "rate chosen of 1e-07, 0.03, 1e+30 on a held-out 20% of train, weight decay" in found.protocol
    words = r"^learning rate 0.03 chosen: right on 9 train images held out [\d.]+ % with 1e-07, [\d.]+ % with 0.03, diverged"
    assert re.match(words, found.detail)


def test_a_rate_is_judged_on_images_it_was_not_trained_on(backbone, monkeypatch):
    seen = []
    train, logits = FinetuneTraining.train, FinetuneTraining.logits
    monkeypatch.setattr(
        FinetuneTraining, "train", lambda self, b, data, *rest: seen.append(data.images) or train(self, b, data, *rest)
    )
    monkeypatch.setattr(
        FinetuneTraining, "logits", lambda self, n, images, what: seen.append(images) or logits(self, n, images, what)
    )
    numbered = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
    finetune(backbone, numbered, np.arange(40) % 2, *shades(6), learning_rate=(1e-3, 3e-2), **OPTIONS)
    numbers = [images[:, 0, 0, 0].tolist() for images in seen]
    assert sorted(numbers[0] + numbers[1]) == list(range(40))
    assert len(numbers[1]) == 8
    assert (numbers[2], numbers[3]) == (numbers[0], numbers[1])
    assert numbers[4] == list(range(40))


def test_test_is_read_once_after_the_choice_and_the_last_step(backbone, monkeypatch):
    trained, train = [], FinetuneTraining.train
    monkeypatch.setattr(FinetuneTraining, "train", lambda *given: (train(*given), trained.append(given[3]))[0])

    class Last(HeldOut):
        def read(self):
            assert len(trained) == 3
            return super().read()

    def evaluate(test):
        trained.clear()
        parts = [LabeledImages(*part, backbone, Preprocessing()) for part in (shades(45), test)]
        return Finetune(learning_rate=(1e-3, 3e-2), **OPTIONS)(parts[0], Last(parts[1])), trained[-1]

    pixels, labels = shades(30, seed=1)
    (scores, chosen), (_, other) = evaluate((pixels, labels)), evaluate((255 - pixels, labels[::-1].copy()))
    assert chosen == other
    assert scores[0].detail.startswith(f"learning rate {chosen:g} chosen")


def test_of_equal_rates_the_lowest_is_chosen(backbone):
    data = (*shades(30), *shades(6))
    assert finetune(backbone, *data, learning_rate=(2e-9, 1e-9), **OPTIONS).learning_rate == 1e-9
    one = finetune(backbone, *data, learning_rate=(1e-9, 1e-9), **OPTIONS)
    assert one.protocol == finetune(backbone, *data, learning_rate=1e-9, **OPTIONS).protocol


def test_one_part_of_each_class_is_held_out_but_never_its_only_image():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    out = held_out(TrainImages(torch.zeros(18, 3, 1, 1), labels, 4), 5, 7)
    assert torch.bincount(labels[out], minlength=4).tolist() == [2, 1, 1, 0]
    assert not torch.equal(out, held_out(TrainImages(torch.zeros(18, 3, 1, 1), labels, 4), 5, 8))
    # Class 0 is everywhere; the rarest class of images 10 to 14 is 1, that of 15 is 2; the last five are of none.
    many = torch.zeros(21, 3)
    many[:16, 0], many[10:15, 1], many[15, 2] = 1, 1, 1
    out = held_out(TrainImages(torch.zeros(21, 3, 1, 1), many, 3), 5, 7)
    assert [int(out[part].sum()) for part in (slice(10), slice(10, 15), slice(15, 16), slice(16, 21))] == [2, 1, 0, 1]


def test_multi_hot_labels_are_judged_by_mean_average_precision(backbone):
    def part(n, seed):
        pixels, labels = shades(n, seed)
        return LabeledImages(pixels, np.eye(3, dtype=np.uint8)[labels], backbone, Preprocessing())

    scores = Finetune(learning_rate=(1e-7, 3e-2), **OPTIONS)(part(45, 0), HeldOut(part(30, 1)))
    assert scores[0].metric == "mean_average_precision"
    assert scores[0].detail.startswith("learning rate 0.03 chosen: mean average precision on 9 train images held out")


def test_what_cannot_be_chosen_is_refused(backbone):
    data = (*shades(12), *shades(6))
    with pytest.raises(ValueError, match=r"diverged with each learning_rate of 1e\+30, 1e\+31: add a lower one"):
        finetune(backbone, *data, learning_rate=(1e31, 1e30), **OPTIONS)
    pixels, labels = shades(3)
    with pytest.raises(ValueError, match="give one, not 2 to choose from: no labeled image can be held out"):
        finetune(backbone, pixels, labels, pixels, labels, learning_rate=(3e-2, 1e-3), **OPTIONS)
    for rates in ((), (1e-3, -1.0), 0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="learning_rate is a positive number, or several"):
            Finetune(learning_rate=rates)
    with pytest.raises(ValueError, match="holdout has no effect with one learning_rate"):
        Finetune(holdout=0.3)
    with pytest.raises(ValueError, match=r"holdout is a share of train in \(0, 0.5\]"):
        Finetune(learning_rate=(1e-3, 3e-2), holdout=0.6)
