import numpy as np
import pytest
import torch
from torch.nn import functional as F
from two_ranks import SmallNet

from wildfern.ssl.losses import CACRLoss, MomentumCACRLoss, NTXentLoss, QueueCACRLoss, row_blocks
from wildfern.ssl.methods import METHODS, Batch


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


def squared(x, y):
    return (x - y).square().sum()


def plain_terms(
    z, alpha=1.0, beta=1.0, tau_pos=1.0, tau_neg=1.0, detach_weights=False, cost="euclidean", rbf_scale=2.0, debias=0.0
):
    """Attraction and repulsion by loops over views and images, for autograd."""

    def weighted(costs, logits):
        weights = logits.softmax(0)
        return ((weights.detach() if detach_weights else weights) * costs).sum()

    views, images, _ = z.shape
    attraction = []
    for x in range(views):
        for i in range(images):
            d = torch.stack([squared(z[x, i], z[k, i]) for k in range(views) if k != x])
            attraction.append(alpha * weighted(d, tau_pos * d))
    repulsion = []
    for x in range(views):
        for y in range(x + 1, views):
            rows = []
            for i in range(images):
                d = torch.stack([squared(z[x, i], z[y, j]) for j in range(images) if j != i])
                if cost == "rbf":
                    potential = (-rbf_scale * d).exp()
                    rows.append(weighted(potential, potential.log() * tau_neg / rbf_scale))
                else:
                    rows.append((weighted(-beta * d, -tau_neg * d) - debias * squared(z[x, i], z[y, i])) / (1 - debias))
            mean = torch.stack(rows).mean()
            repulsion.append(beta * mean.log() if cost == "rbf" else mean)
    return torch.stack(attraction).mean(), torch.stack(repulsion).mean()


FORMS = {
    "plain": {},
    "maximum of a softmax": {"tau_neg": 40.0},
    "uniform": {"tau_pos": 0.0, "tau_neg": 0.0},
    "rbf": {"cost": "rbf"},
    "uniform rbf": {"cost": "rbf", "tau_neg": 0.0, "rbf_scale": 0.7},
    "debiased": {"debias": 0.1},
    "uniform debiased": {"debias": 0.3, "tau_neg": 0.0},
}


@pytest.mark.parametrize(("views", "images"), [(2, 3), (4, 5), (3, 2)])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_pairwise_forms_and_their_gradients_match_the_plain_loop(form, views, images, detach):
    settings = {"alpha": 1.5, "beta": 0.5, "tau_pos": 2.0, "tau_neg": 0.7, "detach_weights": detach} | FORMS[form]
    z = unit_views(views, images, 6).requires_grad_()
    expected = plain_terms(z, **settings)
    terms = CACRLoss(**settings)(z)
    for value, wanted in zip((terms.attraction, terms.repulsion), expected, strict=True):
        torch.testing.assert_close(value, wanted)
        found, gradient = (torch.autograd.grad(3 * x, z, retain_graph=True)[0] for x in (value, wanted))
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_each_side_can_have_uniform_weights(side):
    z, taus = unit_views(3, 4, 5), {"tau_pos": 2.0, "tau_neg": 1.5}
    terms = CACRLoss(**taus, **{f"weighted_{side}": False})(z)
    attraction, repulsion = plain_terms(z, **taus | {f"tau_{side[:3]}": 0.0})
    torch.testing.assert_close(terms.attraction, attraction)
    torch.testing.assert_close(terms.repulsion, repulsion)


@pytest.mark.parametrize("pairs_at_once", [1, 2, 3])
def test_blocks_of_pairs_do_not_change_the_value(pairs_at_once, monkeypatch):
    z = unit_views(4, 6, 5).requires_grad_()
    whole = torch.autograd.grad(CACRLoss()(z).total, z)[0]
    monkeypatch.setitem(row_blocks.BLOCK, "cpu", 36 * pairs_at_once)
    torch.testing.assert_close(torch.autograd.grad(CACRLoss()(z).total, z)[0], whole)


