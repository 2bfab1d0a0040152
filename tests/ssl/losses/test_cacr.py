import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wildfern.ssl.losses import CACRLoss, MomentumCACRLoss, NTXentLoss


def unit_views(views, images, dim, seed=0):
    z = torch.randn(views, images, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=-1)


@pytest.mark.parametrize("case", range(6))
def test_pairwise_form_matches_the_reference_figures(shared, case):
    golden = np.load(shared / "golden" / "cacr_pairwise.npz")
    value = {k.removeprefix(f"case{case}_"): golden[k] for k in golden.files if k.startswith(f"case{case}_")}
    z = torch.tensor(value["z"], requires_grad=True)
    settings = {k: float(value[k]) for k in ("alpha", "beta", "tau_pos", "tau_neg")}
    weighted = {k: bool(value[k]) for k in ("weighted_positive", "weighted_negative")}
    terms = CACRLoss(**settings, **weighted)(z)
    terms.total.backward()
    torch.testing.assert_close(terms.attraction, torch.tensor(value["attraction"]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(terms.repulsion, torch.tensor(value["repulsion"]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(z.grad, torch.tensor(value["grad"]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
@pytest.mark.parametrize("case", range(3))
def test_momentum_form_matches_the_reference_figures(shared, cost, case):
    golden = np.load(shared / "golden" / "cacr_momentum.npz")
    value = {k.removeprefix(f"{cost}{case}_"): golden[k] for k in golden.files if k.startswith(f"{cost}{case}_")}
    q = torch.tensor(value["q"], requires_grad=True)
    loss = MomentumCACRLoss(float(value["temperature"]), cost)(q, torch.tensor(value["k"]))
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(value["loss"]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(q.grad, torch.tensor(value["grad"]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("views", "images"), [(2, 3), (4, 5)])
@pytest.mark.parametrize("detach", [False, True])
def test_pairwise_form_matches_the_plain_loop(views, images, detach):
    z = unit_views(views, images, 6)
    alpha, beta, tau_pos, tau_neg = 1.5, 0.5, 2.0, 0.7
    attraction = repulsion = 0.0
    for x in range(views):
        for i in range(images):
            d = torch.stack([(z[x, i] - z[k, i]).square().sum() for k in range(views) if k != x])
            attraction += alpha * ((tau_pos * d).softmax(0) * d).sum() / (views * images)
    pairs = [(x, y) for x in range(views) for y in range(x + 1, views)]
    for x, y in pairs:
        for i in range(images):
            d = torch.stack([(z[x, i] - z[y, j]).square().sum() for j in range(images) if j != i])
            repulsion -= beta * ((-tau_neg * d).softmax(0) * d).sum() / (len(pairs) * images)
    terms = CACRLoss(alpha, beta, tau_pos, tau_neg, detach_weights=detach)(z)
    torch.testing.assert_close(terms.attraction, attraction)
    torch.testing.assert_close(terms.repulsion, repulsion)


def test_detached_weights_leave_the_value_and_change_the_gradient():
    z = unit_views(3, 6, 5).requires_grad_()
    flowing, detached = (CACRLoss(detach_weights=d)(z).total for d in (False, True))
    torch.testing.assert_close(flowing, detached)
    one, other = (torch.autograd.grad(loss, z)[0] for loss in (flowing, detached))
    assert (one - other).abs().max() > 1e-3


def test_tau_zero_is_the_uniform_weight():
    z = unit_views(3, 6, 5)
    flat = CACRLoss(tau_pos=0.0, tau_neg=0.0)(z)
    unweighted = CACRLoss(weighted_positive=False, weighted_negative=False)(z)
    torch.testing.assert_close(flat.total, unweighted.total)


def test_one_query_with_rbf_cost_is_twice_temperature_times_infonce():
    q, k = unit_views(1, 8, 5), unit_views(1, 8, 5, seed=1)[0]
    infonce = F.cross_entropy(q[0] @ k.T / 0.3, torch.arange(8))
    torch.testing.assert_close(MomentumCACRLoss(0.3)(q, k), 2 * 0.3 * infonce)


@pytest.mark.parametrize(("views", "images", "temperature"), [(2, 3, 0.1), (2, 8, 0.5), (4, 5, 0.2)])
def test_ntxent_matches_the_plain_loop(views, images, temperature):
    z = unit_views(views, images, 7)
    flat = z.flatten(0, 1)
    terms = []
    for i in range(len(flat)):
        others = torch.stack([flat[i] @ flat[k] / temperature for k in range(len(flat)) if k != i])
        for j in range(len(flat)):
            if j != i and j % images == i % images:
                terms.append(others.logsumexp(0) - flat[i] @ flat[j] / temperature)
    torch.testing.assert_close(NTXentLoss(temperature)(z), torch.stack(terms).mean())


@pytest.mark.parametrize("loss", [NTXentLoss(), CACRLoss()])
def test_arithmetic_is_float32_under_autocast(loss):
    z = unit_views(2, 64, 32).float()
    exact = loss(z.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z)
    exact, value = (getattr(v, "total", v) for v in (exact, value))
    assert value.dtype is torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        NTXentLoss(0.0)
    with pytest.raises(ValueError, match="tau_pos"):
        CACRLoss(tau_pos=-1.0)
    with pytest.raises(ValueError, match="cost"):
        MomentumCACRLoss(cost="l2")
    with pytest.raises(ValueError, match="V ≥ 2"):
        CACRLoss()(unit_views(1, 4, 3))
