import torch
from torch.nn import functional as F

from wildfern.ssl.losses.seed import seed_loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_matches_the_plain_loop():
    student, teacher, queue = unit(4, 3).requires_grad_(), unit(4, 3, seed=1).requires_grad_(), unit(6, 3, seed=2)
    terms = []
    for n in range(4):
        anchors = [*queue, teacher[n].detach()]
        wanted = torch.stack([teacher[n].detach() @ d / 0.05 for d in anchors]).softmax(0)
        terms.append(-(wanted * torch.stack([student[n] @ d / 0.3 for d in anchors]).log_softmax(0)).sum())
    loss = seed_loss(student, teacher, queue, 0.3, 0.05)
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    loss.backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
