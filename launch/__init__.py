"""Start things: the command line, `deepspeed --module wildfern.launch.pretrain`, and the same as functions.

from wildfern.launch import pretrain, evaluate
run = pretrain("quickstart", ["training.steps=100"])
print(evaluate(run, on=["digits"]).rows)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wildfern.launch.evaluating import evaluate
    from wildfern.launch.pretraining import pretrain

__all__ = ["evaluate", "pretrain"]


def __getattr__(name: str) -> object:
    """Import torch and the rest only when a function is asked for, so that `wildfern --help` answers at once."""
    if name == "pretrain":
        from wildfern.launch.pretraining import pretrain

        return pretrain
    if name == "evaluate":
        from wildfern.launch.evaluating import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
