import math

import pytest
import torch

from wildfern.ssl.methods import Batch
from wildfern.ssl.methods.pixel_samples import pixel_order, sample_pixels, vectors_at


def batch(n=4, step=0, positions=None):
    views = [torch.zeros(1, n, 3, 6, 5)]
    return Batch.from_views(views, step=step, positions=positions)


def test_the_order_is_of_the_image_and_not_of_its_place_on_a_rank():
    whole = pixel_order(batch(4), "contrast", 6, 5)
    parts = [pixel_order(batch(2, positions=torch.arange(first, first + 2)), "contrast", 6, 5) for first in (0, 2)]
    assert torch.equal(whole, torch.cat(parts))
    assert whole.shape == (4, 30)
    assert len(whole.unique()) == 120
    assert not torch.equal(whole, pixel_order(batch(4, step=1), "contrast", 6, 5))
    assert not torch.equal(whole, pixel_order(batch(4), "other", 6, 5))


@pytest.mark.parametrize(("share", "most"), [(0.3, 100), (1.0, 100), (0.5, 3)])
def test_the_pixels_with_the_smallest_numbers_are_chosen(share, most):
    generator = torch.Generator().manual_seed(0)
    candidates = torch.rand(3, 6, 5, generator=generator) > 0.4
    candidates[2] = False
    candidates[2, 0, :2] = True  # too few
    order = torch.rand(3, 30, generator=generator)
    found = sample_pixels(candidates, order, share, most, least=5)
    for image in range(3):
        there = [place for place in range(30) if candidates[image].flatten()[place]]
        wanted = 0 if len(there) < 5 else min(most, math.ceil(round(share * len(there), 9)))
        expected = sorted(there, key=lambda place: float(order[image, place]))[:wanted]
        assert found.places[image][found.chosen[image]].tolist() == expected
        assert found.order[image][found.chosen[image]].tolist() == [float(order[image, place]) for place in expected]


def test_vectors_are_those_at_the_places():
    maps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    places = torch.tensor([[0, 19, 7], [6, 6, 1]])
    found = vectors_at(maps, places)
    for image in range(2):
        for k, place in enumerate(places[image].tolist()):
            assert torch.equal(found[image, k], maps[image, :, place // 5, place % 5])
