"""What a model card says of images that were taken down."""

import pytest

from wildfern.launch.components import read_recipe
from wildfern.launch.model_card import _images
from wildfern.launch.run_folder import RunFolder


def lines(tmp_path, **curated):
    folder = RunFolder(tmp_path)
    curated = {"manifest": "a" * 64, "licenses": {"CC0-1.0": 9}, **curated}
    folder.write_json("data.json", [{"source": "curated:x", "items": 9, "curated": curated}])
    recipe = read_recipe("quickstart", [f"data=curated:{tmp_path}"])
    return [line.strip(" -") for line in _images(folder, recipe) if "taken down" in line]


def process(takedowns, taken_down, last_step):
    return {"takedowns": takedowns, "taken_down": taken_down, "last_step": last_step}


BEFORE = "2 of them had been taken down when the run started, and were not read"


@pytest.mark.parametrize(
    ("curated", "expected"),
    [
        ({"takedowns": 0, "taken_down": 0}, []),
        ({"takedowns": 5, "taken_down": 2}, [BEFORE]),
        ({"takedowns": 5, "taken_down": 2, "earlier": [process(5, 2, 19)]}, [BEFORE]),
        (
            {"takedowns": 1, "taken_down": 1, "earlier": [process(0, 0, 19)]},
            ["1 of them was taken down during the run, which may have read it up to step 19, but not afterwards"],
        ),
        (
            {"takedowns": 9, "taken_down": 5, "earlier": [process(5, 2, 19), process(7, 4, 1039), process(8, 5, 2000)]},
            [BEFORE, "3 of them were taken down during the run, which may have read them up to step 1,039, but not afterwards"],
        ),
        ({"takedowns": 1, "taken_down": 1, "earlier": [process(2, 2, 19)]}, [BEFORE]),  # the list was edited by hand
        ({"takedowns": [], "taken_down": "2", "earlier": {}}, []),
    ],
)  # fmt: skip
def test_a_card_counts_what_was_taken_down_before_and_during_the_run(tmp_path, curated, expected):
    assert lines(tmp_path, **curated) == expected
