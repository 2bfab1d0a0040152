"""Work on the device: two copies per batch, no blocking calls, the same operations for any batch size.

Tensors of torch's `meta` device have no values, so whatever would wait for some (`item`, boolean indexing, `nonzero`) raises.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wildfern.ssl.augmentation import VIEWS, Views
from wildfern.ssl.augmentation.packed_table import pack

SMALL = {"simclr": {"size": 24}, "dino": {"size": 24, "local_size": 12, "local_count": 8, "solarize": (0.5, 0.5)}}


class Watch(TorchDispatchMode):
    """Counts operations by name, and copies from the host to the device."""

    def __init__(self):
        super().__init__()
        self.operations, self.copies = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.operations[str(function)] += 1
        there = kwargs.get("device")
        if there is not None and torch.device(there).type == "meta" and args and isinstance(args[0], torch.Tensor):
            self.copies += args[0].device.type == "cpu"
        return function(*args, **kwargs)


def watched(views: Views, n: int, kind=np.asarray, masks: bool = False) -> Watch:
    pixels = kind(np.random.default_rng(0).integers(0, 256, (n, 32, 40, 3), np.uint8))
    given = kind(np.zeros((n, 32, 40), np.uint8)) if masks else None
    batch = views.prepare(pixels, 0, 0, np.arange(n), masks=given)
    with Watch() as watch:
        out = views(batch)
        assert all(group.device.type == "meta" for group in views.geometry(batch))
        assert (views.masks(batch) is not None) == masks
    assert [tuple(group.shape) for group in out] == [(v, n, 3, size, size) for v, size in views.shape]
    assert all(group.device.type == "meta" for group in out)
    return watch


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_takes_two_copies_and_the_same_operations_for_any_number_of_images(name):
    views = VIEWS[name](**SMALL[name]).to("meta")
    watched(views, 16)  # what is made once and kept
    few, many = watched(views, 16), watched(views, 64)
    assert few.copies == many.copies == 2  # images, and all numbers together
    assert few.operations == many.operations


def test_host_crops_take_one_copy_per_size_and_one_of_parameters():
    views = VIEWS["dino"](**SMALL["dino"]).to("meta")
    watched(views, 16, list)
    assert watched(views, 16, list).copies == 3


@pytest.mark.parametrize(("kind", "copies"), [(np.asarray, 3), (list, 5)])
def test_masks_take_one_more_copy_or_one_per_size(kind, copies):
    views = VIEWS["dino"](**SMALL["dino"]).to("meta")
    watched(views, 16, kind, masks=True)
    few, many = watched(views, 16, kind, masks=True), watched(views, 64, kind, masks=True)
    assert few.copies == many.copies == copies
    assert few.operations == many.operations


@pytest.mark.parametrize("wait", [lambda x: x.mean().item(), lambda x: x[x > 0], lambda x: bool((x > 0).any())])
def test_blocking_operations_are_detected(wait, monkeypatch):
    views = VIEWS["simclr"](size=24).to("meta")
    appearance = Views._appearance

    def waiting(self, images, *others):
        wait(images)
        return appearance(self, images, *others)

    monkeypatch.setattr(Views, "_appearance", waiting)
    with pytest.raises((RuntimeError, NotImplementedError)):
        watched(views, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
@pytest.mark.parametrize("name", SMALL)
def test_a_gpu_never_blocks(name):
    views = VIEWS[name](**SMALL[name]).to("cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 40, 3), np.uint8)
    masks = np.zeros((16, 32, 40), np.uint8)
    batches = [views.prepare(pixels, 0, step, np.arange(16), masks=masks) for step in range(2)]
    views(batches[0])  # what is made once and kept
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        views(batches[1])
        views.masks(batches[1])
        views.geometry(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_packed_arrays_are_unpacked_unchanged():
    groups = [
        {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False])},
        {"a": np.array([[[2**24 - 1]]]), "none": np.zeros((0, 4))},
    ]
    for found, expected in zip(pack(groups, pinned=False).on(torch.device("cpu")), groups, strict=True):
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert found[name].dtype == (torch.bool if array.dtype == np.bool_ else torch.float32)
            np.testing.assert_array_equal(found[name].numpy(), array)
