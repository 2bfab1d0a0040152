import torch

from wildfern.ssl.losses.feature_distillation import feature_distillation_loss


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_matches_the_plain_loop():
    student, teacher = rows(2, 5, 3), rows(2, 5, 3, seed=1) + 4
    mean, std = teacher.flatten(0, 1).mean(0), teacher.flatten(0, 1).std(0)
    found = feature_distillation_loss(student, teacher, mean, std)
    for v in range(2):
        for n in range(5):
            t = (teacher[v, n] - mean) / std
            difference = student[v, n] / student[v, n].norm() - t / t.norm()
            torch.testing.assert_close(found[v, n], difference @ difference)


def test_a_constant_output_has_a_loss_of_about_two():
    teacher = rows(4000, 8) + 10
    loss = feature_distillation_loss(torch.ones_like(teacher), teacher, teacher.mean(0), teacher.std(0)).mean()
    assert abs(loss - 2) < 0.05
