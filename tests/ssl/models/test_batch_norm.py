"""Conversion to batch normalization over ranks changes nothing else about a model.

methods/test_two_processes.py compares the implementation for CPUs with one process.
"""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from wildfern.ssl.models import synchronize_batch_norm
from wildfern.ssl.models.batch_norm import GlobalBatchNorm1d, GlobalBatchNorm2d, GlobalBatchNormAct2d, _GlobalBatchNorm


def network():
    torch.manual_seed(0)
    act = BatchNormAct2d(4, drop_layer=nn.Identity)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act, nn.Flatten(), nn.BatchNorm1d(4, affine=False))


@pytest.mark.parametrize("device_type", ["cuda", "cpu", "mps", None])
def test_names_weights_and_modes_do_not_change(device_type):
    model = network()
    model[1].eval()
    expected, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    synchronize_batch_norm(model, device_type)
    assert list(model.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert (model[1].training, model[2].training) == (False, True)
    once = [type(module) for module in model]
    synchronize_batch_norm(model, device_type)
    assert [type(module) for module in model] == once


def test_gpus_get_torchs_kernels_other_devices_the_own_ones():
    model = network()
    synchronize_batch_norm(model, "cuda")
    assert all(isinstance(model[i], nn.SyncBatchNorm) for i in (1, 2, 4))
    assert not any(isinstance(module, _GlobalBatchNorm) for module in model)
    for device_type in ("cpu", "mps", None):
        model = network()
        synchronize_batch_norm(model, device_type)
        assert [type(model[i]) for i in (1, 2, 4)] == [GlobalBatchNorm2d, GlobalBatchNormAct2d, GlobalBatchNorm1d]


def test_the_forward_pass_on_gpus_is_torchs_followed_by_timms_activation(monkeypatch):
    model, images = network(), torch.randn(2, 3, 3, 3)
    synchronize_batch_norm(model, "cuda")
    seen = []

    def forward(self, x):
        seen.append((self.process_group, x.shape))
        return -torch.ones_like(x)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    assert torch.equal(model[1](images), -torch.ones_like(images))
    assert torch.equal(model[2](images), torch.zeros_like(images))  # ReLU
    assert seen == [(None, images.shape)] * 2


def test_one_process_computes_the_same_before_and_after():
    """torch's SyncBatchNorm is plain batch normalization without a process group."""
    model, plain, images = network(), network(), torch.randn(6, 3, 3, 3)
    synchronize_batch_norm(model, "cuda")
    assert torch.equal(model(images), plain(images))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_an_unsupported_batch_normalization_is_refused():
    for device_type in ("cuda", "cpu"):
        with pytest.raises(ValueError, match="0 is a BatchNorm3d"):
            synchronize_batch_norm(nn.Sequential(nn.BatchNorm3d(3)), device_type)
