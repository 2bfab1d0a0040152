import errno
import io
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from wildfern.ssl.tracking import TrainingDisplay
from wildfern.ssl.tracking.formatting import duration, number

METRICS = {"loss": 3.21541, "learning_rate": 3e-4, "feature_std": 0.9}
TIMINGS = {"images_per_second": 812.3, "data_wait": 0.012}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def plain(total_steps, **arguments):
    screen = io.StringIO()
    return screen, TrainingDisplay(total_steps, console=Console(file=screen), **arguments)


def terminal(width, encoding="utf-8"):
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(
        file=screen, force_terminal=True, width=width, height=30, highlight=False, _environ={"TERM": "xterm"}
    )
    return raw, console


def test_a_plain_line_has_all_values_in_a_fixed_order():
    clock = Clock()
    screen, display = plain(400, clock=clock)
    with display:
        for step in (118, 119):
            clock.now += 0.125
            display.update(step, METRICS, TIMINGS)
    assert screen.getvalue().splitlines()[1] == "step 120/400  loss 3.2154  lr 3.0e-04  812 img/s  wait 1%  left 0:35"


def test_plain_lines_come_first_at_every_interval_and_last():
    screen, display = plain(25, log_every=10)
    with display:
        for step in range(25):
            display.update(step, METRICS)
    shown = [line.split()[1] for line in screen.getvalue().splitlines()]
    assert shown == ["1/25", "10/25", "20/25", "25/25"]


def test_a_resumed_run_shows_its_own_first_step():
    screen, display = plain(25, start_step=13, log_every=10)
    with display:
        for step in range(13, 25):
            display.update(step, METRICS)
    assert [line.split()[1] for line in screen.getvalue().splitlines()] == ["14/25", "20/25", "25/25"]


def test_messages_and_evaluations_are_printed_verbatim():
    screen, display = plain(100)
    with display:
        display.message("checkpoint written: [bold]checkpoints/50[/bold]")
        display.evaluation(49, {"digits/knn": 0.915})
    first, second = screen.getvalue().splitlines()
    assert first == "checkpoint written: [bold]checkpoints/50[/bold]"
    assert second == "step 50/100  evaluation  digits/knn 0.9150"


def test_control_characters_of_a_message_do_not_reach_the_screen():
    screen, display = plain(100)
    raw, console = terminal(100)
    for one in (display, TrainingDisplay(100, console=console)):
        with one:
            one.message("skipped a\x1b]0;title\x07\u202e.png")
            one.evaluation(0, {"digits\x1b[31m/knn": 0.5})
    assert screen.getvalue().startswith("skipped a\\x1b]0;title\\x07\\u202e.png\n")
    assert "\\x1b[31m" in screen.getvalue()
    assert b"\x1b]0;" not in raw.getvalue()
    assert b"\x1b[31m/knn" not in raw.getvalue()


class _Gone(io.StringIO):
    def write(self, text):
        raise OSError(errno.EIO, "the terminal is gone")


@pytest.mark.parametrize("live", [False, True])
def test_a_screen_that_cannot_be_written_ends_the_display_only(live):
    console = Console(file=_Gone(), force_terminal=live, width=80, _environ={"TERM": "xterm"})
    with TrainingDisplay(10, console=console) as display:
        for step in range(10):
            display.update(step, METRICS)
            display.message("checkpoint")
            display.evaluation(step, {"knn": 0.5})


def test_what_the_screen_lacks_is_replaced():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    with TrainingDisplay(10, console=console) as display:
        display.message("3 × 4 … größe")
    assert raw.getvalue() == b"3 x 4 ... gr\\xf6\\xdfe\n"


def test_other_ranks_show_nothing():
    raw, console = terminal(100)
    with TrainingDisplay(10, console=console, enabled=False) as display:
        display.update(0, METRICS, TIMINGS)
        display.message("hello")
        display.evaluation(0, {"knn": 0.5})
    assert raw.getvalue() == b""


