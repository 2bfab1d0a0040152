"""The queue against a plain list."""

import torch

from wildfern.ssl.models.queue import EmbeddingQueue


def test_it_equals_a_list_of_the_last_embeddings():
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


def test_the_queue_may_change_before_the_backward_pass():
    queue, x = EmbeddingQueue(4, 3), torch.randn(2, 3, requires_grad=True)
    loss = (x @ queue().T).square().sum()
    queue.push(x)
    loss.backward()
    assert x.grad.isfinite().all()
