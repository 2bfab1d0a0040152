"""Supervised pretraining against plain loops over images and classes."""

import pytest
import torch
from torch.nn import functional as F
from two_ranks import SmallNet

from wildfern.ssl.methods import Batch, Supervised
from wildfern.ssl.methods.supervised import multi_instance_loss


def test_the_multi_instance_loss_equals_the_double_loop():
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(2, 3, 5, dtype=torch.float64),
        torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0] * 5]),
    )
    terms = []
    for view in range(2):
        for image in range(3):
            positives = int(labels[image].sum())
            for c in range(5):
                p = torch.sigmoid(logits[view, image, c])
                terms.append(-5 / positives * p.log() if labels[image, c] else -(1 - p).log())
    torch.testing.assert_close(multi_instance_loss(logits, labels.to(torch.uint8)), torch.stack(terms).mean())


def method(classes):
    torch.manual_seed(0)
    return Supervised(SmallNet(), 10, classes=classes)


def test_unlabeled_images_have_no_loss():
    views, labels = [torch.randn(2, 4, 3, 8, 8)], torch.tensor([2, -1, 0, 1])
    supervised = method(3).eval()
    output = supervised(Batch.from_views(views, labels=labels))
    logits = [supervised.classifier(supervised.backbone(view)) for view in views[0]]
    each = [F.cross_entropy(row[i], labels[i]) for row in logits for i in range(4) if labels[i] >= 0]
    torch.testing.assert_close(output.loss, torch.stack(each).sum() / 8)
    right = sum(int(logits[0][i].argmax() == labels[i]) for i in range(4))
    assert output.metrics["accuracy"] == right / 4
    torch.testing.assert_close(output.features, supervised.backbone(views[0][0]))


def test_multi_hot_accuracy_requires_all_labels():
    supervised = method(4)
    supervised.encode = lambda head, views: (torch.tensor([[[3.0, 1, 2, 0], [0, 5, 1, 2]]]), torch.zeros(2, 6))
    labels = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.uint8)
    assert supervised(Batch.from_views([torch.zeros(1, 2, 3, 4, 4)], labels=labels)).metrics["accuracy"] == 0.5


def test_labels_that_do_not_fit_are_refused():
    views = [torch.zeros(1, 2, 3, 8, 8)]
    with pytest.raises(ValueError, match=r"method\.classes is 3, but the data has 4 classes"):
        method(3)(Batch.from_views(views, labels=torch.zeros(2, 4, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="needs labels, but the data has no labels"):
        Supervised.needs.check_batch(Batch.from_views(views))
