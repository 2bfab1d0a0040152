"""The memory format of views."""

import pytest
import torch

from wildfern.ssl.training.batch_reader import in_layout


@pytest.mark.parametrize("lies_so", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels_last", [True, False])
def test_views_get_the_memory_format_of_the_recipe(lies_so, channels_last):
    views = torch.rand(6, 3, 8, 8).contiguous(memory_format=lies_so).unflatten(0, (2, 3))
    (laid,) = in_layout([views], channels_last)
    assert torch.equal(laid, views)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert laid.flatten(0, 1).is_contiguous(memory_format=wanted)
    assert (laid.data_ptr() == views.data_ptr()) == (lies_so == wanted)  # copied only if needed
