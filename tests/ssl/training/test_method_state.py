"""State that a checkpoint could not restore is refused."""

import pytest
import torch
from torch import nn

from wildfern.ssl.methods import Method
from wildfern.ssl.training.method_state import FixedState, check_state


class Stateful(Method):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(3))


def test_values_may_change():
    method = Stateful()
    state = FixedState(method)
    method.seen += 1
    method.seen = torch.ones(3)
    state.check()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: setattr(m, "late", nn.Parameter(torch.zeros(1))), r"late \(1 in total\)"),
        (lambda m: setattr(m, "seen", torch.zeros(4)), r"seen \(1 in total\)"),
        (lambda m: delattr(m, "head"), r"head\.bias \(2 in total\)"),
        (lambda m: m.add_teacher("slow", ["head"], lambda step: 0.9), r"slow\..*bias \(2 in total\)"),
    ],
)
def test_new_resized_and_removed_state_is_named(change, named):
    method = Stateful()
    state = FixedState(method)
    change(method)
    with pytest.raises(ValueError, match=f"Stateful has changed .* its state while training: {named}"):
        state.check()


def test_lazy_modules_and_extra_state_are_refused():
    method = Stateful()
    method.head = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"Stateful: head\.weight has no shape yet"):
        check_state(method)
    method.head = nn.Linear(2, 2)

    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"count": 1}

    method.head = Counting(2, 2)
    with pytest.raises(ValueError, match=r"Stateful: head\._extra_state \(from get_extra_state\) cannot be saved"):
        check_state(method)
