"""The console of the commands."""

from rich.console import Console

from wildfern.printable import printable


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


console = _Console()
if console.width < 1:  # COLUMNS=0
    console.width = 80


def say(message: str) -> None:
    """Print a line, which may name files."""
    console.print(printable(message), markup=False, highlight=False, emoji=False, soft_wrap=True)
