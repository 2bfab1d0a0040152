"""Backward passes that are not differentiable: asked for a gradient of their gradient they raise."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For `Function.backward`: raises RuntimeError under `create_graph=True`.

    torch's `once_differentiable` raises only if the incoming gradient depends on something, which that of a loss does not.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss cannot be differentiated twice: leave out create_graph=True")
        return backward(ctx, *gradients)

    return checked
