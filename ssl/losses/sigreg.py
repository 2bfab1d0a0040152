"""SIGReg: random projections of embeddings are compared with a standard normal distribution (Balestriero & LeCun, 2025).

The comparison is the test of Epps & Pulley (1983), T = N ∫ |φ̂(t) − φ(t)|² w(t) dt, with the empirical characteristic function
φ̂(t) = mean_n exp(i t x_n), that of the standard normal distribution φ(t) = exp(−t²/2), and w = φ.
"""

import torch
from torch import Tensor

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def characteristic_function(embeddings: Tensor, directions: Tensor, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """float[..., N, D] and unit columns float[D, M] -> float[2, ..., M, knots]: real and imaginary part of φ̂ of each projection.

    At `knots` equidistant t from 0 to `t_max`; the other half is its conjugate. The mean of several such tensors, of as many
    embeddings each, is that of all embeddings.
    """
    with without_autocast(embeddings):
        z = full_precision(embeddings)
        projected = z @ directions.to(z.dtype)  # [..., N, M]
        angles = [t_max * k / (knots - 1) * projected for k in range(knots)]
        real = [angle.cos().mean(dim=-2) for angle in angles]
        imaginary = [angle.sin().mean(dim=-2) for angle in angles]
        return torch.stack([torch.stack(real, dim=-1), torch.stack(imaginary, dim=-1)])


def epps_pulley(characteristic: Tensor, images: int, t_max: float = 3.0) -> Tensor:
    """The statistic T of φ̂ float[2, ..., knots] of `images` numbers: float[...] ≥ 0, about 0 for a standard normal distribution.

    The integral from −t_max to t_max by the trapezoidal rule. Raises ValueError for fewer than two knots and t_max ≤ 0.
    """
    knots = characteristic.shape[-1]
    if knots < 2 or not t_max > 0:
        raise ValueError(f"expected two or more knots up to t_max > 0, got {knots} up to {t_max}")
    with without_autocast(characteristic):
        found = full_precision(characteristic)
        t = torch.linspace(0, t_max, knots, dtype=found.dtype, device=found.device)
        normal = (-t.square() / 2).exp()
        difference = (found[0] - normal).square() + found[1].square()
        return 2 * images * torch.trapezoid(difference * normal, t, dim=-1)  # twice: the integrand is even
