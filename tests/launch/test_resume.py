"""A run resumes exactly from its folder; damaged files are reported, and no code in them is run."""

import inspect
import json
import os
import pickle
import re
import shutil
import signal
import time

import pytest
from forked_runs import ForkedRun, hostile_pickle
from safetensors.torch import load_file, save_file
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import RecipeErrors
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import TorchEngine, whole_state
from wildfern.ssl.training.checksums import check, manifest, write_manifest

STEPS = 150
CHANGES = [*TINY, "training.precision=fp32", "training.checkpoint_every=5", "training.keep_checkpoints=3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    started = ForkedRun(run, [*CHANGES, f"training.steps={STEPS}"])
    assert started.wait() == 0, started.output()
    return run


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "run")


def resumed(run, steps=STEPS, *changes):
    return pretrain("quickstart", [*CHANGES, f"training.steps={steps}", *changes], run=run, resume=True)


def same_bytes(run, whole):
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_and_resumed_run_has_identical_bytes(number, whole, tmp_path):
    run = tmp_path / "run"
    started = ForkedRun(run, [*CHANGES, f"training.steps={STEPS}"])
    for _ in range(60_000):
        if not started.alive or list((run / "checkpoints").glob("step_*")):
            break
        time.sleep(0.001)
    os.kill(started.processes[0].pid, number)
    assert started.wait() == 128 + number, started.output()
    steps = len(read_records(run / "metrics.jsonl"))
    assert 5 <= steps < STEPS
    assert (run / "checkpoints" / f"step_{steps:08d}").is_dir()  # written before the process ended
    resumed(run)
    same_bytes(run, whole)


def test_checkpoint_seconds_are_logged_and_shown(tmp_path, capsys):
    pretrain("quickstart", [*CHANGES, "training.steps=10"], run=tmp_path / "run")
    records = read_records(tmp_path / "run" / "timings.jsonl")
    for name in ("checkpoint_seconds", "checkpoint_write_seconds"):
        found = {record["step"]: record[name] for record in records if name in record}
        assert list(found) == [4, 9]
        assert all(0 < seconds < 60 for seconds in found.values())
    shown = capsys.readouterr().out
    assert "checkpoint after step 5: training waited 0." in shown
    assert "checkpoint after step 10: training waited 0." in shown