def test_without_gradient_the_value_is_the_same():
    z = unit_views(3, 6, 5)
    torch.testing.assert_close(CACRLoss()(z).total, CACRLoss()(z.requires_grad_()).total, rtol=0, atol=0)


def test_one_positive_is_attracted_uniformly():
    z = unit_views(2, 7, 5)
    plain_mean = (z[0] - z[1]).square().sum(dim=1).mean()
    torch.testing.assert_close(CACRLoss(tau_pos=5.0)(z).attraction, plain_mean)
    torch.testing.assert_close(CACRLoss(tau_pos=0.0)(z).attraction, plain_mean)


def test_detached_weights_leave_the_value_and_change_the_gradient():
    z = unit_views(3, 6, 5).requires_grad_()
    flowing, detached = (CACRLoss(detach_weights=d)(z).total for d in (False, True))
    torch.testing.assert_close(flowing, detached)
    one, other = (torch.autograd.grad(loss, z)[0] for loss in (flowing, detached))
    assert (one - other).abs().max() > 1e-3


def test_tau_zero_gives_plain_means():
    z = unit_views(3, 6, 5)
    distances = (z[:, None, :, None] - z[None, :, None, :]).square().sum(-1)  # [view, view, image, image]
    other, (x, y) = ~torch.eye(6, dtype=torch.bool), torch.triu_indices(3, 3, 1)
    terms = CACRLoss(tau_pos=0.0, tau_neg=0.0)(z)
    torch.testing.assert_close(terms.attraction, distances[x, y].diagonal(dim1=1, dim2=2).mean())
    torch.testing.assert_close(terms.repulsion, -distances[x, y][:, other].mean())


@pytest.mark.parametrize("temperature", [0.02, 0.4])
@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
def test_momentum_form_and_its_gradient_match_the_plain_loop(cost, temperature):
    q, k = 3 * unit_views(3, 5, 4).requires_grad_(), unit_views(1, 5, 4, seed=1)[0].requires_grad_()
    unit = F.normalize(q, dim=-1)
    expected = 0.0
    for n in range(5):
        weights = torch.stack([squared(unit[v, n], k[n]) / temperature for v in range(3)]).softmax(0).detach()
        for v in range(3):
            s = torch.stack([unit[v, n] @ k[j] for j in range(5)])
            own, others = 1 - s[n], 1 - torch.cat([s[:n], s[n + 1 :]])
            if cost == "rbf":
                expected += 2 * temperature * weights[v] * ((s / temperature).logsumexp(0) - s[n] / temperature) / 5
            else:
                expected += weights[v] * (own - ((-others / temperature).softmax(0).detach() * others).sum())
    loss = MomentumCACRLoss(temperature, cost)(q, k)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, q, retain_graph=True), torch.autograd.grad(expected, q))
    assert torch.autograd.grad(loss, k, allow_unused=True) == (None,)


def test_one_query_with_rbf_cost_is_twice_temperature_times_infonce():
    q, k = unit_views(1, 8, 5), unit_views(1, 8, 5, seed=1)[0]
    infonce = F.cross_entropy(q[0] @ k.T / 0.3, torch.arange(8))
    torch.testing.assert_close(MomentumCACRLoss(0.3)(q, k), 2 * 0.3 * infonce)


@pytest.mark.parametrize("within_batch", [False, True])
@pytest.mark.parametrize(("tau_pos", "tau_neg"), [(1.3, 2.0), (0.0, 0.0)])
def test_queue_form_matches_the_plain_loop(within_batch, tau_pos, tau_neg):
    q, k, queue = unit_views(3, 4, 5).requires_grad_(), unit_views(3, 4, 5, seed=1), unit_views(1, 6, 5, seed=2)[0]
    attraction, repulsion = [], []
    for x in range(3):
        for i in range(4):
            d = torch.stack([squared(q[x, i], k[v, i]) for v in range(3) if v != x])
            attraction.append(1.5 * ((tau_pos * d).softmax(0).detach() * d).sum())
            negatives = [*queue, *(q[x, j] for j in range(4) if j != i and within_batch)]
            d = torch.stack([squared(q[x, i], n) for n in negatives])
            repulsion.append(-0.5 * ((-tau_neg * d).softmax(0).detach() * d).sum())
    terms = QueueCACRLoss(1.5, 0.5, tau_pos, tau_neg, within_batch)(q, k, queue)
    for value, rows in ((terms.attraction, attraction), (terms.repulsion, repulsion)):
        wanted = torch.stack(rows).mean()
        torch.testing.assert_close(value, wanted)
        torch.testing.assert_close(torch.autograd.grad(value, q)[0], torch.autograd.grad(wanted, q)[0])


