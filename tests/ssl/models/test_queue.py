"""The queue against a plain list."""

import torch

from wildfern.ssl.models.queue import EmbeddingQueue


def test_it_keeps_the_last_embeddings_as_a_list_would():
    torch.manual_seed(0)
    queue, plain = EmbeddingQueue(7, 3), None
    torch.testing.assert_close(queue.embeddings.norm(dim=1), torch.ones(7))
    plain = list(queue.embeddings.clone())
    for count in (2, 3, 4, 7, 9, 1):
        new = torch.randn(count, 3)
        queue.push(new)
        plain = [*plain, *new][-7:]
        held = torch.roll(queue.embeddings, -int(queue.next), dims=0)  # oldest first
        assert torch.equal(held, torch.stack(plain))
