"""Plugin files: Python files outside any package that register components when they are run, once.

The code that runs is exactly `content`: byte code is neither written nor read.
"""

import hashlib
import sys
import traceback
from dataclasses import dataclass
from os import PathLike, fspath
from os.path import expanduser  # unlike Path.expanduser, leaves ~ where there is no home
from pathlib import Path
from types import ModuleType


class PluginError(ValueError):
    """A plugin file that cannot be read or run; the message names file, exception and line."""


@dataclass(frozen=True)
class Plugin:
    """A plugin file at the time it was read; `name` is the path as given, `path` the resolved path."""

    name: str
    path: Path
    content: bytes
    sha256: str

    @property
    def module(self) -> str:
        """Its name in sys.modules."""
        return f"wildfern_plugin_{self.sha256[:16]}"

    def is_at(self, path: str | PathLike[str]) -> bool:
        return self.path == Path(expanduser(path)).resolve()


def read_plugin(path: str | PathLike[str]) -> Plugin:
    """Read the file at `path`; raises PluginError if there is none or it is not a Python file."""
    name = fspath(path)
    given = Path(expanduser(name))
    if given.suffix != ".py":
        raise PluginError(f"{name}: a plugin must be a Python file (.py)")
    try:
        content = given.read_bytes()
    except OSError as error:
        raise PluginError(f"{name}: cannot be read: {error.strerror or error}") from None
    return Plugin(name, given.resolve(), content, hashlib.sha256(content).hexdigest())


def execute(plugin: Plugin) -> ModuleType:
    """Run the plugin as a module in sys.modules. Raises PluginError."""
    file = str(plugin.path)
    module = ModuleType(plugin.module)
    module.__file__ = file
    sys.modules[plugin.module] = module
    try:
        exec(compile(plugin.content, file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[plugin.module]
        raise PluginError(f"{plugin.name}: {_said(error, file)}") from error
    return module


def _said(error: BaseException, file: str) -> str:
    """The exception and the line of the file that raised it, as text."""
    if isinstance(error, SyntaxError) and error.filename == file:
        message, line = error.msg, error.lineno
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        message, line = str(error), lines[-1] if lines else None
    return f"{type(error).__name__}: {message}" + (f" (line {line})" if line else "")
