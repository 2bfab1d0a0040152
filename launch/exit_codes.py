"""Exit codes of the commands, and which errors they stand for."""

from wildfern.recipes import RecipeErrors
from wildfern.registry import ComponentError, PluginError

EXIT_CODES = """Exit codes:
  0    done
  1    training failed
  2    invalid command, recipe or data
  75   another process was lost; continue with --resume
  130  stopped by SIGINT (Ctrl-C) after a checkpoint; continue with --resume
  143  the same by SIGTERM, 138 by SIGUSR1

A second signal stops at once, with the same exit code and without a checkpoint."""


def explained(error: Exception) -> tuple[int | None, str]:
    """Exit code and message for expected errors and for those of plugins; (None, "") for bugs, which keep their traceback."""
    from wildfern.launch.cluster.heartbeat import ProcessLost
    from wildfern.launch.errors import RunError, place_in_plugin, plugin_traceback
    from wildfern.launch.training_run import Stopped
    from wildfern.ssl.data import DataError
    from wildfern.ssl.training import NotFinite

    if isinstance(error, Stopped | ProcessLost):
        return error.exit_code, str(error)
    if isinstance(error, NotFinite):
        return 1, str(error)
    if isinstance(error, RecipeErrors | RunError | DataError | PluginError | ComponentError):
        place = place_in_plugin(error.__cause__ or error)
        return 2, f"{error} ({place})" if place else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return 2, f"{error.filename}: {error.strerror}"
    if (text := plugin_traceback(error)) is not None:
        return 1, text
    return None, ""
