"""What labels of train and test must be like, and the note on classes that train lacks."""

from collections.abc import Sequence

import numpy as np

from wildfern.ssl.evaluation.labeled_chunks import Labels
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts, class_words, unseen_classes


def check_labels(dataset: str, train: Labels, test: Labels) -> None:
    """Raise ValueError if nothing can be learned from these labels, without those of unlabeled images."""
    for split, labels in (("train", train), ("test", test)):
        if not len(labels):
            raise ValueError(f"{dataset} ({split}): no image has a label")
    if train.shape[1:] != test.shape[1:]:
        kinds = [
            f"labels of {y.shape[1]} classes, multi-hot" if y.ndim == 2 else "one label each" for y in (train, test)
        ]
        raise ValueError(f"{dataset}: images of train have {kinds[0]}, those of test {kinds[1]}; both must be alike")
    if train.ndim == 1 and len(np.unique(train)) < 2:
        raise ValueError(f"{dataset} (train): all labeled images are of one class; at least two are needed")
    if train.ndim == 2 and (train == train[0]).all():
        raise ValueError(f"{dataset} (train): all images have the same labels; at least two kinds are needed")
    if test.ndim == 2 and not test.any():
        raise ValueError(f"{dataset} (test): no image has any of the {test.shape[1]} classes")


def unseen_note(train: LabelCounts, test: LabelCounts, class_names: Sequence[str] | None) -> list[str]:
    unseen = unseen_classes(train, test)
    if not unseen:
        return []
    one = len(unseen) == 1
    return [
        f"{len(unseen)} class{'' if one else 'es'} of test {'has' if one else 'have'} no train image: "
        f"{class_words(unseen, class_names)}"
    ]
