import numpy as np
import pytest
import torch
from scipy import stats

from wildfern.ssl.augmentation.mixing import MixingTable, cut_boxes, cutmix, draw_mixing, mix, mixup, soft_targets


def images(n=6, height=12, width=15, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mixing_against_plain_loops():
    x, labels = images(16), torch.arange(16) % 5
    table = draw_mixing(2, 1, np.arange(16), 0, group=16, mixup_alpha=0.8, cutmix_alpha=1.0, p=0.8)
    mixed, targets = mix(x, labels, table, 5)
    boxes = cut_boxes(table.weight, table.center, 12, 15)
    assert (table.weight == 1).any()
    assert 0 < table.cut.sum() < 16
    for i in range(16):
        other, share = int(table.partner[i]), float(table.weight[i])
        expected = share * x[i] + (1 - share) * x[other]
        if table.cut[i]:
            expected = x[i].clone()
            top, left, height, width = boxes[i]
            for row in range(top, top + height):
                for column in range(left, left + width):
                    expected[:, row, column] = x[other, :, row, column]
            share = 1 - height * width / (12 * 15)
        torch.testing.assert_close(mixed[i], expected)
        soft = torch.zeros(5)
        soft[labels[i]] += share
        soft[labels[other]] += 1 - share
        torch.testing.assert_close(targets[i], soft)


def test_boxes_are_those_of_the_published_rule():
    rng = np.random.default_rng(0)
    weight, center = rng.random(300), rng.random((300, 2))
    weight[:2] = 0, 1
    for (top, left, height, width), share, (v, u) in zip(
        cut_boxes(weight, center, 20, 31), weight, center, strict=True
    ):
        rows, columns = int(20 * np.sqrt(1 - share)), int(31 * np.sqrt(1 - share))
        middle_v, middle_u = int(20 * v), int(31 * u)
        assert top == max(middle_v - rows // 2, 0)
        assert left == max(middle_u - columns // 2, 0)
        assert top + height == min(middle_v + rows // 2, 20)
        assert left + width == min(middle_u + columns // 2, 31)


def test_distributions():
    n = 12_000
    table = draw_mixing(7, 0, np.arange(n), 0, group=n, mixup_alpha=0.4, cutmix_alpha=1.5, cutmix_share=0.3, p=0.9)
    mixed = table.weight < 1
    assert abs(mixed.mean() - 0.9) < 0.01
    assert abs(table.cut[mixed].mean() - 0.3) < 0.015
    assert stats.kstest(table.weight[mixed & ~table.cut], stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(table.weight[mixed & table.cut], stats.beta(1.5, 1.5).cdf).pvalue > 1e-3
    for axis in range(2):
        assert stats.kstest(table.center[:, axis], stats.uniform.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(np.sort(table.partner), np.arange(n))
    assert abs(np.corrcoef(table.partner, np.arange(n))[0, 1]) < 0.03
    assert stats.chisquare(np.bincount(table.partner[::100] * 10 // n, minlength=10)).pvalue > 1e-3


def test_ranks_that_hold_whole_groups_mix_as_one_process():
    x, labels = images(24), torch.arange(24)
    table = draw_mixing(1, 4, np.arange(24), 0, group=4)
    whole = mix(x, labels, table, 24)
    for rank in range(3):
        own = slice(8 * rank, 8 * rank + 8)
        part = mix(x[own], labels[own], draw_mixing(1, 4, np.arange(24)[own], 0, group=4), 24)
        torch.testing.assert_close(part[0], whole[0][own])
        torch.testing.assert_close(part[1], whole[1][own])
    assert (table.partner // 4 == np.arange(24) // 4).all()
    for seed, step, view in ((2, 4, 0), (1, 5, 0), (1, 4, 1)):
        assert not np.array_equal(draw_mixing(seed, step, np.arange(24), view, group=4).weight, table.weight)


@pytest.mark.parametrize(
    ("arguments", "cut"), [({"mixup_alpha": 0}, True), ({"cutmix_alpha": 0}, False), ({"cutmix_share": 0.0}, False)]
)
def test_only_mixup_or_only_cutmix(arguments, cut):
    table = draw_mixing(0, 0, np.arange(40), 0, group=40, **arguments)
    assert (table.cut == cut).all()
    assert (table.weight < 1).all()
    none = draw_mixing(0, 0, np.arange(40), 0, group=40, mixup_alpha=0, cutmix_alpha=0)
    assert (none.weight == 1).all()


def test_without_mixing_the_batch_is_unchanged():
    x = images(8)
    mixed, targets = mix(x, torch.arange(8), draw_mixing(0, 0, np.arange(8), 0, group=8, p=0.0), 8)
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.eye(8))


def test_functions_alone():
    x, partner = images(4), torch.tensor([1, 0, 3, 2])
    torch.testing.assert_close(mixup(x, partner, torch.full((4,), 0.25)), 0.25 * x + 0.75 * x[partner])
    whole = torch.tensor([[0, 0, 12, 15]] * 2 + [[3, 4, 0, 5]] * 2)
    assert torch.equal(cutmix(x, partner, whole), torch.cat([x[partner][:2], x[2:]]))


def test_targets_of_several_classes():
    many = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.uint8)
    assert torch.equal(soft_targets(many, 3), many.float())
    table = MixingTable(np.array([1, 0]), np.array([0.25, 1.0]), np.zeros(2, bool), np.zeros((2, 2)))
    targets = mix(images(2), many, table, 3)[1]
    torch.testing.assert_close(targets, torch.tensor([[0.25, 0.75, 0.25], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.2}, "p must be a probability"),
        ({"cutmix_share": -0.1}, "cutmix_share"),
        ({"mixup_alpha": -1}, "mixup_alpha must be 0 or more"),
        ({"group": 5}, "whole groups of 5"),
        ({"group": 0}, "whole groups of 0"),
        ({"positions": np.arange(2, 10), "group": 4}, "from a multiple of 4"),
        ({"positions": np.arange(8)[::-1], "group": 8}, "in order"),
    ],
)
def test_impossible_draws(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_mixing(**{"seed": 0, "step": 0, "positions": np.arange(8), "view": 0, "group": 4, **arguments})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(8), "0 to 7, but classes are 0 to 4"),
        (torch.zeros(8, 4), r"got \[8, 4\]"),
        (torch.zeros(7, dtype=torch.long), "numbers differ: 8 images, 7 labels"),
    ],
)
def test_impossible_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        mix(images(8), labels, draw_mixing(0, 0, np.arange(8), 0, group=8), 5)
