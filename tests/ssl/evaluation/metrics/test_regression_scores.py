import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from wildfern.ssl.evaluation.metrics.bootstrap import percentiles, resamples
from wildfern.ssl.evaluation.metrics.regression_scores import regression_scores

METRICS = ["r2", "mean_absolute_error", "root_mean_squared_error", "spearman"]


def predicted(n, targets, seed=0, ties=False):
    """Targets and predictions float64[N, P]; `ties`: of few values."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, targets)) * np.arange(1, targets + 1) + 50
    predictions = y + rng.normal(size=y.shape)
    return (np.round(y), np.round(predictions)) if ties else (y, predictions)


def by_libraries(y, predictions):
    """The four scores of one target."""
    rho = scipy.stats.spearmanr(y, predictions).statistic
    return [r2_score(y, predictions), mean_absolute_error(y, predictions), root_mean_squared_error(y, predictions), rho]


def plain(y, predictions):
    """R², RMSE and ρ of one target, from their formulas: faster for each of 1000 resamples."""
    squares = np.square(y - predictions).mean()
    ranks = scipy.stats.rankdata(y), scipy.stats.rankdata(predictions)
    return [1 - squares / np.var(y), np.sqrt(squares), np.corrcoef(*ranks)[0, 1]]


def mean_r2(y, predictions):
    return (1 - np.square(y - predictions).mean(0) / np.var(y, axis=0)).mean()


@pytest.mark.parametrize("ties", [False, True])
def test_one_target(ties):
    y, predictions = predicted(60, 1, ties=ties)
    scores = regression_scores(y, predictions, ["age"], np.array([7.0]), ["chosen"])
    assert [score.metric for score in scores] == METRICS
    expected = by_libraries(y[:, 0], predictions[:, 0])
    np.testing.assert_allclose([score.value for score in scores], expected, rtol=1e-7)
    indices = np.concatenate(list(resamples(60)))
    drawn = np.array([plain(y[index, 0], predictions[index, 0]) for index in indices])
    for score, draws in zip((scores[0], *scores[2:]), drawn.T, strict=True):
        np.testing.assert_allclose((score.low, score.high), percentiles(draws), rtol=1e-9)
    for score in scores:
        assert (score.n, score.share) == (60, False)
        assert score.detail.startswith("chosen; ")
        assert "95 % interval from 1000 bootstrap resamples of 60 test images" in score.detail
    np.testing.assert_allclose(scores[1].per_image, np.abs(y - predictions)[:, 0], rtol=1e-6)


def test_several_targets_are_averaged_and_have_scores_of_their_own():
    y, predictions = predicted(40, 3)
    spread = np.array([1.0, 2.0, 30.0])
    scores = regression_scores(y, predictions, ["a", "b", "c"], spread, ["x", "y", "z"], "all")
    names = [*METRICS, *(f"{metric} ({name})" for name in "abc" for metric in METRICS)]
    assert [score.metric for score in scores] == names
    each = np.array([by_libraries(*pair) for pair in zip(y.T, predictions.T, strict=True)])
    np.testing.assert_allclose([score.value for score in scores[4:]], each.ravel(), rtol=1e-7)
    each[:, 1:3] /= spread[:, None]
    np.testing.assert_allclose([score.value for score in scores[:4]], each.mean(0), rtol=1e-7)
    drawn = [mean_r2(y[index], predictions[index]) for index in np.concatenate(list(resamples(40)))]
    np.testing.assert_allclose((scores[0].low, scores[0].high), percentiles(np.array(drawn)), rtol=1e-9)
    assert scores[0].detail.startswith("all; mean over 3 targets; errors in standard deviations")
    assert scores[4].detail.startswith("all; x; ")


def test_more_than_ten_targets_have_means_alone():
    y, predictions = predicted(20, 11)
    scores = regression_scores(y, predictions, list("abcdefghijk"), np.ones(11), ["one"] * 11)
    assert [score.metric for score in scores] == METRICS


def test_images_contribute_to_r2_so_that_two_backbones_can_be_compared():
    y, predictions = predicted(2000, 2)
    per_image = regression_scores(y, predictions, ["a", "b"], np.ones(2), ["", ""])[0].per_image
    assert per_image.mean(dtype=np.float64) == pytest.approx(mean_r2(y, predictions), abs=1e-6)
    other = predictions + np.random.default_rng(1).normal(size=y.shape)
    worse = regression_scores(y, other, ["a", "b"], np.ones(2), ["", ""])[0].per_image
    few = next(resamples(2000))[:300]
    drawn = [mean_r2(y[index], predictions[index]) - mean_r2(y[index], other[index]) for index in few]
    linear = [(per_image - worse)[index].mean() for index in few]
    np.testing.assert_allclose(np.std(linear), np.std(drawn), rtol=0.05)
    assert np.corrcoef(linear, drawn)[0, 1] > 0.99


def test_equal_predictions_have_no_rank_correlation():
    y, _ = predicted(30, 1)
    r2, *_, spearman = regression_scores(y, np.full_like(y, 50), ["age"], np.ones(1), [""])
    assert r2.value == pytest.approx(r2_score(y, np.full_like(y, 50)))
    assert (spearman.value, spearman.low, spearman.high) == (0, 0, 0)
    assert "all equal count as 0" in spearman.detail


def test_resamples_without_variance_are_left_out():
    y = np.array([[0.0], [0.0], [0.0], [1.0]])
    r2 = regression_scores(y, y + 0.1, ["age"], np.ones(1), [""])[0]
    constant = sum(len(np.unique(y[index])) == 1 for index in np.concatenate(list(resamples(4))))
    assert f"without {constant} of one value" in r2.detail
    assert np.isfinite([r2.value, r2.low, r2.high]).all()


def test_a_constant_target_is_refused():
    y, predictions = predicted(10, 2)
    y[:, 1] = 4
    with pytest.raises(ValueError, match="all 10 test images have the same height, so that R² is not defined"):
        regression_scores(y, predictions, ["age", "height"], np.ones(2), ["", ""])
