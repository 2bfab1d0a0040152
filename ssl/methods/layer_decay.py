"""Parameter groups of a backbone with a learning rate that falls from layer to layer towards the input."""

from collections import defaultdict

from torch import nn

from wildfern.ssl.methods.base import ParameterGroup
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.layer_depth import layer_factors


def layer_decay_groups(backbone: Backbone, decay: float, name: str = "backbone") -> list[ParameterGroup]:
    """One group for each depth of the method's sub-module `name`: `decay` to the number of layers after it, times the rate.

    For `Method.parameter_groups`, beside the groups of heads (DINOv2, Oquab et al., 2023: 0.9). Raises ValueError as
    `layer_depths` does.
    """
    factors = layer_factors(backbone, decay)
    groups: dict[float, list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for inner, parameter in backbone.named_parameters():
        groups[factors[inner]].append((f"{name}.{inner}", parameter))
    return [
        ParameterGroup(groups[factor], name=f"{name}, layer {depth}", learning_rate=factor)
        for depth, factor in enumerate(sorted(groups, reverse=decay > 1))
    ]
