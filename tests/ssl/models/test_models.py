import copy

import pytest
import torch
from torch import nn

from wildfern.ssl.models import Backbone, MomentumTeacher, SmallAlexNet, cosine_momentum
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


# Each with every type of dropout that the model takes.
DROPPING = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2, "patch_drop_rate": 0.5}),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "depths": (1, 1), "num_heads": (2, 2)}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": (2, 2), "drop_path_rate": None}),
    "efficientnet": ("test_efficientnet", {}),
    "resnet": ("resnet10t", {}),
}


@pytest.mark.parametrize("kind", DROPPING)
def test_two_passes_of_a_teacher_are_equal_and_batch_statistics_change(kind):
    name, arguments = DROPPING[kind]
    arguments = {"drop_path_rate": 0.5, "drop_rate": 0.5, **arguments}
    if kind == "densenet":
        arguments |= {"proj_drop_rate": 0.5}
    torch.manual_seed(0)
    student = Backbone(name, **{key: value for key, value in arguments.items() if value is not None}).train()
    teacher, images = MomentumTeacher(student), torch.randn(4, 3, student.size, student.size)
    assert not torch.equal(student(images), student(images))
    norms = [m for m in teacher.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.running_mean.clone() for norm in norms]
    assert torch.equal(teacher(images), teacher(images))
    assert all(norm.training and not torch.equal(norm.running_mean, b) for norm, b in zip(norms, before, strict=True))
    assert bool(norms) == (kind in ("densenet", "efficientnet", "resnet"))
    assert not any(m.training for m in teacher.module.modules() if not isinstance(m, nn.modules.batchnorm._BatchNorm))


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
