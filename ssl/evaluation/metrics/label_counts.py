"""How many labeled images a split has, of which classes, and which classes of test no train image has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from wildfern.ssl.evaluation.labeled_chunks import Labels

NAMED = 10  # classes in a message


@dataclass
class LabelCounts:
    """The number of `images`, and the images of each class; -1 (no label) is not a class. Labels are added in parts."""

    images: int = 0
    of_class: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Labels | Tensor) -> "LabelCounts":
        counts = cls()
        counts.add(labels.cpu().numpy() if isinstance(labels, Tensor) else labels)
        return counts

    def add(self, labels: Labels) -> None:
        """Count labels int64[n], or multi-hot uint8[n, K]."""
        self.images += len(labels)
        if labels.ndim == 2:
            counts = labels.sum(0, dtype=np.int64)
            classes = np.flatnonzero(counts)
            counts = counts[classes]
        else:
            classes, counts = np.unique(labels[labels >= 0], return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self.of_class[label] = self.of_class.get(label, 0) + count


def unseen_classes(train: LabelCounts, test: LabelCounts) -> dict[int, int]:
    """The classes of test that no train image has, each with its number of test images."""
    return {label: count for label, count in sorted(test.of_class.items()) if label not in train.of_class}


def class_words(counts: Mapping[int, int], class_names: Sequence[str] | None) -> str:
    """The classes with their test images, at most ten: `fern (3 test images), moss (1)`."""

    def name(label: int) -> str:
        return class_names[label] if class_names is not None and label < len(class_names) else str(label)

    words = [f"{name(label)} ({count})" for label, count in list(counts.items())[:NAMED]]
    first = next(iter(counts.values()))
    words[0] = words[0].removesuffix(")") + f" test image{'s' * (first != 1)})"
    return ", ".join(words) + (f" and {len(counts) - NAMED} more" if len(counts) > NAMED else "")


def unseen_words(train: Labels | Tensor, test: Labels | Tensor, class_names: Sequence[str] | None = None) -> str:
    """What happens to test images of classes without train images, for the detail of a score; "" if there are none.

    With one label per image they count as wrong; with several, these classes get a constant score.
    """
    unseen = unseen_classes(LabelCounts.of(train), LabelCounts.of(test))
    if not unseen:
        return ""
    what = "class without train images has" if len(unseen) == 1 else "classes without train images have"
    if test.ndim == 2:
        return f"{len(unseen)} {what} a constant score: {class_words(unseen, class_names)}"
    share = f"{sum(unseen.values())} of {len(test)} test images"
    return f"counted as wrong, since no train image has their class: {share}, {class_words(unseen, class_names)}"
