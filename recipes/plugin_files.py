"""The key `plugins`: Python files that register components. Those of `extends`, the file and the command line are joined."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildfern.recipes.errors import COMMAND_LINE, Problem
from wildfern.recipes.wording import shown
from wildfern.recipes.yaml_text import read_argument
from wildfern.registry import PluginError, load_plugin


class PluginFiles:
    """Collects and runs plugin files; `paths` are relative to the working folder, `problems` are their errors."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.problems: list[Problem] = []
        self._not_run: dict[str, str] = {}  # path: who names it

    def add(self, value: Any, writer: str, folder: Path, run: bool = True) -> None:
        """Add the files that `writer` names, relative to `folder`; with `run=False`, without running them."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            self.problems.append(Problem(writer, "plugins", f"must be a list of Python files, got {shown(value)}"))
            return
        for name in names:
            path = os.path.normpath(folder / os.path.expanduser(name))
            if path not in self.paths:
                self.paths.append(path)
            if not run:  # the user may name it again with --plugin
                self._not_run[path] = writer
                continue
            try:
                load_plugin(path)
                self._not_run = {other: by for other, by in self._not_run.items() if not _same(other, path)}
            except PluginError as error:
                self.problems.append(Problem(writer, "plugins", str(error)))

    def require_all(self) -> bool:
        """Add a problem for each file that was named without being run, and not named again; returns whether there are any."""
        for path, writer in self._not_run.items():
            message = "those of a run folder are programs that are not run by themselves"
            self.problems.append(Problem(writer, "plugins", f"{message}: read {path}, then pass --plugin {path}"))
        return bool(self._not_run)

    def take_from(self, overrides: Sequence[str], folder: Path) -> list[str]:
        """Add the plugins of overrides `plugins=[…]`, and return the other overrides."""
        others = []
        for override in overrides:
            key, equals, text = override.partition("=")
            if key.strip().partition(".")[0] != "plugins" or not equals:
                others.append(override)
            elif key.strip() != "plugins":
                self.problems.append(Problem(COMMAND_LINE, key.strip(), "write the whole list: plugins=[my_file.py]"))
            else:
                value, unreadable = read_argument(text, COMMAND_LINE, "plugins")
                self.problems += unreadable
                if not unreadable:
                    self.add(value, COMMAND_LINE, folder)
        return others


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
