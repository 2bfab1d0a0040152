"""MoCo v2 and NNCLR: what is in their queues when, and what it is compared with."""

import pytest
import torch
from method_cases import batch, build
from torch import nn
from torch.nn import functional as F

from wildfern.ssl.methods.nnclr import nearest_neighbors


def oldest_first(queue):
    return torch.roll(queue.embeddings, -int(queue.next), dims=0)


@pytest.mark.parametrize("name", ["moco_v2", "moco_v2 symmetric"])
def test_keys_are_no_negatives_before_they_are_pushed(name):
    method = build(name, 10)
    for step in (0, 1):  # the second batch of 8 has the first one's keys as negatives
        images, before = batch(name, step), method.queue.embeddings.clone()
        queries, keys = method.embed(images).embeddings["queries"], method.targets(images)["keys"]
        terms = []
        for view, (query, key) in enumerate(zip(queries, keys, strict=True)):
            other = F.normalize(method.teacher(images.views[0].flip(0)[: len(queries)].flatten(0, 1)), dim=1)
            torch.testing.assert_close(key, other.unflatten(0, (len(queries), -1))[view])
            for q, k in zip(query, key, strict=True):
                positive = (q @ k / 0.2).exp()
                terms.append(-(positive / (positive + sum((q @ u / 0.2).exp() for u in before))).log())
        torch.testing.assert_close(method(images).loss, torch.stack(terms).mean())
        pushed = keys.flatten(0, 1)[-12:]
        torch.testing.assert_close(oldest_first(method.queue)[-len(pushed) :], pushed)


def test_moco_queues_the_keys_of_several_steps_in_the_order_of_the_batches():
    method, keys = build("moco_v2", 10), []
    for step in range(3):
        images = batch("moco_v2", step)
        keys += method.targets(images)["keys"][0]
        method(images)
    torch.testing.assert_close(oldest_first(method.queue), torch.stack(keys[-12:]))


def test_nearest_neighbors_match_the_plain_loop():
    generator = torch.Generator().manual_seed(0)
    z, queue = (F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1) for n in (7, 20))
    found = nearest_neighbors(z, queue)
    for i in range(7):
        assert torch.equal(found[i], max(queue, key=lambda row, i=i: float(row @ z[i])))


def test_nnclr_matches_the_plain_loop_and_queues_the_first_view():
    method, images = build("nnclr", 10), batch("nnclr", 0)
    embedded, before = method.embed(images).embeddings, method.queue.embeddings.clone()
    p, z = embedded["p"], embedded["z"]
    terms = []
    for view in range(2):
        for i in range(8):
            neighbor = max(before, key=lambda row, v=view, i=i: float(row @ z[v, i]))
            scores = [(neighbor @ p[1 - view, j] / 0.1).exp() for j in range(8)]
            terms.append(-(scores[i] / sum(scores)).log())
    torch.testing.assert_close(method(images).loss, torch.stack(terms).mean())
    torch.testing.assert_close(oldest_first(method.queue)[-8:], z[0])


def without_batch_norm(name):
    """The method without batch normalization, whose statistics are those of all its views together."""
    method = build(name, 10)
    for network in (method, *method.teachers().values()):
        for path, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                network.set_submodule(path, nn.Identity())
    return method


def test_symmetric_moco_is_the_mean_of_both_directions():
    images, flipped = batch("moco_v2", 0), batch("moco_v2", 0)
    flipped.views[0] = flipped.views[0].flip(0)
    both = without_batch_norm("moco_v2 symmetric")(images).loss
    each = [without_batch_norm("moco_v2")(direction).loss for direction in (images, flipped)]
    torch.testing.assert_close(both, sum(each) / 2)
    assert not torch.allclose(*each)