def test_every_kth_checkpoint_is_kept(tmp_path):
    pretrain("quickstart", [*CHANGES, "training.steps=35", "training.keep_every=10"], run=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step_{step:08d}" for step in (10, 20, 25, 30, 35)]


def test_checkpoints_by_the_clock(tmp_path):
    by_minutes = ["training.steps=3", "training.checkpoint_every=1000", "training.checkpoint_minutes=1.0e-9"]
    pretrain("quickstart", [*CHANGES, *by_minutes], run=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step_{step:08d}" for step in (1, 2, 3)]


def test_a_checkpoint_is_due_if_it_is_on_any_rank(tmp_path, monkeypatch):
    """Clocks differ: all ranks must save when it is due on one, or some would wait for the others forever."""

    def any_of_two(self, flag):
        return flag or inspect.currentframe().f_back.f_code.co_name == "due"

    monkeypatch.setattr(TorchEngine, "any", any_of_two)
    by_minutes = ["training.steps=3", "training.checkpoint_every=1000", "training.checkpoint_minutes=1000"]
    pretrain("quickstart", [*CHANGES, *by_minutes], run=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step_{step:08d}" for step in (1, 2, 3)]


def test_resume_without_a_checkpoint_starts_at_step_0_with_a_message(whole, tmp_path, capsys):
    run = resumed(tmp_path / "run", 4)
    assert "no checkpoint yet: starting at step 0" in capsys.readouterr().out
    shutil.rmtree(run / "checkpoints")
    resumed(run, 4)
    assert "no checkpoint yet: starting at step 0" in capsys.readouterr().out
    assert [record["step"] for record in read_records(run / "metrics.jsonl")] == [0, 1, 2, 3]


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(run, whole, capsys):
    newest = run / "checkpoints" / f"step_{STEPS:08d}" / "training.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    resumed(run)
    shown = capsys.readouterr().out
    assert f"step_{STEPS:08d} is damaged: the content of training.safetensors differs from what was written" in shown
    assert f"resumed from step {STEPS - 5}" in shown
    same_bytes(run, whole)
    capsys.readouterr()
    resumed(run)
    shown = capsys.readouterr().out
    assert f"the run was already complete after step {STEPS}: nothing is trained" in shown
    assert "trained 0 steps" not in shown


def test_if_every_checkpoint_is_damaged_an_error_is_raised(run):
    for file in (run / "checkpoints").glob("*/training.safetensors"):
        os.truncate(file, 100)
    before = (run / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(RunError, match=rf"every checkpoint .*step_{STEPS:08d}: training.safetensors has 100 bytes"):
            resumed(run)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_that_would_run_code_is_refused(run, tmp_path):
    marker = tmp_path / "marker"
    hostile_pickle(run, marker)
    with pytest.raises(RunError, match=r"training.safetensors is damaged"):
        resumed(run)
    assert not marker.exists()
    (file,) = (run / "checkpoints").glob(f"step_{STEPS:08d}/training.safetensors")
    pickle.loads(file.read_bytes())  # it would have run
    assert marker.exists()


def test_a_damaged_backbone_is_reported(run):
    (run / "backbone.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match=r"backbone.safetensors is damaged"):
        RunFolder(run).backbone()


def test_training_stops_soon_after_a_failed_checkpoint(tmp_path, monkeypatch):
    def full(state, folder):
        raise OSError(28, "No space left on device", str(folder / "training.safetensors"))

    monkeypatch.setattr(whole_state, "write", full)
    changes = [*CHANGES, "training.steps=100000", "training.checkpoint_every=200"]
    with pytest.raises(RunError, match=r"after step 200 .*training.safetensors: No space left .*no earlier one"):
        pretrain("quickstart", changes, run=tmp_path / "run")
    assert 200 <= len(read_records(tmp_path / "run" / "metrics.jsonl")) < 400


def recorded_id(run):
    return json.loads((run / "environment.json").read_text())["run"]


def ids_of_checkpoints(run):
    return {json.loads(file.read_text())["run"] for file in (run / "checkpoints").glob("step_*/checkpoint.json")}


def with_id(checkpoint, run_id):
    """Write a checkpoint's manifest anew, with another id of the run or none."""
    facts = check(checkpoint)
    del facts["run"]
    (checkpoint / "checkpoint.json").unlink()
    write_manifest(checkpoint, facts | ({"run": run_id} if run_id else {}))


def test_a_checkpoint_of_another_run_is_set_aside(run, whole, capsys):
    assert ids_of_checkpoints(run) == {recorded_id(run)}
    assert "run" not in read_records(run / "metrics.jsonl")[0]
    newest = run / "checkpoints" / f"step_{STEPS:08d}"
    with_id(newest, "0" * 32)
    resumed(run)
    shown = capsys.readouterr().out
    assert (
        f"{newest} cannot be used: it is a checkpoint of another run; it was renamed to damaged_{newest.name}" in shown
    )
    assert f"resumed from step {STEPS - 5}" in shown
    same_bytes(run, whole)
    assert ids_of_checkpoints(run) == {recorded_id(run)} == {recorded_id(whole)}


@pytest.mark.parametrize("text", ["[", "[1]", "{}", '{"run": 5}', '{"run": "other"}', '{"run": "%s"}' % ("A" * 32)])
def test_what_is_no_id_is_not_compared(text, tmp_path):
    (tmp_path / "environment.json").write_text(text)
    assert RunFolder(tmp_path).run_id() is None


def test_without_an_id_the_run_takes_that_of_its_newest_checkpoint(run, whole, capsys):
    assert RunFolder(run).run_id() == recorded_id(whole)
    (run / "environment.json").unlink()
    resumed(run)
    shown = capsys.readouterr().out
    assert f"the run was already complete after step {STEPS}: nothing is trained" in shown
    assert "trained 0 steps" not in shown
    assert recorded_id(run) == recorded_id(whole)


def test_a_run_of_an_earlier_version_gets_an_id(run, whole, capsys):
    described = json.loads((run / "environment.json").read_text())
    del described["run"]
    (run / "environment.json").write_text(json.dumps(described))
    for checkpoint in (run / "checkpoints").iterdir():
        with_id(checkpoint, None)
    resumed(run)
    new = recorded_id(run)
    assert re.fullmatch("[0-9a-f]{32}", new)
    assert new != recorded_id(whole)
    resumed(run)
    shown = capsys.readouterr().out
    assert f"the run was already complete after step {STEPS}: nothing is trained" in shown
    assert "trained 0 steps" not in shown
    assert recorded_id(run) == new
    same_bytes(run, whole)


def test_a_checkpoint_that_does_not_fit_is_named_with_what_to_do(run):
    newest = run / "checkpoints" / f"step_{STEPS:08d}"
    state = load_file(newest / "training.safetensors")
    save_file({name: value.double() for name, value in state.items()}, newest / "training.safetensors")
    facts = check_again(newest)
    assert facts["step"] == STEPS
    before = (run / "metrics.jsonl").read_bytes()
    expected = r"training.safetensors does not fit this recipe: .* is float64, not .* Rename or remove .*"
    with pytest.raises(RunError, match=f"{newest.name}/{expected}{newest.name} "):
        resumed(run)
    assert (run / "metrics.jsonl").read_bytes() == before


def check_again(checkpoint):
    """Write the checksums of a checkpoint that was changed."""
    facts = manifest(checkpoint)
    del facts["files"]
    (checkpoint / "checkpoint.json").unlink()
    write_manifest(checkpoint, facts)
    return check(checkpoint)


def test_keep_every_must_be_a_multiple_of_checkpoint_every():
    with pytest.raises(RecipeErrors, match=r"keep_every: must be a multiple of training.checkpoint_every = 10, got 15"):
        read_recipe("quickstart", ["training.checkpoint_every=10", "training.keep_every=15"])


def test_another_batch_size_is_refused(run):
    before = {path: path.read_bytes() for path in run.rglob("*.js*")}
    with pytest.raises(RunError, match="batch_size"):
        resumed(run, STEPS, "training.batch_size=16")
    assert {path: path.read_bytes() for path in run.rglob("*.js*")} == before


def test_fewer_steps_than_done_are_refused(run):
    with pytest.raises(RunError, match=rf"is at step {STEPS}, past training.steps"):
        resumed(run, STEPS - 1)