@pytest.mark.parametrize("width", [20, 60, 110, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_panel_fits_every_width_and_encoding(width, encoding):
    _, console = terminal(width, encoding)
    with TrainingDisplay(400, console=console) as display:
        for step in range(120):
            display.update(step, {**METRICS, "loss": 9 - step / 20, "online_probe_accuracy": 0.41}, TIMINGS)
        display.evaluation(119, {"digits/knn": 0.915, "digits/linear": 0.937})
        drawn = [line.plain for line in display._panel.__rich_console__(console, console.options)]
    assert all(0 < cell_len(line) < width for line in drawn)
    if width >= 60:
        assert "step 120/400  30%" in drawn[0]
        assert drawn[1].startswith("loss 3.0500  lr 3.0e-04  812 img/s  wait 1%")
        assert drawn[3].startswith("evaluation at 120  digits/knn 0.9150")
    assert ("█" in drawn[1]) == (encoding == "utf-8")
    assert ("".join(drawn).isascii()) == (encoding == "ascii")


def test_a_narrower_terminal_is_wiped_by_as_many_rows_as_the_old_panel_now_takes():
    raw, console = terminal(100)
    with TrainingDisplay(400, console=console) as display:
        display._live.auto_refresh = False
        for step in range(120):
            display.update(step, METRICS, TIMINGS)
        display._live.refresh()
        cells = display._panel._drawn
        rows_at_40 = sum(-(-length // 40) for length in cells)
        assert rows_at_40 > len(cells)
        console.width = 40
        start = len(raw.getvalue())
        with console._lock:
            display._live.refresh()
        drawing = raw.getvalue()[start:].split(b"step")[0]
    assert drawing.count(b"\x1b[1A") == rows_at_40 - 1


def test_the_cursor_is_restored_after_an_interrupt():
    raw, console = terminal(80)

    def interrupted():
        with TrainingDisplay(10, console=console) as display:
            display.update(0, METRICS, TIMINGS)
            assert (raw.getvalue().count(b"\x1b[?25l"), raw.getvalue().count(b"\x1b[?25h")) == (1, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert raw.getvalue().count(b"\x1b[?25h") == 1
    assert "stopped after" in raw.getvalue().decode()


@pytest.mark.parametrize("arguments", [{"start_step": 11}, {"start_step": -1}, {"log_every": 0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TrainingDisplay(10, **arguments)


def test_numbers_and_durations():
    assert [number(x) for x in (3.21541, 0.0, 3e-7, 2.5e6, float("nan"), 7)] == [
        "3.2154", "0.0000", "3.00e-07", "2.50e+06", "nan", "7",
    ]  # fmt: skip
    assert [duration(s) for s in (0, 34.4, 725, 3600 * 3 + 59)] == ["0:00", "0:34", "12:05", "3:00:59"]


def test_a_log_says_how_far_it_is_between_logged_steps():
    clock = Clock()
    screen, display = plain(1000, log_every=500, clock=clock)
    display._lines.look()
    for step in range(38):
        clock.now += 3.0
        display.stepped(step)
        if step == 0:
            display.update(step, METRICS)
        display._lines.look()
    lines = screen.getvalue().splitlines()
    assert lines[0].startswith("step 1/1000  loss 3.2154")
    assert lines[1] == "step 3/1000  left 49:51"
    assert lines[-1].startswith("step 3")
    assert len(lines) < 20


def test_a_log_says_what_it_waits_for_before_the_first_step():
    clock = Clock()
    screen, display = plain(1000, clock=clock)
    clock.now = 5.0
    display._lines.look()
    with display.progress("drawing views.png"):
        clock.now = 10.0
        display._lines.look()
    assert screen.getvalue().splitlines() == ["step 0/1000  0:05 so far, with the first batch", "drawing views.png"]


def test_the_panel_moves_between_logged_steps():
    clock = Clock()
    _, console = terminal(110)
    with TrainingDisplay(400, console=console, clock=clock) as display:
        display.update(0, METRICS, TIMINGS)
        for step in range(1, 40):
            clock.now += 1.0
            display.stepped(step)
        with display.progress("digits: linear of random") as progress:
            progress.detail("strength 3 of 7")
            drawn = [line.plain for line in display._panel.__rich_console__(console, console.options)]
        after = [line.plain for line in display._panel.__rich_console__(console, console.options)]
    assert drawn[0].endswith("step 40/400  10%  elapsed 0:39  left 6:00")
    assert drawn[1].startswith("loss 3.2154")
    assert drawn[-1] == "digits: linear of random: strength 3 of 7"
    assert after == drawn[:-1]


def test_unfinished_lines_of_standard_error_are_whole_above_the_panel(capsys):
    raw, console = terminal(110)
    sys.stderr.write("earlier\n")
    with TrainingDisplay(400, console=console) as display:
        print("compiling fractals …", end="", file=sys.stderr, flush=True)
        drawn = [line.plain for line in display._panel.__rich_console__(console, console.options)]
        assert drawn[-1] == "compiling fractals …"
        print(" 66 s", file=sys.stderr, flush=True)
        assert sys.stderr.unfinished == ""
        print("left", end="", file=sys.stderr)
    assert "compiling fractals … 66 s\r\n" in raw.getvalue().decode().replace("\n", "\r\n")
    assert "left" in raw.getvalue().decode()
    assert capsys.readouterr().err == "earlier\n"
