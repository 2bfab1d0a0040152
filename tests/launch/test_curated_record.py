"""The last step that a run may have trained, from the end of its log."""

import pytest
from small_runs import TINY

from wildfern.launch.components import read_recipe
from wildfern.launch.curated_record import last_step
from wildfern.launch.run_folder import RunFolder

LOG = '{{"step": {}, "loss": 1.0}}\n'


@pytest.fixture(scope="module")
def recipe():
    return read_recipe("quickstart", [*TINY, "training.steps=2000000", "training.log_every=10"])


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("", 400_009),
        ('{"step": 400009, "lo', 400_009),
        ('{"step": 400009, "digits/knn": 0.5}\n', 400_019),
        ("{broken\n" * 5, 400_009),
        ('{"step": 1e9}\n{"step": -4}\n{"step": 1180591620717411303423}\n{"note": 1}\n', 400_009),
        ("\0" * 2**21 + "\n", 400_009),  # no line near the end has a step
        ('{"note": "' + 2**20 * "x" + '"}\n', 400_009),
    ],
)
def test_the_next_line_due_after_the_last_one_in_the_log(tmp_path, monkeypatch, recipe, end, last):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(LOG.format(step) for step in range(9, 400_000, 10)) + end)
    assert log.stat().st_size > 2**20
    if len(end) < 2**20:
        monkeypatch.setattr("wildfern.launch.curated_record.read_lines", lambda *given: pytest.fail("all were read"))
    assert last_step(RunFolder(tmp_path), recipe) == last


def test_a_run_without_a_log_says_so(tmp_path, recipe):
    with pytest.raises(FileNotFoundError):
        last_step(RunFolder(tmp_path), recipe)
    (tmp_path / "metrics.jsonl").write_text("")
    assert last_step(RunFolder(tmp_path), recipe) == 0
