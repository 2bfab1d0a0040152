import numpy as np
import pytest
import scipy.stats

from wildfern.ssl.evaluation.metrics.bootstrap import difference_interval, mean_interval, resamples, statistic_interval
from wildfern.ssl.evaluation.metrics.classification_scores import wilson_interval
from wildfern.ssl.evaluation.metrics.paired_differences import NO_DIFFERENCE, add_difference_intervals, draws_interval


def test_the_interval_is_that_of_a_plain_bootstrap():
    values = np.random.default_rng(0).normal(3.0, 2.0, 150)
    rng = np.random.default_rng(1)
    means = [values[rng.integers(150, size=150)].mean() for _ in range(4000)]
    np.testing.assert_allclose(mean_interval(values), np.quantile(means, (0.025, 0.975)), atol=0.05)


def test_two_values_are_drawn_as_counts_and_agree_with_wilson():
    right = np.arange(400) < 300
    low, high = mean_interval(right)
    np.testing.assert_allclose((low, high), wilson_interval(300, 400), atol=0.006)
    assert low * 400 == pytest.approx(round(low * 400), abs=0.5)


def test_a_paired_interval_is_narrower_than_one_of_independent_images():
    rng = np.random.default_rng(0)
    easy = rng.random(500)
    first, second = (rng.random(500) < easy * 0.2 + shift + 0.6 * (easy > 0.5) for shift in (0.1, 0.05))
    low, high = difference_interval(first, second)
    assert low <= first.mean() - second.mean() <= high
    independent = np.hypot(np.subtract(*mean_interval(first)), np.subtract(*mean_interval(second)))
    assert high - low < independent
    assert difference_interval(first, first) == (0.0, 0.0)


def test_the_resamples_depend_on_the_number_of_images_alone():
    first, again = (np.concatenate(list(resamples(37, 20))) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (20, 37)
    assert 0 <= first.min() < first.max() <= 36


def test_a_statistic_is_resampled_and_its_undefined_resamples_are_left_out():
    values = np.random.default_rng(2).normal(size=80)
    low, high = statistic_interval(lambda index: values[index].mean(), 80)
    np.testing.assert_allclose((low, high), mean_interval(values), atol=0.03)
    rare = np.arange(4) == 0
    found = statistic_interval(lambda index: float(rare[index].sum()) if rare[index].any() else float("nan"), 4)
    assert found[0] == 1.0
    assert statistic_interval(lambda index: 1.0 if rare[index].any() else float("nan"), 4) == (None, None)
    assert statistic_interval(lambda index: float("nan"), 4) == (None, None)


def test_one_image_has_no_interval_and_values_must_be_numbers_of_the_same_images():
    assert mean_interval([1.0]) == mean_interval([1.0] * 50) == (None, None)
    assert difference_interval([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) == (None, None)
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, np.nan])
    with pytest.raises(ValueError, match="got 2 and 3"):
        difference_interval([1, 2], [1, 2, 3])


def test_differences_are_added_to_rows_that_have_what_each_image_contributes():
    def row(backbone, metric="accuracy", share=True):
        return {"protocol": "knn", "backbone": backbone, "metric": metric, "share": share, **NO_DIFFERENCE}

    first, second = np.tile([1.0, 0.0, 1.0, 1.0], 30), np.tile([1.0, 0.0, 0.0, 0.0], 30)
    per_image = {
        ("knn", "mine", "accuracy"): first,
        ("knn", "random", "accuracy"): second,
        ("knn", "mine", "error"): first,
        ("knn", "random", "error"): second,
        ("knn", "mine", "other"): first,
        ("knn", "random", "other"): second[1:],
    }
    rows = [row("random"), row("mine"), row("mine", "error", share=False), row("mine", "other"), row("mine", "none")]
    add_difference_intervals(rows, per_image, "random")
    low, high = difference_interval(first, second)
    assert (rows[1]["difference_low"], rows[1]["difference_high"]) == (100 * low, 100 * high)
    assert (rows[2]["difference_low"], rows[2]["difference_high"]) == (low, high)
    assert [one["difference_low"] for one in (rows[0], *rows[3:])] == [None, None, None]
    alone = [row("mine")]
    add_difference_intervals(alone, per_image, {})
    assert alone[0]["difference_low"] is None


def test_differences_over_draws_are_those_of_a_paired_t_test():
    own, theirs = (0.50, 0.61, 0.55, 0.58, 0.49), (0.45, 0.60, 0.47, 0.55, 0.48)
    low, high = draws_interval(own, theirs)
    expected = scipy.stats.ttest_rel(own, theirs).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert draws_interval(own, own) == (0.0, 0.0)
    assert draws_interval((0.5,), (0.4,)) == (None, None)
    assert draws_interval((0.5, 0.75), (0.25, 0.5)) == (None, None)  # all differences alike say nothing of others


def test_scores_with_draws_are_paired_over_these_where_both_have_them():
    rows = [
        {"protocol": "few_shot", "backbone": name, "metric": "accuracy", "share": True, **NO_DIFFERENCE}
        for name in ("random", "mine")
    ]
    keys = [("few_shot", name, "accuracy") for name in ("random", "mine")]
    images = dict(zip(keys, np.float32([[0, 1, 0, 1], [1, 1, 0, 1]]), strict=True))
    draws = dict(zip(keys, [(0.45, 0.60, 0.47), (0.50, 0.61, 0.55)], strict=True))
    add_difference_intervals(rows, images, "random", draws)
    low, high = draws_interval(draws[keys[1]], draws[keys[0]])
    assert rows[0]["difference_low"] is None
    assert (rows[1]["difference_low"], rows[1]["difference_high"]) == (100 * low, 100 * high)
    add_difference_intervals(rows, images, "random", {keys[1]: draws[keys[1]]})
    low, high = difference_interval(images[keys[1]], images[keys[0]])
    assert (rows[1]["difference_low"], rows[1]["difference_high"]) == (100 * low, 100 * high)
