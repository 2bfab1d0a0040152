"""`wildfern quickstart --resume`, as its messages suggest."""

from small_runs import TINY
from typer.testing import CliRunner

from wildfern.launch.cli import app
from wildfern.ssl.tracking import read_records


def quickstart(*words: str) -> str:
    done = CliRunner().invoke(app, ["quickstart", *TINY, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_quickstart_resumes(tmp_path):
    run = str(tmp_path / "run")
    quickstart("training.steps=2", "--run", run)
    refused = CliRunner().invoke(app, ["quickstart", *TINY, "--run", run])
    assert "already holds a run: add --resume" in str(refused.exception)
    assert "wildfern quickstart" not in refused.output  # nothing is promised first
    shown = quickstart("training.steps=3", "--run", run, "--resume")
    assert "resumed from step 2" in shown
    assert "changed settings: training.steps 2 → 3" in shown
    assert [row["step"] for row in read_records(tmp_path / "run" / "metrics.jsonl")] == [0, 1, 2]


def test_its_help_describes_resume_and_the_exit_codes():
    shown = CliRunner().invoke(app, ["quickstart", "--help"]).output
    assert "--resume" in shown
    assert "75 another process was lost" in " ".join(shown.split())
