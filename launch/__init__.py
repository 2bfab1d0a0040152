"""The command line, `deepspeed --module wildfern.launch.pretrain`, and both as functions.

from wildfern.launch import pretrain, evaluate
run = pretrain("quickstart", ["training.steps=100"])
print(evaluate(run, on=["digits"]).rows)
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wildfern.launch.evaluating import evaluate
    from wildfern.launch.loaded_backbone import load_backbone
    from wildfern.launch.segmenting import segment
    from wildfern.launch.sweeping import SeriesFailed, score, sweep
    from wildfern.launch.training_run import pretrain

__all__ = ["SeriesFailed", "evaluate", "load_backbone", "pretrain", "score", "segment", "sweep"]


def __getattr__(name: str) -> object:
    """Import torch when a function is first used, so that `wildfern --help` is fast."""
    if name == "pretrain":
        from wildfern.launch.training_run import pretrain

        return pretrain
    if name == "evaluate":
        from wildfern.launch.evaluating import evaluate

        return evaluate
    if name == "load_backbone":
        from wildfern.launch.loaded_backbone import load_backbone

        return load_backbone
    if name == "segment":
        from wildfern.launch.segmenting import segment

        return segment
    if name in ("SeriesFailed", "score", "sweep"):
        from wildfern.launch import sweeping

        return getattr(sweeping, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Launch(ModuleType):
    """Keep `pretrain` the function after the submodule of that name has been imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Launch
