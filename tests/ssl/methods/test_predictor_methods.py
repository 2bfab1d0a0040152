"""MoCo v3, BYOL and SimSiam: losses against plain loops, stopped gradients, and the predictor's learning rate."""

from functools import partial

import pytest
import torch
from method_cases import RESNET, batch, build
from torch.nn import functional as F

from wildfern.ssl.methods import METHODS, MoCoV3, MomentumCACR
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import OPTIMIZERS
from wildfern.ssl.training.optimizers import set_hyperparameters
from wildfern.ssl.training.parameter_groups import method_optimizer


def student_outputs(method, images):
    """Projections and predictions float[2, N, D]."""
    z = method.projection(method.backbone(images.views[0].flatten(0, 1)))
    return z.unflatten(0, (2, -1)), method.predictor(z).unflatten(0, (2, -1))


def test_byol_matches_the_plain_loop():
    method, images = build("byol", 10), batch("byol", 0)
    with torch.no_grad():
        for p in method.teacher.module.parameters():
            p.add_(0.1)  # so that teacher and student differ
    _, q = student_outputs(method, images)
    targets = method.teacher(images.views[0].flatten(0, 1)).unflatten(0, (2, -1))
    loss = 0.0
    for n in range(8):
        for view in range(2):
            a, b = q[view, n], targets[1 - view, n]
            loss = loss + (a / a.norm() - b / b.norm()).square().sum() / 8
    torch.testing.assert_close(method(images).loss, loss)


def test_simsiam_matches_the_plain_loop():
    method, images = build("simsiam", 10), batch("simsiam", 0)
    z, p = student_outputs(method, images)
    terms = [p[v, n] @ z[1 - v, n] / (p[v, n].norm() * z[1 - v, n].norm()) for n in range(8) for v in range(2)]
    torch.testing.assert_close(method(images).loss, -sum(terms) / 16)


def test_simsiam_has_no_gradient_through_its_targets():
    method, images = build("simsiam", 10), batch("simsiam", 0)
    weight = method.projection.layers[0].weight
    method(images).loss.backward()
    z, p = student_outputs(method, images)
    stopped, through = (
        torch.autograd.grad(-F.cosine_similarity(p, target.flip(0), dim=-1).mean(), weight, retain_graph=True)[0]
        for target in (z.detach(), z)
    )
    torch.testing.assert_close(weight.grad, stopped)
    assert not torch.allclose(through, stopped)


@pytest.mark.parametrize(
    ("name", "arguments", "factors"),
    [
        ("byol", {"predictor_rate": 10.0}, (10.0, 1.0)),
        ("simsiam", {}, (10.0, 0.1)),
        ("simsiam", {"constant_predictor_rate": False}, (1.0, 0.1)),
    ],
)
def test_the_predictor_has_its_own_rate(name, arguments, factors):
    """At a tenth of the learning rate: the predictor's, as a multiple of it, and the weight decay's factor of the schedule."""
    backbone, settings = RESNET
    method = METHODS[name](Backbone(backbone, **settings), 10, **arguments)
    optimizer = method_optimizer(method, partial(OPTIMIZERS["sgd"], learning_rate=0.5), 0.2)
    set_hyperparameters(optimizer, 0.05, 0.02)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    predictor, other = method.predictor.layers[0].weight, method.projection.layers[0].weight
    assert rates[id(other)] == (0.05, 0.02)
    assert rates[id(predictor)] == pytest.approx((factors[0] * 0.05, 0.02))


def test_moco_v3_is_twice_cacr_with_a_momentum_encoder_and_two_views():
    losses, gradients = [], []
    for method_class in (MoCoV3, MomentumCACR):
        torch.manual_seed(0)
        backbone, settings = RESNET
        sizes = {"temperature": 0.3, "projection_layers": 2, "projection_hidden": 16, "projection_size": 8}
        method = method_class(Backbone(backbone, **settings), 10, **sizes).double()
        method.teacher.module.double()
        output = method(batch("moco_v3", 0))
        output.loss.backward()
        losses.append(output.loss.detach())
        gradients.append(method.predictor.layers[0].weight.grad)
    torch.testing.assert_close(losses[0], 2 * losses[1])
    torch.testing.assert_close(gradients[0], 2 * gradients[1])


def test_a_frozen_patch_embedding_is_not_trained():
    method = build("moco_v3", 10)
    method(batch("moco_v3", 0)).loss.backward()
    frozen = [name for name, p in method.named_parameters() if p.grad is None]
    assert frozen == ["backbone.network.patch_embed.proj.weight", "backbone.network.patch_embed.proj.bias"]
    backbone, settings = RESNET
    with pytest.raises(ValueError, match=r"needs a network with a patch embedding, for instance .*; got resnet18"):
        MoCoV3(Backbone(backbone, **settings), 10, freeze_patch_embedding=True)
