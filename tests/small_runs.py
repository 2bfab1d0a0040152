"""Changes that make the quickstart recipe train in a second, and a small part of a data set."""

from types import SimpleNamespace

import pytest

# Two blocks: batch normalization over two ranks takes most of a step of so small a network.
SHALLOW = "model.arguments={layers: [1, 1, 0, 0], channels: [8, 8, 8, 8], stem_width: 64}"
TINY = [
    "data.size=32",
    "data.points=200",
    "views.size=32",
    "model.backbone=resnet18",
    "model.arguments={layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_width: 64}",
    "method.projection_hidden=16",
    "method.projection_size=8",
    "training.batch_size=8",
    "training.log_every=1",
    "training.threads=1",
    "training.device=cpu",
    "evaluation.on=[]",
]


def few_digits(patch: pytest.MonkeyPatch) -> None:
    """Let `digits` be a sixth of the handwritten digits."""
    import sklearn.datasets  # takes a second

    whole = sklearn.datasets.load_digits()
    few = SimpleNamespace(images=whole.images[::6], target=whole.target[::6], target_names=whole.target_names)
    patch.setattr(sklearn.datasets, "load_digits", lambda: few)
