import pytest

from wildfern.ssl.tracking import Progress, progress_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def at(clock, seconds, tell):
    clock.now = seconds
    tell()


def test_a_line_has_the_part_what_is_done_and_the_time_left():
    clock = Clock()
    progress = Progress(clock=clock)
    assert progress.line() == ""
    progress.part("digits: features of train")
    assert progress.line() == "digits: features of train"
    progress.count(0, 10_000, "images")
    at(clock, 4.0, lambda: progress.count(3_200, 10_000, "images"))
    assert progress.line() == "digits: features of train: 3,200/10,000 images, left 0:08"
    clock.now = 6.0  # it counts down between two counts
    assert progress.line() == "digits: features of train: 3,200/10,000 images, left 0:06"


def test_without_a_speed_a_line_says_how_long_the_part_has_taken():
    clock = Clock()
    progress = Progress(clock=clock)
    progress.part("digits: linear of random")
    progress.detail("strength 3 of 7")
    assert progress.line() == "digits: linear of random: strength 3 of 7"
    clock.now = 65.0
    assert progress.line() == "digits: linear of random: strength 3 of 7, 1:05 so far"
    progress.part("digits: knn of random")
    assert progress.line() == "digits: knn of random"


@pytest.mark.parametrize(
    "second", [(0, 500, "resamples", "micro"), (0, 900, "resamples", "mean"), (0, 500, "x", "mean")]
)
def test_a_count_that_begins_anew_has_its_own_speed(second):
    clock = Clock()
    progress = Progress(clock=clock)
    progress.part("knn")
    progress.count(0, 500, "resamples", "mean")
    at(clock, 10.0, lambda: progress.count(500, 500, "resamples", "mean"))
    at(clock, 20.0, lambda: progress.count(*second))
    at(clock, 23.0, lambda: progress.count(30, *second[1:]))
    left = 3.0 / 30 * (second[1] - 30)
    assert progress.line() == f"knn: {second[3]}, 30/{second[1]} {second[2]}, left {left // 60:.0f}:{left % 60:02.0f}"


def test_a_function_gets_each_part_at_once_and_counts_after_some_seconds():
    clock, said = Clock(), []
    progress = Progress(said.append, every=5.0, clock=clock)
    progress.part("train")
    for second in range(12):
        at(clock, float(second), lambda second=second: progress.count(second, 100, "images"))
    progress.part("test")
    assert said == ["train", "train: 5/100 images, left 1:35", "train: 10/100 images, left 1:30", "test"]


def test_what_is_told_is_a_progress_or_a_function():
    said = []
    progress = progress_of(said.append)
    progress.part("train")
    assert said == ["train"]
    assert progress_of(progress) is progress
