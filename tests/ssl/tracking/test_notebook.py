"""The display of a notebook, with a substitute for IPython's."""

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from wildfern.ssl.tracking import Progress, TrainingDisplay, notebook, progress_line
from wildfern.ssl.tracking.notebook import MOST_LINES, NotebookDisplay, in_notebook


class Stream(io.StringIO):
    """Standard output of a kernel."""

    __module__ = "ipykernel.iostream"


class Cell:
    """What the outputs of cells show, by their number, and how often they were sent."""

    def __init__(self):
        self.number, self.shown, self.sent = 1, [], 0

    def display(self, content, raw, display_id):
        self.shown.append(None)
        return Handle(self, len(self.shown) - 1).update(content, raw)

    def get_parent(self):
        return {"header": {"msg_id": f"request {self.number}"}}


class Handle:
    def __init__(self, cell, place):
        self.cell, self.place = cell, place

    def update(self, content, raw):
        self.cell.shown[self.place] = content
        self.cell.sent += 1
        return self


@pytest.fixture
def cell(monkeypatch):
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: cell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=cell.display))
    monkeypatch.setattr(notebook, "EVERY", 3600.0)  # only what start and stop send
    monkeypatch.setattr(notebook, "_emptied", None)
    return cell


def console():
    return Console(file=Stream(), force_jupyter=True)


def test_redirected_output_is_no_notebook():
    assert in_notebook(console())
    assert not in_notebook(Console(file=io.StringIO(), force_jupyter=True))
    assert not in_notebook(Console(file=Stream(), force_jupyter=False))


def test_training_is_one_output_with_messages_and_standard_error_above_the_bar(cell, monkeypatch):
    before = sys.stderr
    with TrainingDisplay(4, console=console()) as display:
        display.message("run folder a<b>")
        print("compiling fractals … 2 s", file=sys.stderr)
        for step in range(4):
            display.update(step, {"loss": 1.5, "learning_rate": 0.1})
    assert sys.stderr is before
    [content] = cell.shown
    first, second, bar, numbers = content["text/plain"].splitlines()
    assert first.endswith(" run folder a<b>")
    assert second == "compiling fractals … 2 s"
    assert "step 4/4  100%  took" in bar
    assert numbers.startswith("loss 1.5000  lr 1.0e-01")
    assert "run folder a&lt;b&gt;" in content["text/html"]


def test_the_line_of_the_start_makes_room_for_the_bar(cell):
    progress = Progress()
    with progress_line(progress, console()):
        progress.part("reading the recipe")
    assert cell.shown == [{"text/html": "", "text/plain": ""}]
    with TrainingDisplay(1, console=console()):
        pass
    assert len(cell.shown) == 1
    assert "step 0/1" in cell.shown[0]["text/plain"]


def test_an_output_of_another_cell_stays_as_it_is(cell):
    for cell.number in (1, 2):
        with progress_line(Progress(), console()):
            pass
    assert len(cell.shown) == 2


def test_a_line_with_messages_leaves_these(cell):
    with progress_line(Progress(), console()):
        print("one", file=sys.stderr)
    with progress_line(Progress(), console()):
        pass
    assert [content["text/plain"] for content in cell.shown] == ["one", ""]


def test_only_the_last_lines_are_kept(cell):
    display = NotebookDisplay("foot")
    display.start()
    for number in range(MOST_LINES + 5):
        display.print(Text(str(number)))
    display.stop()
    lines = cell.shown[0]["text/plain"].splitlines()
    assert lines[:2] == ["… 5 earlier lines", "5"]
    assert lines[-2:] == [str(MOST_LINES + 4), "foot"]


def test_what_has_not_changed_is_not_sent_again(cell):
    display = NotebookDisplay("foot")
    display.start()
    display.stop()
    display.stop()
    assert cell.sent == 1
