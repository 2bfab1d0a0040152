"""Losses over many images: in blocks of rows, and in parts of the images, they are the same as in one piece."""

import pytest
import torch
from loss_cases import CASES, unit, whole_info_nce, whole_ntxent, whole_queue_info_nce, whole_rbf

from wildfern.ssl.losses import CACRLoss, NTXentLoss, info_nce, queue_info_nce, row_blocks
from wildfern.ssl.losses.log_sum_exp import log_sum_exp, softmax_mean
from wildfern.ssl.losses.nearest import nearest

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def two_rows_at_once(monkeypatch):
    monkeypatch.setitem(row_blocks.BLOCK, "cpu", 1)
    monkeypatch.setattr(row_blocks, "FEWEST_ROWS", 2)


def gradients(value, inputs):
    return torch.autograd.grad(value, [x for x in inputs if x.requires_grad], retain_graph=True)


def test_blocks_are_all_rows_and_of_bounded_size():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for rows, columns, device, most in ((5000, 4096, cpu, 2**18), (100, 10**6, cpu, 64 * 10**6), (9, 3, gpu, 2**24)):
        blocks = row_blocks.row_blocks(rows, columns, device)
        assert [i for block in blocks for i in range(rows)[block]] == list(range(rows))
        assert max(block.stop - block.start for block in blocks) * columns <= most
    assert row_blocks.row_blocks(0, 4, cpu) == []


@each_case
def test_blocks_of_rows_change_neither_value_nor_gradient(case, request):
    loss, inputs = CASES[case].loss, CASES[case].inputs()
    whole = loss(*inputs)
    expected = gradients(whole, inputs)
    request.getfixturevalue("two_rows_at_once")
    blocks = loss(*inputs)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(blocks, inputs), expected, rtol=1e-10, atol=1e-12)


@each_case
def test_parts_of_unequal_size_have_the_sum_of_the_loss(case):
    loss, inputs = CASES[case].loss, CASES[case].inputs()
    whole = loss(*inputs)
    parts = [loss(*inputs, rows=rows) for rows in (slice(0, 3), slice(3, 3), slice(3, 7))]
    assert all(part.requires_grad for part in parts)  # so that a rank without images joins the backward pass
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(torch.stack(parts).sum(), inputs), gradients(whole, inputs), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.exact])
def test_gradients_are_those_of_finite_differences(case, two_rows_at_once):
    loss, inputs = CASES[case].loss, CASES[case].inputs(images=5, dim=3)
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("temperature", [0.002, 0.1, 7.0])
def test_contrastive_losses_match_whole_matrices_at_any_temperature(temperature, two_rows_at_once):
    z, q, k, queue = unit(3, 33, 8), unit(33, 8, seed=1), unit(33, 8, seed=2), unit(50, 8, seed=3)
    pairs = [
        (NTXentLoss(temperature), whole_ntxent, [z]),
        (lambda *given: info_nce(*given, temperature), whole_info_nce, [q, k]),
        (lambda *given: queue_info_nce(*given, temperature), whole_queue_info_nce, [q, k, queue]),
    ]
    for ours, plain, inputs in pairs:
        for x in inputs:
            x.requires_grad_()
        found, expected = ours(*inputs), plain(*inputs, temperature)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs), rtol=1e-9, atol=1e-10)
        short = [x.detach().float().requires_grad_() for x in inputs]
        value = ours(*short)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=3e-6 / temperature)
        assert all(x.isfinite().all() for x in gradients(value, short))


def test_long_embeddings_do_not_overflow():
    z = (100 * unit(2, 9, 8).float()).requires_grad_()
    loss = NTXentLoss(0.05)(z)
    torch.testing.assert_close(loss.double(), whole_ntxent(z.detach().double(), 0.05), rtol=1e-5, atol=0)
    assert gradients(loss, [z])[0].isfinite().all()


def test_rbf_cost_matches_whole_matrices(two_rows_at_once):
    z = unit(4, 21, 6).requires_grad_()
    found, expected = CACRLoss(cost="rbf")(z).repulsion, whole_rbf(z)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, [z]), gradients(expected, [z]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("scale", "unit_rows"), [(2.0, False), (2.0, True), (90.0, True)])
def test_weighted_log_sum_exp_and_mean_match_the_plain_loop(scale, unit_rows, two_rows_at_once):
    q, k, further, weights = unit(5, 3), unit(6, 3, seed=1), unit(5, 3, seed=2), torch.rand(5, dtype=torch.float64)
    inputs, without = [x.requires_grad_() for x in (q, k, further)], torch.tensor([4, 0, 0, 5, 2])
    options = {"without": without, "further": further, "unit_rows": unit_rows}
    values, means = [], []
    for i in range(5):
        rows = torch.stack([*(k[j] for j in range(6) if j != without[i]), further[i]])
        values.append(weights[i] * torch.stack([scale * q[i] @ row for row in rows]).logsumexp(0))
        means.append(torch.stack([scale * q[i] @ row for row in rows]).softmax(0) @ rows)
    found, expected = log_sum_exp(q, k, scale, weights=weights, **options), torch.stack(values).sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs))
    torch.testing.assert_close(softmax_mean(q, k, scale, **options), torch.stack(means).detach())


def test_nearest_key_matches_the_plain_loop(two_rows_at_once):
    q, k = unit(7, 3), unit(9, 3, seed=1)
    for without in (None, torch.arange(7)):
        for i, found in enumerate(nearest(q, k, without)):
            others = [j for j in range(9) if without is None or j != i]
            assert found == max(others, key=lambda j, i=i: float(q[i] @ k[j]))


def test_rows_that_do_not_fit_are_refused():
    z = unit(2, 5, 3)
    with pytest.raises(ValueError, match="rows must be consecutive images, without a step"):
        NTXentLoss()(z, rows=slice(0, 5, 2))
    with pytest.raises(ValueError, match="needs sum_over_parts: its logarithm is that of the mean over all images"):
        CACRLoss(cost="rbf")(z, rows=slice(0, 2))


@pytest.mark.parametrize("cost", ["euclidean", "rbf"])
def test_gradients_of_nearly_equal_embeddings_are_not_rounding_errors(cost):
    """Those of a network that was not trained yet: differences of a thousandth."""
    z = torch.nn.functional.normalize(unit(1, 1, 16) + 1e-3 * unit(3, 40, 16, seed=1), dim=-1).float()
    found, expected = (
        gradients(CACRLoss(cost=cost)(x).repulsion, [x])[0]
        for x in (z.clone().requires_grad_(), z.double().requires_grad_())
    )
    assert (found - expected).norm() < 1e-5 * expected.norm()
