import torch
from torch import nn

from wildfern.ssl.models import Backbone
from wildfern.ssl.models.frozen_teacher import FrozenTeacher

SMALL = {"stem": "cifar", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 16}


def images(seed=0):
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def normalized(x, mean, std):
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def test_views_are_converted_to_the_normalization_of_the_teacher():
    backbone = Backbone("resnet18", **SMALL)
    backbone.mean, backbone.std = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)
    teacher, views_mean, views_std = FrozenTeacher(backbone), (0.1, 0.2, 0.3), (0.2, 0.3, 0.4)
    teacher.views_are_normalized_with(views_mean, views_std)
    found = teacher(normalized(images(), views_mean, views_std))
    torch.testing.assert_close(found, backbone(normalized(images(), backbone.mean, backbone.std)))
    assert not found.requires_grad


def test_running_statistics_are_used_and_stay():
    teacher = FrozenTeacher(Backbone("resnet18", **SMALL))
    assert any(isinstance(m, nn.BatchNorm2d) for m in teacher.module.modules())
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    together = teacher(images())
    torch.testing.assert_close(teacher(images()[:1]), together[:1])
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_the_sha256_follows_the_weights():
    first, same, other = (FrozenTeacher(Backbone("resnet18", **SMALL)) for _ in range(3))
    state = first.backbone.state_dict()
    same.backbone.load_state_dict(state)
    assert FrozenTeacher(same.backbone).sha256 == first.sha256 != other.sha256
