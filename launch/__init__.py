"""Start things: the command line, `deepspeed --module wildfern.launch.pretrain`, and the same as functions.

from wildfern.launch import pretrain, evaluate
run = pretrain("quickstart", ["training.steps=100"])
print(evaluate(run, on=["digits"]).rows)
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wildfern.launch.evaluating import evaluate
    from wildfern.launch.pretraining import pretrain
    from wildfern.launch.run_folder import load_backbone

__all__ = ["evaluate", "load_backbone", "pretrain"]


def __getattr__(name: str) -> object:
    """Import torch and the rest only when a function is asked for, so that `wildfern --help` answers at once."""
    if name == "pretrain":
        from wildfern.launch.pretraining import pretrain

        return pretrain
    if name == "evaluate":
        from wildfern.launch.evaluating import evaluate

        return evaluate
    if name == "load_backbone":
        from wildfern.launch.run_folder import load_backbone

        return load_backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Launch(ModuleType):
    """This package once the launchers' module `pretrain` is imported: the name stays the function's."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Launch
