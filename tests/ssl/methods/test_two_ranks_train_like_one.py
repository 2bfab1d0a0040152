"""Every method: two ranks with half of each batch train like one rank with the whole batch."""

import pytest
import torch
from forked_ranks import two_ranks_of
from method_cases import CASES, load
from method_ranks import train, worker

from wildfern.ssl.methods import METHODS, Batch


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return two_ranks_of(worker, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_losses_weights_and_buffers_equal_those_of_one_rank(case, two_ranks):
    losses, state = train(case)
    assert len(set(losses.tolist())) == len(losses)
    for rank in two_ranks:
        torch.testing.assert_close(rank[case][0], losses, rtol=1e-9, atol=0)
        torch.testing.assert_close(rank[case][1], state, rtol=1e-6, atol=1e-9)


def test_masks_with_wrong_positions_would_be_detected(two_ranks):
    losses, _ = train("mae")
    assert not torch.allclose(two_ranks[0]["mae, wrong positions"][0], losses, rtol=1e-4)


def test_missing_masks_are_reported():
    load("toy_segmentation")
    with pytest.raises(ValueError, match="needs masks, but no source"):
        METHODS["toy_segmentation"].needs.check_batch(Batch.from_views([torch.zeros(1, 2, 3, 8, 8)]))
