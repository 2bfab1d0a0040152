"""The optimizer's parameter groups: a method's groups, each split into parameters with and without weight decay."""

from collections.abc import Callable, Container, Iterable, Sequence
from math import inf

import torch
from torch import nn

from wildfern.generators.options import nearest
from wildfern.registry import OPTIMIZERS
from wildfern.ssl.methods.base import Method, ParameterGroup
from wildfern.ssl.training.optimizers import Groups
from wildfern.ssl.training.several_optimizers import RECIPE, SeveralOptimizers

MakeOptimizer = Callable[[Groups], torch.optim.Optimizer]
FACTORS = {
    "lr": "learning_rate",
    "weight_decay": "weight_decay",
}  # optimizer's option: the field of ParameterGroup for it


def method_optimizer(method: Method, make_optimizer: MakeOptimizer, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of a method's parameter groups; `make_optimizer` makes the recipe's.

    Raises ValueError for anything but a list of groups, if a trainable parameter is in no group or in two, for parameters of
    other modules, for an unknown optimizer or an impossible learning rate of a group, and for options that its optimizer does
    not have.
    """
    groups = checked_groups(method)
    grouped = {id(p) for group in groups for _, p in group.parameters}
    if missing := [name for name, p in method.named_parameters() if p.requires_grad and id(p) not in grouped]:
        raise ValueError(
            f"{_where(method)} leaves out {missing[0]} ({len(missing)} in total): add it to a group, "
            "or set its requires_grad to False"
        )
    frozen = {id(p) for p in method.backbone.parameters()} if method.freeze else set()
    optimizer = grouped_optimizer(groups, make_optimizer, weight_decay, frozen)
    for group in groups:
        _check_options(group, optimizer, _where(method))
    return optimizer


def grouped_optimizer(
    groups: Sequence[ParameterGroup],
    make_optimizer: MakeOptimizer,
    weight_decay: float,
    frozen: Container[int] = frozenset(),
) -> torch.optim.Optimizer:
    """The recipe's optimizer of these groups; if some have their own, `SeveralOptimizers`, the recipe's first.

    Raises ValueError if a parameter is in two groups.
    """
    of_recipe = all(group.optimizer is None for group in groups)
    peak_rate = 0.0 if of_recipe and all(group.rate is None for group in groups) else _recipe_rate(make_optimizer)
    if of_recipe:
        optimizer = make_optimizer(optimizer_groups(groups, weight_decay, frozen, peak_rate))
    else:
        _check_disjoint(groups)
        by_name: dict[str, list[ParameterGroup]] = {RECIPE: []}
        for group in groups:
            by_name.setdefault(group.optimizer or RECIPE, []).append(group)
        own = {"learning_rate": peak_rate, "weight_decay": weight_decay}
        optimizer = SeveralOptimizers(
            {
                name: make_optimizer(made) if name == RECIPE else OPTIMIZERS[name](made, **own)
                for name, chosen in by_name.items()
                if (made := optimizer_groups(chosen, weight_decay, frozen, peak_rate))
            }
        )
    for made in optimizer.param_groups:
        if made.get("constant_rate"):
            made["initial_lr"] = made["lr"]  # in the group, since ZeRO's optimizers hide the defaults
    return optimizer


def own_optimizers(method: Method) -> list[str]:
    """Names of the optimizers that groups of the method have of their own. Raises ValueError, as `method_optimizer` does."""
    return list(dict.fromkeys(group.optimizer for group in checked_groups(method) if group.optimizer is not None))


def optimizer_groups(
    groups: Sequence[ParameterGroup],
    weight_decay: float,
    frozen: Container[int] = frozenset(),
    peak_rate: float = 0.0,
) -> Groups:
    """Matrices and kernels with weight decay; vectors and scalars (biases, normalization) without.

    Parameters whose `id` is in `frozen` are in groups of their own, with the key `frozen`: see `set_hyperparameters`.
    `peak_rate`, the recipe's learning rate, is needed for groups with a `rate`.
    Parameters that need no gradient and empty groups are left out. LARS and LAMB do not scale groups without decay layer by
    layer either, as in SimCLR. Raises ValueError if a parameter is in two groups.
    """
    found: Groups = []
    for group in groups:
        parameters = [p for _, p in group.parameters if p.requires_grad]
        factors: dict[str, float] = {} if (group.learning_rate, group.weight_decay) == (1.0, 1.0) else _factors(group)
        if group.constant_rate:
            factors["constant_rate"] = True  # see `set_hyperparameters`
        if group.rate is not None:
            factors |= {"lr": group.rate, "initial_lr": group.rate, "peak_rate": peak_rate}
        for decays in (True, False):
            decay = weight_decay * group.weight_decay if decays else 0.0
            for held, mark in ((False, {}), (True, {"frozen": True})):
                chosen = [p for p in parameters if (p.ndim > 1) == decays and (id(p) in frozen) == held]
                common = {"weight_decay": decay, "decays": decays, **factors, **mark}
                if chosen:
                    found.append({"params": chosen, **common, **group.options})
    _check_disjoint(groups)
    return found


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> Groups:
    """The groups of a single network, without a method."""
    return optimizer_groups([ParameterGroup(list(named))], weight_decay)


def checked_groups(method: Method) -> list[ParameterGroup]:
    """The method's groups. Raises ValueError for what is not a list of groups of this method's parameters."""
    where = _where(method)
    groups = method.parameter_groups()
    if not isinstance(groups, list | tuple) or not all(isinstance(group, ParameterGroup) for group in groups):
        raise ValueError(f"{where} must return a list of ParameterGroup, got {type(groups).__name__}")
    own = {id(parameter) for parameter in method.parameters()}
    for group in groups:
        group.parameters = _pairs(group.parameters, where)
        if foreign := [name for name, parameter in group.parameters if id(parameter) not in own]:
            raise ValueError(f"{where} names {foreign[0]}, which is not a parameter of the method")
        for factor in FACTORS.values():
            value = getattr(group, factor)
            if not isinstance(value, int | float) or not 0 <= value < inf:
                raise ValueError(f"{where}: the factor {factor} must be a number of at least 0, got {value!r}")
        _check_rate(group, where)
        name = group.optimizer
        if name is not None and (not isinstance(name, str) or name not in OPTIMIZERS):
            raise ValueError(f"{where}: unknown optimizer {name!r}: {nearest(name, list(OPTIMIZERS))}")
    return list(groups)


def _check_rate(group: ParameterGroup, where: str) -> None:
    rate = group.rate
    if rate is None:
        return
    if not isinstance(rate, int | float) or not 0 < rate < inf:
        raise ValueError(f"{where}: rate must be a finite number above 0, got {rate!r}")
    if group.learning_rate != 1:
        raise ValueError(
            f"{where} sets rate {rate:g} and the factor learning_rate {group.learning_rate:g} of one group: rate is the learning "
            "rate itself, set one of the two"
        )


def _check_options(group: ParameterGroup, optimizer: torch.optim.Optimizer, where: str) -> None:
    """Raise ValueError for options that the schedule changes, or that the group's optimizer does not have."""
    if isinstance(optimizer, SeveralOptimizers):
        name = group.optimizer or RECIPE
        if name not in optimizer.optimizers:
            return  # all its parameters are frozen
        optimizer = optimizer.optimizers[name]
    for name in group.options:
        if name in FACTORS:
            instead = f"rate or its factor {FACTORS[name]}" if name == "lr" else f"factor {FACTORS[name]}"
            raise ValueError(
                f"{where} sets the option {name}, which the schedule changes: use the group's {instead} instead"
            )
        if name not in optimizer.defaults:
            raise ValueError(
                f"{where} sets {name}, which {type(optimizer).__name__} does not have; it has "
                f"{', '.join(sorted(optimizer.defaults))}"
            )


def _recipe_rate(make_optimizer: MakeOptimizer) -> float:
    """The recipe's learning rate, which its optimizer gives to its groups."""
    group = {"params": [nn.Parameter(torch.zeros(1, device="cpu"))], "weight_decay": 0.0, "decays": False}
    return make_optimizer([group]).param_groups[0]["lr"]


def _where(method: Method) -> str:
    return f"{type(method).__name__}.parameter_groups()"


def _pairs(parameters: object, where: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a group as a list, which an iterator such as `named_parameters()` becomes."""
    pairs = list(parameters) if isinstance(parameters, Iterable) else [parameters]
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], nn.Parameter):
            raise ValueError(
                f"{where}: the parameters of a group are pairs (name, parameter), such as those of named_parameters(), got "
                f"{type(pair).__name__}"
            )
    return pairs


def _factors(group: ParameterGroup) -> dict[str, float]:
    return {"lr_factor": group.learning_rate, "weight_decay_factor": group.weight_decay}


def _check_disjoint(groups: Sequence[ParameterGroup]) -> None:
    seen: set[int] = set()
    for group in groups:
        for name, parameter in group.parameters:
            if id(parameter) in seen:
                raise ValueError(f"the parameter {name} is in two parameter groups")
            seen.add(id(parameter))
