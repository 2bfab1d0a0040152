import pytest
import torch

from wildfern.ssl.methods import Batch
from wildfern.ssl.methods.masked_patches import check_patches, masked_patches
from wildfern.ssl.models import Backbone

PATCH, T = 4, 16


def drawn(images, probability=0.5, ratio=(0.1, 0.5), **arguments):
    batch = Batch.from_views([torch.zeros(2, images, 3, 16, 16)], **arguments)
    return masked_patches(batch, "test", PATCH, probability, ratio)


def test_places_list_each_masked_patch_once_and_others_without_weight():
    found = drawn(200)
    assert found.places.shape == (400, T // 2)
    for mask, places, weights in zip(found.mask, found.places.tolist(), found.weights.tolist(), strict=True):
        assert sorted(p for p, w in zip(places, weights, strict=True) if w) == mask.nonzero().flatten().tolist()
        assert len(set(places)) == len(places)


def test_shares_are_uniform_in_the_views_that_are_masked():
    counts = drawn(2000).mask.sum(dim=1)
    masked = counts[counts > 0]
    assert len(masked) / len(counts) == pytest.approx(0.5, abs=0.03)
    assert (masked.min(), masked.max()) == (1, 7)  # numbers are drawn from [0, 1)
    wanted = (torch.linspace(0.1, 0.5, 100_001) * T).long()
    assert float(masked.double().mean()) == pytest.approx(float(wanted.double().mean()), abs=0.15)
    assert drawn(50, probability=0.0).weights.sum() == 0


def test_parts_of_a_batch_have_the_masks_of_the_whole():
    whole, part = drawn(8), drawn(4, positions=torch.arange(4, 8))
    torch.testing.assert_close(part.mask.view(2, 4, T), whole.mask.view(2, 8, T)[:, 4:])


def test_views_and_backbones_without_whole_patches_are_refused():
    with pytest.raises(ValueError, match=r"views.size must be a multiple"):
        masked_patches(Batch.from_views([torch.zeros(2, 1, 3, 18, 18)]), "test", PATCH, 0.5, (0.1, 0.5))
    with pytest.raises(ValueError, match=r"iBOT needs a vision transformer.*got resnet18"):
        check_patches(Backbone("resnet18"), "iBOT")
