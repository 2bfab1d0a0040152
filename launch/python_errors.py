"""How `pretrain` and `evaluate` end in a Python program or a notebook: with the message of a command, not with its exit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.launch import interrupts
from wildfern.launch.exit_codes import explained


@contextmanager
def brief_in_notebooks() -> Iterator[None]:
    """A notebook shows errors that the user can fix, and interrupts, by their message, without the traceback of internals.

    An interrupt gets the advice on how to go on, elsewhere as a note. Errors pass unchanged otherwise, and bugs keep their
    traceback. Does nothing in a command, which prints such messages itself.
    """
    if in_command():
        yield
        return
    interrupts.forget_advice()
    try:
        yield
    except KeyboardInterrupt as error:
        text = interrupts.advised()
        error.add_note(text)
        _brief(error, text)
        raise
    except Exception as error:
        _, text = explained(error)
        if text:
            _brief(error, text)
        raise
    finally:
        interrupts.forget_advice()


def in_command() -> bool:
    """Whether this is a command of wildfern, and not a program that imports it."""
    return interrupts.current is not None


def to_resume(run: Path) -> str:
    """How to repeat what was stopped: in the words of the command line in a command, else in those of Python."""
    if in_command():
        # torchrun takes --run for an abbreviation of one of its own options
        option = "--run-folder" if "TORCHELASTIC_RUN_ID" in os.environ else "--run"
        return f"the same command, {option} {run} and --resume"
    return f"the same call, run={str(run)!r} and resume=True"


def _brief(error: BaseException, text: str) -> None:
    """IPython asks an exception for the lines of its traceback."""
    error._render_traceback_ = lambda: [f"{type(error).__name__}: {text}"]  # type: ignore[attr-defined]
