"""Distillation of features: regression of standardized features (Romero et al., 2015, eq. 3; Ranzinger et al., 2024)."""

from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def feature_distillation_loss(student: Tensor, teacher: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """‖s/|s| − t/|t|‖² of each row, with t = (teacher − mean)/std; in 0 to 4.

    student, teacher: float[..., D]; mean, std: float[D], of the teacher's features; returns float[...].

    Without the subtraction, features that share a large mean (those after a ReLU) would all have the same direction, and one
    constant output would match most of it. With it, a constant output has a loss of about 2.
    """
    with without_autocast(student):
        s, t = full_precision(student), (full_precision(teacher) - mean) / std
        return (F.normalize(s, dim=-1) - F.normalize(t, dim=-1)).square().sum(dim=-1)
