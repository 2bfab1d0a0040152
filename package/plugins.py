"""Plugin files: Python files outside any package, run once, whose components register themselves.

What is run is what was read: no byte code is written or looked for beside the file, and a copy made of `content` is exact.
"""

import hashlib
import sys
import traceback
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType


class PluginError(ValueError):
    """A plugin file that cannot be read or run; the message names file, exception and line."""


@dataclass(frozen=True)
class Plugin:
    """A plugin file as it was when it was read; `name` is the path as it was given, `path` the resolved one."""

    name: str
    path: Path
    content: bytes
    sha256: str

    @property
    def module(self) -> str:
        """Its name in sys.modules."""
        return f"wildfern_plugin_{self.sha256[:16]}"

    def is_at(self, path: str | PathLike[str]) -> bool:
        return self.path == Path(path).expanduser().resolve()


def read_plugin(path: str | PathLike[str]) -> Plugin:
    """The file at `path`; PluginError where there is none or it is no Python file."""
    name = fspath(path)
    given = Path(name).expanduser()
    if given.suffix != ".py":
        raise PluginError(f"{name}: a plugin is a Python file, its name ends in .py")
    try:
        content = given.read_bytes()
    except OSError as error:
        raise PluginError(f"{name}: cannot be read: {error.strerror or error}") from None
    return Plugin(name, given.resolve(), content, hashlib.sha256(content).hexdigest())


def execute(plugin: Plugin) -> ModuleType:
    """Run the plugin as a module of its own, found in sys.modules from then on. Raises PluginError."""
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
    """The exception in words, and the line of the file that it comes from."""
    if isinstance(error, SyntaxError) and error.filename == file:
        message, line = error.msg, error.lineno
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        message, line = str(error), lines[-1] if lines else None
    return f"{type(error).__name__}: {message}" + (f" (line {line})" if line else "")
