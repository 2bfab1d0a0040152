"""What the paper of a method trains with. A recipe that departs from it gets a message, not an error."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Usual:
    """The optimizer, schedule and batch of a method's paper; what is left out may be anything.

    optimizers: names of optimizers; of vision transformers only with `only_transformers`.
    warmup, weight_decay: whether the learning rate is warmed up, and whether the weight decay is above 0.
    beta2: of Adam.
    batch_size: images of a batch, below which the method has too few to compare.
    source: paper and section, for messages.
    """

    source: str
    optimizers: tuple[str, ...] = ()
    only_transformers: bool = False
    warmup: bool = False
    weight_decay: bool = False
    beta2: float | None = None
    batch_size: int = 1


@dataclass(frozen=True)
class UsualRates:
    """Learning rates and batches that an optimizer is used with in self-supervised learning; `source` as above."""

    source: str
    least: float = 0.0
    most: float = float("inf")
    batch_size: int = 1
