"""A filter learned from marks: logistic regression on features, from some images that a person marked to keep or to drop."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from wildfern.ssl.curation.similar_pairs import finite_rows
from wildfern.ssl.data.base import DataError

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

KEEP, DROP, UNMARKED = 1, 0, -1
FEWEST = 10  # marks of either kind
FOLDS = 5
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn: the inverse of the penalty
MAX_ITERATIONS = 1000


class FilterResult(NamedTuple):
    """Scores float32[N], the probability that an image would be marked to keep, and how good they are on images not learned from.

    - accuracy: the share of held-out marked images on the right side of 0.5; always saying the more frequent mark reaches
      max(n_keep, n_drop) / (n_keep + n_drop). auc: area under the ROC curve, mean over the folds; 0.5 is chance.
    """

    scores: Tensor
    accuracy: float
    auc: float
    n_keep: int
    n_drop: int


def learned_filter(features: Tensor, marks: ArrayLike | Tensor, *, seed: int = 0) -> FilterResult:
    """Scores for all rows of float[N, D], learned from marks int8[N]: 1 keep, 0 drop, -1 unmarked.

    L2-regularized logistic regression on features standardized over all N rows. Its strength has the least log loss in 5-fold
    cross-validation over the marked rows. Accuracy and auc are of an outer 5-fold cross-validation in which each fold chooses its
    own strength, so that choice does not bias them. They hold for images like the marked ones; mark a random sample.

    A function of features, marks and seed. Raises DataError for fewer than 10 marks of either kind, and for features that are not
    finite.
    """
    rows = finite_rows(features)
    marked = marks.numpy(force=True) if isinstance(marks, Tensor) else np.asarray(marks)
    if marked.shape != (len(rows),) or not np.isin(marked, (KEEP, DROP, UNMARKED)).all():
        raise DataError(f"marks must be 1 (keep), 0 (drop) or -1 (unmarked), one for each of {len(rows)} images")
    n_keep, n_drop = int((marked == KEEP).sum()), int((marked == DROP).sum())
    if min(n_keep, n_drop) < FEWEST:
        raise DataError(
            f"a filter needs at least {FEWEST} images marked keep and {FEWEST} marked drop, got {n_keep} and {n_drop}; "
            "mark some more, a random sample of both"
        )
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, torch.ones_like(deviation))  # constant columns
    known = torch.from_numpy(np.flatnonzero(marked != UNMARKED)).to(rows.device)
    x = ((rows[known] - mean) / deviation).double().numpy(force=True)
    y = (marked[marked != UNMARKED] == KEEP).astype(np.int64)

    from sklearn.metrics import roc_auc_score  # scikit-learn takes a second to import

    right, areas = 0, []
    for train, test in _folds(y, seed):
        scores = _fit(x[train], y[train], _best_strength(x[train], y[train], seed)).predict_proba(x[test])[:, 1]
        right += int(((scores > 0.5) == y[test]).sum())
        areas.append(roc_auc_score(y[test], scores))
    model = _fit(x, y, _best_strength(x, y, seed))
    weight = torch.from_numpy(model.coef_[0]).to(rows) / deviation
    bias = float(model.intercept_[0])
    scores_N = torch.cat([((block - mean) @ weight + bias).sigmoid() for block in rows.split(2**16)])
    return FilterResult(scores_N.float(), right / len(y), float(np.mean(areas)), n_keep, n_drop)


def _folds(y: NDArray[np.int64], seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(y, y))


def _best_strength(x: NDArray[np.float64], y: NDArray[np.int64], seed: int) -> float:
    """The strength with the least mean log loss on held-out folds; of equals, the one that regularizes most."""
    folds = _folds(y, seed)
    losses = np.zeros(len(STRENGTHS))
    for train, test in folds:
        sign = np.where(y[test] == KEEP, -1, 1)
        for number, strength in enumerate(STRENGTHS):
            logits = _fit(x[train], y[train], strength).decision_function(x[test])
            losses[number] += np.logaddexp(0, sign * logits).mean()
    return STRENGTHS[int(losses.argmin())]


def _fit(x: NDArray[np.float64], y: NDArray[np.int64], strength: float) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(x, y)
