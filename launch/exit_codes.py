"""Exit codes of the commands, and which errors they stand for."""

import sys
from importlib import import_module

from wildfern.launch.limits import reached_limit
from wildfern.launch.torch_pair import broken_import
from wildfern.printable import printable, printable_lines

EXIT_CODES = """Exit codes:
  0    done
  1    training failed (of a series: of at least one run), or memory or another limit of the system was reached
  2    invalid command, recipe, data or installation, or a file that cannot be read or written
  75   another process was lost; continue with --resume
  130  stopped by SIGINT (Ctrl-C), in training after a checkpoint; continue with --resume
  141  standard output is a pipe that nobody reads any more
  143  stopped by SIGTERM, 129 by SIGHUP, 138 by SIGUSR1, like 130

A second signal stops at once, with the same exit code and without a checkpoint."""

STOPPED = "wildfern.launch.training_run.Stopped"
WITH_CODE = (
    STOPPED,
    "wildfern.launch.cluster.heartbeat.ProcessLost",
    "wildfern.launch.sweeping.SeriesFailed",
    "wildfern.launch.sweeping.SeriesStopped",
)
FOR_USERS = (
    "wildfern.launch.errors.RunError",
    "wildfern.ssl.data.DataError",
    "wildfern.registry.PluginError",
    "wildfern.registry.ComponentError",
)


def explained(error: BaseException) -> tuple[int | None, str]:
    """Exit code and message for expected errors and for those of plugins; (None, "") for bugs, which keep their traceback.

    The message is printable, and one line; of a recipe's errors one line each, of a plugin's error its traceback.
    """
    if _is(error, *WITH_CODE):
        return error.exit_code, printable_lines(error)
    if _is(error, "wildfern.ssl.training.NotFinite"):
        return 1, printable(error)
    if _is(error, "wildfern.recipes.RecipeErrors"):
        return 2, "\n".join(map(printable, error.problems)) + _place(error)
    if _is(error, *FOR_USERS):
        return 2, printable(error) + _place(error)
    if (words := reached_limit(error)) is not None:
        return 1, printable(words)
    if (words := broken_import(error)) is not None:
        return 2, printable(words)
    if isinstance(error, OSError) and error.filename is not None:
        return 2, printable(f"{error.filename}: {error.strerror}")
    if (errors := sys.modules.get("wildfern.launch.errors")) and (text := errors.plugin_traceback(error)) is not None:
        return 1, printable_lines(text)
    return None, ""


def is_stop(error: BaseException) -> bool:
    """Whether training has stopped on a signal, on every rank, after a checkpoint."""
    return _is(error, STOPPED)


def _is(error: BaseException, *classes: str) -> bool:
    """Whether the error is of one of these classes. Imports nothing: what is not loaded cannot have raised it."""
    found = (getattr(sys.modules.get(name.rpartition(".")[0]), name.rpartition(".")[2], None) for name in classes)
    return isinstance(error, tuple(one for one in found if one is not None))


def _place(error: BaseException) -> str:
    place = import_module("wildfern.launch.errors").place_in_plugin(error.__cause__ or error)
    return f" ({printable(place)})" if place else ""
