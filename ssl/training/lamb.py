"""LAMB: Adam whose step for each layer is as long as the layer (You et al., 2020, algorithm 2)."""

import torch
from torch import Tensor


class LAMB(torch.optim.Optimizer):
    """x ← x − η ‖x‖ u/‖u‖ with u = m̂/(√v̂ + ε) + λx, for each weight x; m̂ and v̂ as in Adam, φ the identity.

    Where ‖x‖ or ‖u‖ is 0 the ratio is 1, and likewise in parameter groups with `decays=False` (biases, normalization), as in
    the authors' implementation. Layer-wise: it must see whole weights, not pieces of them.
    """

    def __init__(
        self,
        params: object,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decays": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(weights, group)

    def _step(self, weights: list[Tensor], group: dict) -> None:
        for p in weights:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in weights]
        for state in states:
            state["step"] += 1
        gradients = [p.grad for p in weights]
        beta1, beta2 = group["betas"]
        m, v = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        steps = [s["step"].item() for s in states]
        update = torch._foreach_div(m, [1 - beta1**t for t in steps])
        scale = torch._foreach_sqrt(torch._foreach_div(v, [1 - beta2**t for t in steps]))
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_div_(update, scale)
        torch._foreach_add_(update, weights, alpha=group["weight_decay"])
        if group["decays"]:
            lengths, of_updates = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(update))
            ratio = torch.where((lengths > 0) & (of_updates > 0), lengths / of_updates, 1.0)
            torch._foreach_mul_(update, list(ratio.unbind()))
        torch._foreach_add_(weights, update, alpha=-group["lr"])
