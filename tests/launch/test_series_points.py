"""The points of a series: values between commas, grids, random points, lists, and the names of run folders."""

import math

import pytest

from wildfern.launch.errors import RunError
from wildfern.launch.series_points import grid, listed_points, random_points, read_axes, runs_of, short_keys
from wildfern.launch.series_values import Range, read_values, split_values
from wildfern.recipes import RecipeErrors, read_argument


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.1,0.2", ["0.1", "0.2"]),
        ("0.1", ["0.1"]),
        ("", [""]),
        ("[0.2,1.0]", ["[0.2,1.0]"]),
        ("[0.2,1.0],[0.5, 1.0]", ["[0.2,1.0]", "[0.5, 1.0]"]),
        ("{name: simclr, a: [1,2]},{name: dino}", ["{name: simclr, a: [1,2]}", "{name: dino}"]),
        ('"folder:a,b"', ['"folder:a,b"']),
        ('"a\\",b",c', ['"a\\",b"', "c"]),
        ("'it''s, so',b", ["'it''s, so'", "b"]),
        ("folder:it's,folder:b", ["folder:it's", "folder:b"]),
        ("folder:a[1],b", ["folder:a[1]", "b"]),
        ("{a: 'x]', b: 1}, c", ["{a: 'x]', b: 1}", "c"]),
        ("[it's, so], b", ["[it's, so]", "b"]),
        (" a , b ", ["a", "b"]),
        ("a,", ["a", ""]),
    ],
)
def test_commas_separate_values_outside_of_brackets_and_quotes(text, parts):
    assert split_values(text) == parts
    for part in parts:
        assert read_argument(part, "command line", "key")[1] == []


@pytest.mark.parametrize(
    ("words", "seeds", "said"),
    [
        (["a=1,,2"], None, "a: has an empty value between commas"),
        (["a=1,1"], None, "a: has the value 1 twice"),
        (["a=1", "a=2"], None, "a: is given twice"),
        (["a"], None, "'a' must be written as key=value"),
        (["a=[1,2"], None, "a: not valid YAML"),
        (["seed=1,2"], [0], "seed: has several values here and in --seeds"),
        (["seed=1"], [0], "seed: is given here and in --seeds"),
        (["seed=uniform:0..9"], None, "seed: cannot be drawn"),
        (["a=log:0..1"], None, "a: a range in the logarithm starts above 0"),
        (["a=uniform:2..1"], None, "a: the range ends before it starts: 2..1"),
        (["a=uniform:x..1"], None, "a: a range is uniform:LOW..HIGH with two numbers"),
    ],
)
def test_errors_of_a_request(words, seeds, said):
    with pytest.raises(RecipeErrors) as error:
        read_axes([*words, "b=", "c"], seeds)
    lines = str(error.value).splitlines()
    assert sum(said in line for line in lines) == 1, lines
    assert any("'c' must be written" in line for line in lines)  # all together


def test_a_grid_has_every_combination_in_the_order_of_the_words():
    points = grid(read_axes(["x.a=1,2", "b=folder", "x.c=[0,1],[0,2]"], None))
    assert [point.changes for point in points] == [
        (f"x.a={a}", "b=folder", f"x.c={c}") for a in (1, 2) for c in ("[0,1]", "[0,2]")
    ]
    assert points[1].settings == {"x.a": 1, "x.c": [0, 2]}
    assert [run.name for run in runs_of(points, (3,))][:2] == ["a=1,c=0-1,seed=3", "a=1,c=0-2,seed=3"]


def test_seeds_may_be_values_of_the_key_seed():
    axes = read_axes(["seed=4,5", "a=1"], None)
    assert (axes.seeds, axes.varied, axes.fixed) == ((4, 5), {}, ["a=1"])
    runs = runs_of(grid(axes), axes.seeds)
    assert [(run.name, run.overrides) for run in runs] == [
        ("seed=4", ["a=1", "seed=4"]),
        ("seed=5", ["a=1", "seed=5"]),
    ]


def test_several_seeds_of_pretrain_leave_commas_alone():
    axes = read_axes(["data.source=folder:a,b"], [0, 1], split=False)
    assert [point.changes for point in grid(axes)] == [("data.source=folder:a,b",)]


def test_nothing_that_varies_is_an_error():
    with pytest.raises(RunError, match="nothing varies"):
        runs_of(grid(read_axes(["a=1"], None)), None)


