import pytest
import torch

from wildfern.ssl.losses.dice import dice_loss, dice_sums


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 1), (2, 7)])
def test_the_loss_is_that_of_a_loop_over_pixels(shape):
    generator = torch.Generator().manual_seed(3)
    p = torch.rand(shape, generator=generator, dtype=torch.float64)
    t = (torch.rand(shape, generator=generator) > 0.7).double()
    product = predicted = wanted = 0.0
    for a, b in zip(p.flatten().tolist(), t.flatten().tolist(), strict=True):
        product, predicted, wanted = product + a * b, predicted + a, wanted + b
    expected = 1 - (2 * product + 1e-5) / (predicted + wanted + 1e-5)
    assert float(dice_loss(dice_sums(p, t))) == pytest.approx(expected, abs=1e-12)


def test_sums_of_parts_of_a_batch_add_up():
    p, t = torch.rand(4, 6, 6, dtype=torch.float64), (torch.rand(4, 6, 6) > 0.5).double()
    parts = sum(dice_sums(a, b) for a, b in zip(p.split(1), t.split(1), strict=True))
    torch.testing.assert_close(dice_loss(parts), dice_loss(dice_sums(p, t)))


def test_perfect_and_empty_predictions():
    ones, nothing = torch.ones(2, 3, 3), torch.zeros(2, 3, 3)
    assert float(dice_loss(dice_sums(ones, ones))) == pytest.approx(0.0, abs=1e-7)
    assert float(dice_loss(dice_sums(nothing, ones))) == pytest.approx(1.0, abs=1e-5)
    assert float(dice_loss(dice_sums(nothing, nothing))) == pytest.approx(
        0.0, abs=1e-7
    )  # nothing to find, nothing found
