"""Random order within each class, as a pure function of a key: the basis of hold-outs and few-shot draws."""

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import fold, uniform


def class_ranks(labels: Tensor, key: int) -> Tensor:
    """Rank int64[N] of each image in the random order of its class: 0 is drawn first.

    The ranks below n select n images of each class that has at least n. The rank is a function of the key, the image's
    position and the labels alone.
    """
    label = labels.cpu().numpy()
    draws = uniform(fold(np.uint64(key), np.arange(len(label))), 1)[:, 0]
    order = np.lexsort((draws, label))
    starts = np.flatnonzero(np.r_[True, np.diff(label[order]) != 0])
    first = np.repeat(starts, np.diff(np.r_[starts, len(label)]))
    ranks = np.empty(len(label), np.int64)
    ranks[order] = np.arange(len(label)) - first
    return torch.from_numpy(ranks).to(labels.device)
