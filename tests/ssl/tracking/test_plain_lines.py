import io
from itertools import pairwise

from rich.console import Console

from wildfern.ssl.tracking import plain_lines
from wildfern.ssl.tracking.plain_lines import PlainLines


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def looked(clock, lines, until):
    """The seconds, up to `until`, at which a look every half second printed a line."""
    printed = []
    while clock.now < until:
        clock.now += 0.5
        before = lines.console.file.tell()
        lines.look()
        if lines.console.file.tell() > before:
            printed.append(clock.now)
    return printed


def test_lines_come_every_4_seconds_at_first_and_then_less_often():
    clock = Clock()
    lines = PlainLines(Console(file=io.StringIO()), lambda: (f"step {clock.now:.0f}", clock.now), clock)
    printed = looked(clock, lines, 7200.0)
    pauses = [b - a for a, b in pairwise(printed)]
    assert printed[:12] == [4.0 * n for n in range(1, 13)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0
    assert len(printed) < 200
    assert lines.console.file.getvalue().startswith("step 4\nstep 8\n")


def test_an_event_postpones_the_next_line_and_nothing_is_said_of_nothing():
    clock, about = Clock(), ["step 1"]
    lines = PlainLines(Console(file=io.StringIO()), lambda: (about[0], clock.now), clock)
    clock.now = 4.0
    lines.print("checkpoint")
    assert looked(clock, lines, 10.0) == [8.0]
    about[0] = ""
    assert looked(clock, lines, 60.0) == []


def test_a_thread_looks_while_the_block_runs(monkeypatch):
    monkeypatch.setattr(plain_lines, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(plain_lines, "SHORTEST", 0.0)
    with PlainLines(Console(file=io.StringIO()), lambda: ("working", 0.0)) as lines:
        while "working" not in lines.console.file.getvalue():  # else the test's time limit ends it
            pass
    printed = lines.console.file.getvalue()
    assert set(printed.splitlines()) == {"working"}


def test_a_line_of_standard_error_that_is_unfinished_ends_first(monkeypatch):
    class Unfinished(io.StringIO):
        within_line = True

    both = Unfinished("compiling …")
    both.seek(0, io.SEEK_END)
    monkeypatch.setattr("sys.stderr", both)
    clock = Clock()
    lines = PlainLines(Console(file=both), lambda: ("step 2/4", 0.0), clock)
    assert looked(clock, lines, 20.0) == []  # who left it says how far it is
    lines.print("step 3/4")
    assert both.getvalue() == "compiling …\nstep 3/4\n"
