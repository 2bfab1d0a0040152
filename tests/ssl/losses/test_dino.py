import pytest
import torch

from wildfern.ssl.losses import DINOLoss


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("student_views", "teacher_views"), [(2, 2), (6, 2), (3, 1)])
def test_matches_the_plain_loop_of_algorithm_1(student_views, teacher_views):
    student, teacher = logits(student_views, 5, 7), logits(teacher_views, 5, 7, seed=1)
    loss = DINOLoss(7, student_temperature=0.2).double()
    loss.center.copy_(logits(7, seed=2))
    terms = []
    for t in range(teacher_views):
        for s in range(student_views):
            if s == t:
                continue
            for n in range(5):
                target = ((teacher[t, n] - loss.center) / 0.05).softmax(0)
                terms.append(-(target * (student[s, n] / 0.2).log_softmax(0)).sum())
    torch.testing.assert_close(loss(student, teacher, 0.05), torch.stack(terms).mean())


def test_center_moves_towards_the_mean_of_the_teacher():
    loss = DINOLoss(4, center_momentum=0.75)
    loss.update_center(torch.tensor([4.0, 0.0, -4.0, 8.0]))
    torch.testing.assert_close(loss.center, torch.tensor([1.0, 0.0, -1.0, 2.0]))


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(2, 3, 4).requires_grad_(), logits(2, 3, 4, seed=1).requires_grad_()
    DINOLoss(4)(student, teacher, 0.04).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        DINOLoss(4)(logits(2, 3, 4), logits(2, 5, 4), 0.04)
