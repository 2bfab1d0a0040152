"""The discriminator of prediction-space adversarial alignment (FreeCOS, Shi et al., ICCV 2023; after Tsai et al., 2018)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class FreezableConv2d(nn.Conv2d):
    """A 4×4 convolution of stride 2 that can pass gradients to its input alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        bias = self.bias
        weight = self.weight
        if frozen:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return self._conv_forward(x, weight, bias)


class Discriminator(nn.Module):
    """Probability maps float[N, 1, S, S] -> logits float[N, 1, ⌊S / 32⌋, ⌊S / 32⌋]; S is at least 32.

    Five 4×4 convolutions of stride 2 with `width`, 2, 4 and 8 times as many, and one channels, and leaky ReLUs of slope 0.2.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 8 * width, 1]
        self.layers = nn.ModuleList(FreezableConv2d(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """With `frozen` only `x` gets a gradient, not the weights."""
        for number, layer in enumerate(self.layers):
            x = layer(F.leaky_relu(x, 0.2) if number else x, frozen)
        return x
