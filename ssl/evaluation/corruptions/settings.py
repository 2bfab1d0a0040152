"""The corruptions by name, each with the numbers of its severities."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wildfern.generators.counter_rng import Keys

Operation = Callable[[Tensor, Any, Keys], Tensor]


class Corruption(NamedTuple):
    """An operation (images, numbers, keys), and its numbers for severities 1 to 5."""

    operation: Operation
    large: Sequence[Any]  # of make_imagenet_c.py
    small: Sequence[Any]  # of make_cifar_c.py
    rgb: bool
    gray: bool


CORRUPTIONS: dict[str, Corruption] = {}


def corruption(
    *, large: Sequence[Any], small: Sequence[Any], rgb: bool = False, gray: bool = True
) -> Callable[[Operation], Operation]:
    """Registers an operation under its name, with its numbers; `rgb`: it mixes three channels; not `gray`: it colors gray."""

    def register(operation: Operation) -> Operation:
        CORRUPTIONS[operation.__name__] = Corruption(operation, large, small, rgb, gray)
        return operation

    return register