def test_every_view_is_repelled_from_the_queue():
    q, queue = unit_views(3, 4, 5).requires_grad_(), unit_views(1, 6, 5, seed=2)[0]
    QueueCACRLoss(within_batch=False)(q, q.detach(), queue).repulsion.backward()
    assert q.grad.abs().amax(dim=(1, 2)).min() > 1e-3


def test_momentum_cacr_of_two_views_with_rbf_cost_is_half_of_moco_v3():
    q, k, t = unit_views(2, 6, 5), unit_views(2, 6, 5, seed=1), 0.3
    method = METHODS["cacr_momentum"](SmallNet(), 10, temperature=t, projection_hidden=4, projection_size=5)
    own = torch.arange(6)
    moco_v3 = 2 * t * (F.cross_entropy(q[0] @ k[1].T / t, own) + F.cross_entropy(q[1] @ k[0].T / t, own))
    torch.testing.assert_close(method.compare({"queries": q, "keys": k}, 0).loss, moco_v3 / 2)


@pytest.mark.parametrize("keys", ["light", "full"])
def test_momentum_cacr_compares_a_query_with_the_keys_of_the_other_views(keys):
    method = METHODS["cacr_momentum"](SmallNet(), 10, keys=keys, projection_hidden=4, projection_size=5).double()
    method.teacher.module.double()
    groups = [torch.randn(v, 6, 3, 8, 8, dtype=torch.float64) for v in (2, 3)]
    k = method.targets(Batch.from_views(groups))["keys"]
    assert len(k) == {"light": 2, "full": 5}[keys]
    q = unit_views(5, 6, 5)
    expected = [method.loss(torch.cat([q[:v], q[v + 1 :]]), k[v]) for v in range(len(k))]
    torch.testing.assert_close(method.compare({"queries": q, "keys": k}, 0).loss, torch.stack(expected).mean())


def test_the_queue_gets_the_keys_of_the_last_view_in_training_only():
    method = METHODS["cacr_queue"](SmallNet(), 10, queue=6, projection_hidden=4, projection_size=5).double()
    q, k = unit_views(3, 4, 5), unit_views(3, 4, 5, seed=1)
    before = method.queue()
    method.eval().compare({"queries": q, "keys": k}, 0)
    torch.testing.assert_close(method.queue(), before, rtol=0, atol=0)
    loss = method.train().compare({"queries": q, "keys": k}, 0).loss
    torch.testing.assert_close(loss, method.loss(q, k, before).total)
    torch.testing.assert_close(method.queue(), torch.cat([k[-1], before[4:]]), rtol=0, atol=0)


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


@pytest.mark.parametrize("loss", [NTXentLoss(), CACRLoss(), CACRLoss(cost="rbf"), CACRLoss(tau_neg=0.0)])
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
    with pytest.raises(ValueError, match="debias"):
        CACRLoss(debias=1.0)
    with pytest.raises(ValueError, match="no RBF cost"):
        CACRLoss(debias=0.1, cost="rbf")
    with pytest.raises(ValueError, match="rbf_scale"):
        CACRLoss(cost="rbf", rbf_scale=0.0)
    with pytest.raises(ValueError, match="tau_neg"):
        QueueCACRLoss(tau_neg=float("inf"))
    with pytest.raises(ValueError, match=r"queue \[Q ≥ 1, 3\]"):
        QueueCACRLoss()(unit_views(2, 4, 3), unit_views(2, 4, 3), unit_views(1, 4, 5)[0])
    with pytest.raises(ValueError, match="V ≥ 2"):
        CACRLoss()(unit_views(1, 4, 3))
