import copy

import pytest
import torch
from torch import nn

from wildfern.ssl.models import MomentumTeacher, SmallAlexNet, cosine_momentum
from wildfern.ssl.models.heads import DINOHead, NormalizedLinear


def test_small_alexnet_is_the_published_encoder():
    net = SmallAlexNet()
    widths = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [96, 192, 384, 384, 192]
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 4096)
    assert SmallAlexNet(image_size=64)(torch.randn(2, 3, 64, 64)).shape == (2, 4096)


def test_teacher_is_the_exponential_moving_average_written_as_a_loop():
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = MomentumTeacher(student)
    expected = [p.detach().clone() for p in student.parameters()]
    for step in range(5):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.full_like(p, 0.1 * step))
        m = cosine_momentum(0.9, step, 5)
        teacher.update(student, m)
        expected = [m * e + (1 - m) * p.detach() for e, p in zip(expected, student.parameters(), strict=True)]
    for ours, loop in zip(teacher.module.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, loop)
        assert not ours.requires_grad


def test_momentum_rises_from_its_base_to_one():
    values = [cosine_momentum(0.996, step, 100) for step in (0, 50, 100)]
    assert values == pytest.approx([0.996, 0.998, 1.0])


def test_prototypes_have_unit_rows_and_a_frozen_layer_has_gradient_zero():
    layer = NormalizedLinear(4, 6)
    eye = torch.eye(4)
    torch.testing.assert_close(layer(eye).T.norm(dim=1), torch.ones(6))
    layer.frozen = True
    layer(eye.requires_grad_()).sum().backward()
    assert (layer.weight.grad == 0).all()
    layer.frozen = False
    layer(eye).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_dino_head_copies_like_any_module():
    head = DINOHead(5, 8, 4, 6, batch_norm=False)
    x = torch.randn(3, 5)
    torch.testing.assert_close(copy.deepcopy(head)(x), head(x))
