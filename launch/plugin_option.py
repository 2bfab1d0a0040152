"""The option `--plugin` of the commands that look up components by name."""

from typing import Annotated

import typer

from wildfern.registry import load_plugin

PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", help="Python file that registers components; is run; repeat for several", show_default=False
    ),
]


def run_plugins(paths: list[str] | None) -> None:
    """Run plugin files before their components are looked up. Raises PluginError."""
    for path in paths or []:
        load_plugin(path)
