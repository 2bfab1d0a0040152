"""SwAV's assignments with a queue, its frozen prototypes and what it logs."""

import pytest
import torch
from method_cases import IMAGES, batch, build

from wildfern.ssl.losses import sinkhorn, swapped_prediction
from wildfern.ssl.methods.swav import prototype_use


def test_embeddings_of_earlier_batches_take_part_in_the_assignment():
    method = build("swav", 4)  # from step 2 on
    for step in range(3):
        earlier = [queue() for queue in method.queues]
        with torch.no_grad():
            output = method(batch("swav", step))
        for before, queue in zip(earlier, method.queues, strict=True):
            assert sorted((before == queue()).all(dim=1).tolist()) == [False] * IMAGES + [True] * (12 - IMAGES)
    with torch.no_grad():
        logits = method.embed(batch("swav", 2)).embeddings["logits"]
        queued = [method.prototypes(rows) for rows in earlier]
    losses = [
        swapped_prediction(logits, torch.stack([sinkhorn(rows, 0.05)[:IMAGES] for rows in (first, second)]))
        for first, second in (
            (torch.cat([logits[0], queued[0]]), torch.cat([logits[1], queued[1]])),
            (logits[0], logits[1]),
        )
    ]
    torch.testing.assert_close(output.loss, losses[0])
    assert not torch.allclose(output.loss, losses[1], rtol=1e-6)


def test_prototypes_are_frozen_at_first():
    method = build("swav", 4)
    method.frozen_steps = 2
    gradients = []
    for step in (1, 2):
        method.zero_grad()
        method(batch("swav", step)).loss.backward()
        gradients.append(float(method.prototypes.weight.grad.abs().max()))
    assert gradients[0] == 0 < gradients[1]


@pytest.mark.parametrize(("nearest", "use"), [([[0, 1, 2, 3], [3, 2, 1, 0]], 1.0), ([[2, 2], [2, 2]], 0.25)])
def test_use_of_prototypes(nearest, use):
    logits = torch.nn.functional.one_hot(torch.tensor(nearest), 4).double()
    assert float(prototype_use(logits)) == pytest.approx(use)
