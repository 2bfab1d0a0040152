"""Standard output that is closed, full, ASCII, or a pipe that nobody reads."""

import json
import subprocess
import sys

import pytest
from forked_commands import ForkedCommand
from small_runs import TINY

FULL = "/dev/full"


@pytest.mark.parametrize(
    ("stdout", "code", "words"),
    [
        (FULL, 2, "cannot write to standard output: No space left on device\n"),
        ("unread", 141, ""),
        ("closed", 0, ""),
    ],
)
def test_output_that_cannot_be_written_is_one_line_or_none(stdout, code, words, tmp_path):
    for arguments in (["recipes"], ["recipes", "--schema"]):
        assert ForkedCommand(tmp_path, arguments, stdout=stdout).wait() == (code, words)


@pytest.mark.parametrize(
    ("stdout", "words"),
    [(FULL, "cannot write to standard output: No space left on device\n"), ("unread", ""), ("closed", "")],
)
def test_training_does_not_end_because_its_output_is_lost(stdout, words, tmp_path):
    arguments = ["pretrain", "quickstart", *TINY, "training.steps=2", "--run", "run"]
    assert ForkedCommand(tmp_path, arguments, stdout=stdout).wait() == (0, words)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_what_ascii_lacks_is_replaced(tmp_path):
    recipe = tmp_path / "größe.yaml"
    recipe.write_text("extends: quickstart\nsead: 1\n", encoding="utf-8")
    code, words = ForkedCommand(tmp_path, ["plan", str(recipe)], ascii_only=True).wait()
    assert code == 2
    assert "gr\\xf6\\xdfe.yaml: sead: unknown key" in words
    assert ForkedCommand(tmp_path, ["doctor"], ascii_only=True).wait()[0] in (0, 1)
    text = (tmp_path / "out").read_bytes()
    assert text.isascii()
    assert b"+ " in text  # for a check mark
    assert b"pip install 'wildfern[" in text or b"onnx" in text


def test_a_program_may_set_its_streams_back():
    script = "import sys; from wildfern.launch.command import run_command; run_command(lambda: print('work'))"
    script += "; sys.stdout = sys.__stdout__; sys.stderr = sys.__stderr__; print('afterwards')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "work\nafterwards\n", "")
