"""The optimizer's parameter groups: a method's groups, each split into parameters with and without weight decay."""

from collections.abc import Iterable, Sequence

from torch import nn

from wildfern.ssl.methods.base import ParameterGroup
from wildfern.ssl.training.optimizers import Groups


def optimizer_groups(groups: Sequence[ParameterGroup], weight_decay: float) -> Groups:
    """Matrices and kernels with weight decay; vectors and scalars (biases, normalization) without.

    Frozen parameters and empty groups are left out. LARS and LAMB do not scale groups without decay layer by layer either,
    as in SimCLR. Raises ValueError if a parameter is in two groups.
    """
    found: Groups = []
    for group in groups:
        parameters = [p for _, p in group.parameters if p.requires_grad]
        factors = {} if (group.learning_rate, group.weight_decay) == (1.0, 1.0) else _factors(group)
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            decay = weight_decay * group.weight_decay if decays else 0.0
            if chosen:
                found.append({"params": chosen, "weight_decay": decay, "decays": decays, **factors, **group.options})
    _check_disjoint(groups)
    return found


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> Groups:
    """The groups of a single network, without a method."""
    return optimizer_groups([ParameterGroup(list(named))], weight_decay)


def _factors(group: ParameterGroup) -> dict[str, float]:
    return {"lr_factor": group.learning_rate, "weight_decay_factor": group.weight_decay}


def _check_disjoint(groups: Sequence[ParameterGroup]) -> None:
    seen: set[int] = set()
    for group in groups:
        for name, parameter in group.parameters:
            if id(parameter) in seen:
                raise ValueError(f"the parameter {name} is in two parameter groups")
            seen.add(id(parameter))