def test_random_points_of_a_grid_are_different_ones_and_follow_from_the_seed():
    axes = read_axes(["a=0,1,2,3", "b=0,1,2"], None)
    every = random_points(axes, 12, seed=5)
    assert {tuple(point.settings.values()) for point in every} == {(a, b) for a in range(4) for b in range(3)}
    assert random_points(axes, 5, seed=5) == every[:5]
    assert random_points(axes, 12, seed=6) != every
    with pytest.raises(RunError, match="the grid has only 12 points"):
        random_points(axes, 13, seed=5)


def test_random_points_of_ranges_are_uniform_within_their_bounds():
    axes = read_axes(["a=log:1e-4..1e-2", "b=uniform:-1..3", "c=x,y"], None)
    points = random_points(axes, 2000, seed=0)
    logs = sorted(math.log10(point.settings["a"]) for point in points)
    plain = sorted(point.settings["b"] for point in points)
    # Kolmogorov's distance to the uniform distribution; 0.036 is exceeded by 1 % of such samples
    for values, low, high in ((logs, -4, -2), (plain, -1, 3)):
        assert low <= values[0]
        assert values[-1] <= high
        assert max(abs((v - low) / (high - low) - i / 2000) for i, v in enumerate(values)) < 0.036
    assert sum(point.settings["c"] == "x" for point in points) == 1000
    assert all(float(f"{v:.4g}") == v for v in plain)
    assert points[7].changes == tuple(f"{key}={value}" for key, value in points[7].settings.items())
    assert random_points(axes, 20, seed=0) == points[:20]


def test_a_drawn_value_stays_within_a_narrow_range():
    found = Range("uniform", 0.123456, 0.123457)
    assert all(found.low <= found.at(u) <= found.high for u in (0.0, 0.5, 0.999))
    assert read_values("a", "log:1e-4..1e-2") == (Range("log", 1e-4, 1e-2), [])


def test_a_range_has_no_grid_and_a_series_has_a_limit():
    with pytest.raises(RunError, match="a: a range has no grid: add --random N"):
        grid(read_axes(["a=uniform:0..1"], None))
    many = ",".join(map(str, range(200)))
    with pytest.raises(RunError, match="at most 10,000 runs, and this one would have 40,000"):
        grid(read_axes([f"a={many}", f"b={many}"], None))
    assert len(random_points(read_axes([f"a={many}", f"b={many}"], None), 3, 0)) == 3


def test_a_list_has_mappings_or_changes(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- {x.a: 1.0e-3, x.b: 'é, {'}\n- [x.a=2, 'x.c=[1, 2]']\n")
    points = listed_points(read_axes(["d=1"], None), file)
    assert [point.settings for point in points] == [{"x.a": 1e-3, "x.b": "é, {"}, {"x.a": 2, "x.c": [1, 2]}]
    assert points[1].changes == ("d=1", "x.a=2", "x.c=[1, 2]")
    for change, value in zip(points[0].changes[1:], (1e-3, "é, {"), strict=True):
        assert read_argument(change.partition("=")[2], "", "") == (value, [])
    assert [run.name for run in runs_of(points, None)] == ["a=0.001,b=", "a=2,c=1-2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a list of settings"),
        ("a: 1", "must be a list of settings"),
        ("- 7", "0: must be a mapping of keys to values, or a list of changes"),
        ("- {a: 1}\n- {a: 1}", "1: is the same setting as an earlier one"),
        ("- [a=[1]", "not valid YAML|line 1"),
    ],
)
def test_errors_of_a_list(tmp_path, text, said):
    file = tmp_path / "list.yaml"
    file.write_text(text)
    with pytest.raises(RecipeErrors, match=said):
        listed_points(read_axes([], None), file)


def test_a_list_excludes_a_grid_and_must_exist(tmp_path):
    with pytest.raises(RunError, match=r"--list names the settings: a must have one value"):
        listed_points(read_axes(["a=1,2"], None), tmp_path / "list.yaml")
    with pytest.raises(RunError, match=r"list\.yaml: No such file"):
        listed_points(read_axes([], None), tmp_path / "list.yaml")


def test_names_are_short_different_and_need_no_quotes():
    assert short_keys(["a.x", "b.x", "b.y", "data.seed"]) == {
        "a.x": "a.x",
        "b.x": "b.x",
        "b.y": "y",
        "data.seed": "data.seed",
    }
    words = [f"a.source=folder:../x/y,folder:x;y,{'z' * 200},$(rm)"]
    names = [run.name for run in runs_of(grid(read_axes(words, None)), None)]
    assert names == ["source=folder-..-x-y", "source=folder-x-y", "setting=2", "source=rm"]


def test_names_of_runs_are_single_folders():
    runs = runs_of(grid(read_axes(["a.b./tmp/evil=1,2"], None)), None)
    assert [run.name for run in runs] == ["tmp-evil=1", "tmp-evil=2"]
