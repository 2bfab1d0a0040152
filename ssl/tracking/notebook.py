"""Progress in a notebook: one output of the cell that runs, updated in place."""

import io
import sys
import threading
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

WIDTH = 92  # characters, which fit the output of a notebook
EVERY = 0.5  # seconds between two updates
MOST_LINES = 100  # that stay; each update sends all of them
PAGE = (
    "<pre style=\"white-space: pre-wrap; line-height: 1.3; margin: 0; font-family: Menlo, 'DejaVu Sans Mono', Consolas, "
    'monospace">{code}</pre>'
)

# The cell and the output of a display that has ended empty: the next one in the same cell takes it over.
_emptied: tuple[str, Any] | None = None


def in_notebook(console: Console) -> bool:
    """Whether the console prints into the output of a notebook's cell, which is not redirected or captured."""
    return console.is_jupyter and type(console.file).__module__.startswith("ipykernel.")


class NotebookDisplay:
    """Lines that stay, and below them the `foot`, which a thread draws anew while it changes.

    It is used like rich's `Live`, which would need ipywidgets in a notebook. `stop` leaves the lines, and the foot unless
    `transient`. HTML and plain text are sent, so that an exported notebook shows the last state too.
    """

    def __init__(self, foot: RenderableType, transient: bool = False) -> None:
        self._foot, self._transient = foot, transient
        self._lines: list[Text] = []
        self._left_out = 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._handle: Any = None
        self._sent: dict[str, str] = {}

    def start(self, refresh: bool = True) -> None:
        """Show the display below what the cell has shown so far, and begin to update it."""
        global _emptied
        if self._handle is not None:
            return
        before, _emptied = _emptied, None
        if before is not None and before[0] == _cell():
            self._handle = before[1]
            self._update()
        else:
            from IPython.display import display

            self._sent = self._content()
            self._handle = display(self._sent, raw=True, display_id=True)
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        with suppress(RuntimeError):  # a limit of the system on threads: then only the end is shown
            self._thread.start()

    def print(self, line: Text) -> None:
        """Add a line above the foot; it is shown with the next update."""
        with self._lock:
            self._lines.append(line)
            if len(self._lines) > MOST_LINES:
                del self._lines[0]
                self._left_out += 1

    def stop(self) -> None:
        """Show the last state. A second call does nothing."""
        global _emptied
        if self._ended.is_set() or self._handle is None:
            return
        self._ended.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        if self._transient:
            self._foot = ""
        self._update()
        cell = _cell()
        if cell is not None and not self._sent["text/plain"]:
            _emptied = cell, self._handle

    def _watch(self) -> None:
        with suppress(OSError, ValueError):  # a kernel that ends
            while not self._ended.wait(EVERY):
                self._update()

    def _update(self) -> None:
        if (content := self._content()) != self._sent:
            self._sent = content
            self._handle.update(content, raw=True)

    def _content(self) -> dict[str, str]:
        """The display as HTML and as plain text."""
        console = Console(
            file=io.StringIO(), width=WIDTH, record=True, highlight=False, force_jupyter=False, _environ={}
        )
        with self._lock:
            if self._left_out:
                console.print(Text(f"… {self._left_out:,} earlier lines", "dim"))
            for line in self._lines:
                console.print(line, soft_wrap=True)
        if self._foot:
            console.print(self._foot)
        html = console.export_html(inline_styles=True, code_format=PAGE, clear=False)
        text = console.export_text().strip("\n")
        return {"text/html": html if text else "", "text/plain": text}


def _cell() -> str | None:
    """The id of the request that the kernel is executing: another one for each run of a cell; None if it does not say."""
    shell = sys.modules["IPython"].get_ipython()
    parent = getattr(shell, "get_parent", dict)() or {}
    return parent.get("header", {}).get("msg_id")
