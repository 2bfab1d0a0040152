"""The settings of a series: values between commas, grids, random points, lists, and the names of the runs."""

import pytest

from wildfern.launch.errors import RunError
from wildfern.launch.series_points import grid, listed_points, random_points, read_axes, runs_of, short_keys
from wildfern.launch.series_values import Range, read_values, split_values
from wildfern.recipes import RecipeErrors

RATE, TEMPERATURE = "optimizer.learning_rate", "method.temperature"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1e-3,3e-3", ["1e-3", "3e-3"]),
        ("[0.2,1.0]", ["[0.2,1.0]"]),
        ("[0.2,1.0], [0.5,1.0]", ["[0.2,1.0]", "[0.5,1.0]"]),
        ("{name: simclr, temperature: 0.1},{name: dino}", ["{name: simclr, temperature: 0.1}", "{name: dino}"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("'it''s, so',x", ["'it''s, so'", "x"]),
        ("it's,ours", ["it's", "ours"]),
        ("", [""]),
    ],
)
def test_values_are_separated_by_commas_outside_of_brackets_and_quotes(text, parts):
    assert split_values(text) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,1", "twice"),
        ("1,,2", "empty value"),
        ("log:0..1", "starts above 0"),
        ("uniform:2..1", "ends before it starts"),
        ("uniform:a..b", "two numbers"),
    ],
)
def test_values_that_make_no_series_are_refused(text, words):
    _, problems = read_values("key", text)
    assert words in problems[0].message


def test_true_is_not_one():
    assert read_values("key", "1,true")[1] == []


def test_a_grid_has_every_combination_and_the_last_key_changes_fastest():
    axes = read_axes([f"{RATE}=1e-3,3e-3", "training.steps=5", f"{TEMPERATURE}=0.1,0.2"], [0, 1])
    points = grid(axes)
    assert [tuple(point.settings.values()) for point in points] == [
        (0.001, 0.1),
        (0.001, 0.2),
        (0.003, 0.1),
        (0.003, 0.2),
    ]
    assert points[1].changes == (f"{RATE}=1e-3", "training.steps=5", f"{TEMPERATURE}=0.2")
    runs = runs_of(points, axes.seeds)
    assert runs[1].name == "learning_rate=0.001,temperature=0.1,seed=1"
    assert runs[1].overrides[-1] == "seed=1"
    assert len({run.name for run in runs}) == len(runs) == 8


def test_random_points_are_determined_by_the_seed_and_a_larger_number_adds_some():
    axes = read_axes([f"{RATE}=log:1e-4..1e-2", f"{TEMPERATURE}=0.1,0.2,0.4"], None)
    assert isinstance(axes.varied[RATE], Range)
    few, many = random_points(axes, 5, seed=3), random_points(axes, 40, seed=3)
    assert many[:5] == few
    assert random_points(axes, 5, seed=4) != few
    rates = [point.settings[RATE] for point in many]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 10 < sum(rate < 1e-3 for rate in rates) < 30  # uniform in the logarithm
    assert {point.settings[TEMPERATURE] for point in few[:3]} == {0.1, 0.2, 0.4}


def test_random_points_of_a_grid_are_different_ones():
    axes = read_axes(["a.b=1,2,3", "a.c=1,2"], None)
    points = random_points(axes, 6, seed=0)
    assert len({tuple(point.settings.values()) for point in points}) == 6
    with pytest.raises(RunError, match="only 6 points"):
        random_points(axes, 7, seed=0)


def test_a_list_in_a_file(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text(f"- {{{RATE}: 1e-3}}\n- [{RATE}=3e-3, views.size=64]\n")
    points = listed_points(read_axes(["training.steps=5"], None), file)
    assert [point.settings for point in points] == [{RATE: 1e-3}, {RATE: 3e-3, "views.size": 64}]
    assert points[1].changes == ("training.steps=5", f"{RATE}=3e-3", "views.size=64")
    file.write_text("- 7\n- {a: 1}\n- {a: 1}\n")
    with pytest.raises(RecipeErrors) as caught:
        listed_points(read_axes([], None), file)
    assert "must be a mapping" in str(caught.value)
    assert "same setting" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "seeds", "message"),
    [
        (["a.b"], None, "key=value"),
        (["a.b=1", "a.b=2"], None, "given twice"),
        (["seed=0,1"], [0], "--seeds"),
        (["seed=uniform:0..3"], None, "cannot be drawn"),
    ],
)
def test_words_that_cannot_be_a_series(words, seeds, message):
    with pytest.raises(RecipeErrors, match=message):
        read_axes(words, seeds)


def test_requests_that_vary_nothing_or_too_much():
    with pytest.raises(RunError, match="nothing varies"):
        runs_of(grid(read_axes(["training.steps=5"], None)), None)
    many = ",".join(map(str, range(200)))
    with pytest.raises(RunError, match="at most 10,000 runs"):
        grid(read_axes([f"a.b={many}", f"a.c={many}"], None))
    with pytest.raises(RunError, match="--random"):
        grid(read_axes(["a.b=log:1..2"], None))


def test_keys_are_shortened_as_long_as_they_differ():
    assert short_keys([RATE, "a.x.name", "b.x.name"]) == {
        RATE: "learning_rate",
        "a.x.name": "a.x.name",
        "b.x.name": "b.x.name",
    }
