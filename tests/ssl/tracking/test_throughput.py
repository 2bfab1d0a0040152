import contextlib
import math

import pytest

from wildfern.ssl.tracking.throughput import Throughput, TimeLeft


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_images_over_the_time_since_the_last_update():
    clock = Clock()
    throughput = Throughput(clock)
    speeds = []
    for seconds, images in [(2.0, 512), (0.5, 512), (4.0, 64)]:
        clock.now += seconds
        speeds.append(throughput.update(images))
    assert speeds == [256.0, 1024.0, 16.0]


def test_untimed_work_does_not_count():
    clock = Clock()
    throughput = Throughput(clock)
    clock.now += 1.0
    with throughput.untimed():
        clock.now += 60.0
    clock.now += 1.0
    assert throughput.update(100) == 50.0
    with contextlib.suppress(RuntimeError), throughput.untimed():
        clock.now += 5.0
        raise RuntimeError
    clock.now += 2.0
    assert throughput.update(100) == 50.0


def test_zero_elapsed_time_gives_nan():
    assert math.isnan(Throughput(Clock()).update(10))


def test_time_left_follows_the_current_speed_without_the_warm_up():
    clock = Clock()
    left = TimeLeft(total_steps=100, start_step=40, clock=clock)
    clock.now += 30.0  # compilation and the first step
    assert left.update(41) == pytest.approx(30.0 * 59)
    clock.now += 10.0
    assert left.update(51) == pytest.approx(1.0 * 49)
    clock.now += 30.0
    assert left.update(61) == pytest.approx(2.0 * 39)
    assert left.elapsed == 70.0


def test_time_left_uses_recent_steps_only():
    clock = Clock()
    left = TimeLeft(total_steps=1000, start_step=0, clock=clock, looks=3)
    for done in range(1, 11):
        clock.now += 100.0
        left.update(done)
    for done in range(11, 14):
        clock.now += 1.0
        remaining = left.update(done)
    assert remaining == pytest.approx(1000 - 13)


def test_no_time_left_before_any_step():
    assert TimeLeft(10, 5, Clock()).update(5) is None
