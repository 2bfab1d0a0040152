"""Runs compared: groups that differ in the seed only, the settings that differ, statistics over seeds, and the report."""

import json
import math

import pytest
from rich.console import Console

from wildfern.ssl.evaluation import compare_runs, read_run, record_names, report_page

RECIPE = {
    "seed": 0,
    "data": {"source": "ifs", "points": 200},
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "betas": [0.9, 0.95]},
    "tracking": {"run_name": None},
}


@pytest.fixture
def run(tmp_path):
    """Makes a run folder with a recipe and scores of one protocol."""

    def make(name, value=None, changes=None, random=0.25, protocol="knn", **files):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(json.dumps(RECIPE | (changes or {})))
        if value is not None:
            row = {"dataset": "digits", "protocol": protocol, "n": 400, "share": True, "detail": ""}
            rows = [
                row
                | {"backbone": backbone, "metric": metric, "value": found, "low": found - 0.05, "high": found + 0.05}
                for backbone, found in (("random", random), ("pretrained", value))
                for metric in ("accuracy", "balanced_accuracy")
            ]
            (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
        for file, content in files.items():
            (folder / f"{file}.json").write_text(json.dumps(content))
        return folder

    return make


def compared(*folders, **options):
    records = [read_run(folder) for folder in folders]
    return compare_runs(records, record_names(records), **options)


def printed(comparison, width=80):
    console = Console(width=width, file=None, record=True, color_system=None)
    with console.capture() as shown:
        console.print(comparison.table())
    return shown.get()


def test_runs_that_differ_in_the_seed_only_are_one_group(run):
    values, randoms = [0.5, 0.56, 0.53], [0.2, 0.3, 0.22]
    seeds = [
        run(f"seed={seed}", value, {"seed": seed, "tracking": {"run_name": str(seed)}}, random)
        for seed, (value, random) in enumerate(zip(values, randoms, strict=True))
    ]
    other = run("other", 0.7, {"optimizer": RECIPE["optimizer"] | {"learning_rate": 0.003}})
    found = compared(*seeds, other)
    assert [(group.label, group.members) for group in found.groups] == [("seed=0, 1, 2", (0, 1, 2)), ("other", (3,))]
    score = found.main_scores()[0]
    mean = sum(values) / 3
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert score.pretrained.mean == pytest.approx(mean)
    assert score.pretrained.sd == pytest.approx(sd)
    gains = [100 * (value - random) for value, random in zip(values, randoms, strict=True)]
    gain = sum(gains) / 3
    assert score.gain.sd == pytest.approx(math.sqrt(sum((one - gain) ** 2 for one in gains) / 2))
    text = printed(found)
    assert f"{100 * mean:.1f} ± {100 * sd:.1f} %" in text
    assert f"{gain:+.1f}" in text
    assert "70.0 %" in text
    assert "70.0 ±" not in text
    rows = found.as_json()["scores"]
    assert len(rows) == 4  # balanced accuracy too
    assert [row["pretrained"]["n"] for row in rows] == [3, 1, 3, 1]
    assert (rows[1]["pretrained"]["sd"], rows[0]["interval"], rows[1]["interval"]) == (
        None,
        None,
        pytest.approx([0.65, 0.75]),
    )
    assert rows[1]["intervals_overlap"] is None  # a mean has no interval over test images
    assert rows[1]["difference"] == pytest.approx(100 * (0.7 - mean))


def test_only_the_settings_that_differ_are_listed(run):
    one = run("one", environment={"wildfern": "0.1.0", "git": {"commit": "a" * 40}}, data=[{"names": "f" * 64}])
    two = run(
        "two",
        changes={
            "data": [RECIPE["data"], {"source": "digits"}],
            "optimizer": {"name": "sgd", "learning_rate": 0.001, "momentum": 0.9},
        },
        environment={"wildfern": "0.2.0", "git": {"commit": "a" * 40}},
        data=[{"names": "e" * 64}, {"names": "e" * 64}],
    )
    assert compared(one, two).settings == {
        "optimizer.name": ["adamw", "sgd"],
        "optimizer.betas": ["[0.9, 0.95]", "–"],
        "data.1.source": ["–", "digits"],
        "optimizer.momentum": ["–", "0.9"],
        "(version of wildfern)": ["0.1.0", "0.2.0"],
        "(data.0: SHA-256 of names and sizes)": ["f" * 16, "e" * 16],
    }
    old = run("old")  # of a version that recorded nothing
    assert compared(one, old).settings == {}


def test_runs_on_other_files_or_with_another_version_are_not_one_setting(run):
    folders = [
        run("a", 0.5, {"seed": 0}, data=[{"names": "f" * 64}]),
        run("b", 0.5, {"seed": 1}, data=[{"names": "e" * 64}]),
        run("c", 0.5, {"seed": 2}, data=[{"names": "f" * 64}], environment={"git": {"commit": "b"}}),
    ]
    assert [group.members for group in compared(*folders).groups] == [(0, 2), (1,)]


@pytest.mark.parametrize(("value", "overlap"), [(0.59, True), (0.61, False), (0.41, True), (0.39, False)])
def test_intervals_of_single_runs_overlap_or_not_and_decide_nothing(run, value, overlap):
    found = compared(run("a", 0.5), run("b", value, {"data": {"source": "digits"}}))
    assert found.main_scores()[1].overlaps(found.main_scores()[0]) is overlap
    text = " ".join(printed(found).split())
    assert "the interval is over test images only" in text
    assert "neither overlapping nor separate intervals decide about the settings" in text
    assert f"{100 * (value - 0.5):+.1f} {'yes' if overlap else 'no'}" in text


def test_deviations_of_few_label_draws_are_not_compared_as_intervals(run):
    few = "few_shot (classifier=knn, shots=5)"
    found = compared(run("a", 0.5, protocol=few), run("b", 0.5, {"seed": 1, "x": 1}, protocol=few))
    assert found.main_scores()[1].overlaps(found.main_scores()[0]) is None


def test_runs_without_scores_and_values_that_are_no_scores_are_named_or_left_out(run):
    broken = run("broken", 0.5, {"x": 1})
    stored = json.loads((broken / "evaluation.json").read_text())
    stored["rows"][2]["value"] = 1e300
    (broken / "evaluation.json").write_text(json.dumps(stored))
    found = compared(
        run("a", 0.5), run("empty", changes={"x": 2}), broken, left_out={"gone": "there is no such folder"}
    )
    assert found.left_out == {"empty": "no scores", "gone": "there is no such folder"}
    text = printed(found)
    assert "empty: no scores" in text
    assert "gone: there is no such folder" in text
    assert len(found.main_scores()) == 2
    assert "none of the runs has scores" in " ".join(printed(compared(run("b"), run("c", changes={"x": 1}))).split())


def test_unfinished_and_damaged_runs_are_named(run):
    half = run("half", 0.5, {"training": {"steps": 100, "log_every": 10}})
    (half / "metrics.jsonl").write_text('{"step": 49, "loss": 1}\n')
    whole = run("whole", 0.5, {"training": {"steps": 100, "log_every": 10}})
    (whole / "metrics.jsonl").write_text('{"step": 90, "loss": 1}\n')
    damaged = run("damaged", 0.5)
    (damaged / "recipe.yaml").write_text("a: [")
    found = compared(half, whole, damaged)
    assert found.left_out["half"] == "not finished, 50 of 100 steps"
    assert found.left_out["damaged"].startswith("recipe.yaml cannot be read")
    assert len(found.groups) == 2  # the damaged one is not taken for the same setting
    assert len(found.main_scores()) == 2


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_number_is_cut_off(run, width):
    folders = [run(f"optimizer.learning_rate=0.00{n}", 0.5 + n / 100, {"x": n}) for n in range(3)]
    text = printed(compared(*folders), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    if width >= 80:
        assert "52.0 %" in text
        assert "47.0 to 57.0" in text


def test_the_report_of_several_runs_has_both_tables_on_top(run):
    hostile = "</td><script>alert(1)</script>"
    folders = [
        run("seed=0", 0.5, {"seed": 0}),
        run("seed=1", 0.54, {"seed": 1}),
        run("<i>", 0.6, {"data": {"source": hostile, hostile: [hostile]}}),
    ]
    page = report_page(folders)
    assert page.index("Runs compared") < page.index("Settings that differ") < page.index("Overview")
    assert "52.0 ± 2.8 %" in page
    assert "<script>" not in page
    assert "alert(1)</script" not in page
    assert "<i>" not in page
    assert "seed=0, 1" in page
    assert "Runs compared" not in report_page(folders[:1])
