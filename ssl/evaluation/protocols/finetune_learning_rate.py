"""Choice of the learning rate of fine-tuning on images of train that are held out."""

import torch
from torch import Tensor, nn

from wildfern.generators.counter_rng import key
from wildfern.ssl.evaluation.metrics.average_precision import mean_average_precision
from wildfern.ssl.evaluation.protocols.finetune_training import Diverged, FinetuneTraining, TrainImages
from wildfern.ssl.evaluation.stratified import class_ranks


def choose_learning_rate(training: FinetuneTraining, backbone: nn.Module, train: TrainImages) -> tuple[float, str]:
    """The learning rate that is best on the images held out, the lowest of equals, and in words how it was found.

    Judged by accuracy, or by mean average precision of multi-hot labels. A rate that diverges is not chosen. Raises ValueError if
    no labeled image can be held out, and if all rates diverge.
    """
    rates = training.settings.rates
    out = held_out(train, training.settings.parts, key("finetune holdout", training.settings.seed))
    fitted, held = train[~out], train[out]
    multi_label = train.targets.ndim == 2
    if not len(held) or (multi_label and not held.targets.any()):
        raise ValueError(
            f"learning_rate: give one, not {len(rates)} to choose from: no labeled image can be held out, since no class has two"
        )
    judged: dict[float, float] = {}
    for number, rate in enumerate(rates, 1):
        try:
            network, _ = training.train(backbone, fitted, rate, f"learning rate {rate:g} ({number} of {len(rates)}), ")
            logits = training.logits(network, held.images, "held-out images")
        except Diverged:
            continue
        targets = held.targets.cpu()
        if multi_label:
            judged[rate] = mean_average_precision(logits, targets)
        else:
            judged[rate] = int((logits.argmax(1) == targets).sum()) / len(held)
    if not judged:
        words = ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(f"fine-tuning diverged with each learning_rate of {words}: add a lower one")
    best = max(judged, key=lambda rate: judged[rate])
    metric = "mean average precision" if multi_label else "right"
    found = ", ".join(f"{100 * judged[r]:.1f} % with {r:g}" if r in judged else f"diverged with {r:g}" for r in rates)
    return best, f"learning rate {best:g} chosen: {metric} on {len(held)} train images held out {found}"


def held_out(train: TrainImages, parts: int, seed: int) -> Tensor:
    """bool[N]: one of `parts` of each class, never the only image of one. The class of an image with several is the rarest."""
    labels = train.targets
    if labels.ndim == 2:
        rarest = torch.where(labels.bool(), labels.sum(0), torch.inf).argmin(1)
        labels = torch.where(labels.any(1), rarest, train.classes)  # images of none are a class of their own
    _, index, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    return (class_ranks(labels, seed) % parts == 0) & (sizes[index] > 1)
