"""The run folder of a stranger is safe to evaluate, report, export, load and resume: nothing outside it is read or written,
nothing hangs, and every error is one that is explained."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import TINY
from time_limit import at_most

from wildfern.launch import evaluate, load_backbone, pretrain
from wildfern.launch.exit_codes import explained
from wildfern.launch.exporting import export_backbone
from wildfern.ssl.evaluation import write_report
from wildfern.ssl.training.checksums import write_manifest

SECONDS = 30
CHANGES = [*TINY, "training.checkpoint_every=1", "training.keep_checkpoints=2", "training.precision=fp32"]
PARTS = [
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "timings.jsonl",
    "data.json",
    "data_files.txt.gz",
    "views.png",
    "backbone.safetensors",
    "evaluation.json",
    "report.html",
    "skipped.jsonl",
    "nonfinite.jsonl",
    "wandb_id",
    ".lock",
    ".recipe.yaml",
    ".environment.json",
    "metrics.jsonl.partial",
]
READ = ["recipe.yaml", "environment.json", "metrics.jsonl", "views.png", "backbone.safetensors", "evaluation.json"]


def report(run: Path) -> object:
    return write_report([run], run.parent / "report.html").read_text()


def score(run: Path) -> object:
    return evaluate(run, "digits", "knn").rows


def export(run: Path) -> object:
    return export_backbone(run, "safetensors")


def load(run: Path) -> object:
    return load_backbone(run)


def resume(run: Path) -> object:
    return pretrain(run / "recipe.yaml", ["training.steps=3"], run=run, resume=True)


USES = [report, score, export, load, resume]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = pretrain("quickstart", [*CHANGES, "training.steps=2"], run=tmp_path_factory.mktemp("strange") / "run")
    evaluate(run, "digits", "knn")
    return run


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def victim(tmp_path):
    """Everything that must stay as it is."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "secret").write_text("a secret: 5e3c9a")
    (folder / "step_00000001").mkdir()
    (folder / "step_00000001" / "precious").write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def used(use, run: Path, victim: Path) -> str:
    """What a use of the folder says: its error, or its result. The victim stays as it was, and is not in the result."""
    before, error = contents(victim), None
    try:
        with at_most(SECONDS):
            said = repr(use(run))
    except Exception as caught:
        error = caught
    if error is not None:
        code, said = explained(error)
        assert code is not None, repr(error)
        assert said
        assert "\n" not in said.strip() or type(error).__name__ == "RecipeErrors", said
    assert contents(victim) == before
    assert "5e3c9a" not in said
    return said


def replaced(path: Path) -> Path:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def link(path: Path, victim: Path) -> None:
    replaced(path).symlink_to(victim / "secret")


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(replaced(path))


def endless(path: Path, victim: Path) -> None:
    replaced(path).symlink_to("/dev/zero")


def folder(path: Path, victim: Path) -> None:
    replaced(path).mkdir()


def bound(path: Path, victim: Path) -> None:
    here = os.getcwd()
    os.chdir(replaced(path).parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("use", [report, load])
@pytest.mark.parametrize("plant", [link, fifo, endless, folder, bound])
def test_each_part_that_is_read_may_be_planted(run, victim, plant, use):
    for part in READ:
        kept = run / "kept"
        if there := (run / part).exists():
            shutil.copy(run / part, kept)
        plant(run / part, victim)
        used(use, run, victim)
        replaced(run / part)
        if there:
            shutil.copy(kept, run / part)


@pytest.mark.parametrize("use", [score, export, resume])
@pytest.mark.parametrize("plant", [link, fifo])
def test_all_parts_but_recipe_and_weights_may_be_planted(run, victim, plant, use):
    for part in PARTS:
        if part not in ("recipe.yaml", "backbone.safetensors"):
            plant(run / part, victim)
    used(use, run, victim)


@pytest.mark.parametrize("name", ["checkpoints", "evaluation_details", "plugins", "wandb"])
def test_folders_in_it_may_be_links(run, victim, name):
    replaced(run / name).symlink_to(victim, target_is_directory=True)
    said = used(resume, run, victim)
    assert name != "checkpoints" or "symbolic link" in said


BOMBS = {
    "recipe.yaml": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(12)),
    "evaluation.json": b'{"rows": ' + b"[" * 50_000,
    "environment.json": b'{"weights": ' * 50_000,
    "metrics.jsonl": b'{"step": 1e400, "loss": 1}\n{"step": "\\ud800"}\n{"step": '
    + b"9" * 5000
    + b"}\n"
    + b"[" * 50_000
    + b"\n",
    "data.json": b"[" * 50_000,
    "backbone.safetensors": b"\xff" * 8 + b"{}",
}


@pytest.mark.parametrize("use", [report, score, resume])
@pytest.mark.parametrize("part", BOMBS)
def test_each_file_may_be_a_bomb(run, victim, part, use):
    (run / part).write_bytes(BOMBS[part])
    used(use, run, victim)


def other_shapes(state: dict) -> dict:
    return {name: torch.zeros(*tensor.shape, 2) for name, tensor in state.items()}


def other_types(state: dict) -> dict:
    return {name: tensor.to(torch.int8) for name, tensor in state.items()}


def other_names(state: dict) -> dict:
    return {name.replace(".", "_"): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("use", [score, load])
@pytest.mark.parametrize("change", [other_shapes, other_types, other_names])
def test_the_backbone_may_be_of_another_network(run, victim, change, use):
    save_file(change(load_file(run / "backbone.safetensors")), run / "backbone.safetensors")
    assert "backbone.safetensors" in used(use, run, victim)


def rewritten(checkpoint: Path, **changes) -> None:
    """A manifest with other entries, and right checksums."""
    metadata = json.loads((checkpoint / "checkpoint.json").read_text())
    for name in ("files", "sha256"):
        metadata.pop(name)
    (checkpoint / "checkpoint.json").unlink()
    write_manifest(checkpoint, metadata | changes)


@pytest.mark.parametrize("change", [other_shapes, other_types, other_names])
def test_the_state_of_a_checkpoint_may_not_fit(run, victim, change):
    newest = max((run / "checkpoints").glob("step_*"))
    file = newest / "training.safetensors"
    save_file(change(load_file(file)), file)
    rewritten(newest)
    assert "training.safetensors" in used(resume, run, victim)


def test_a_checkpoint_of_another_run_is_set_aside(run, victim, tmp_path):
    other = pretrain("quickstart", [*CHANGES, "training.steps=2", "seed=5"], run=tmp_path / "other")
    newest = max((run / "checkpoints").glob("step_*"))
    shutil.rmtree(newest)
    shutil.copytree(other / "checkpoints" / newest.name, newest)
    resume(run)
    assert (run / "checkpoints" / f"damaged_{newest.name}").is_dir()


@pytest.mark.parametrize(
    "name", ["step_²", "step_٣", "step_", "step_-1", "step_00000009", "step_3", "damaged_step_00000002"]
)
def test_names_of_checkpoints_that_are_none(run, victim, name):
    (run / "checkpoints" / name).mkdir(exist_ok=True)
    resume(run)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2


def test_the_state_of_a_checkpoint_may_be_a_link_or_a_fifo(run, victim):
    for checkpoint in (run / "checkpoints").glob("step_*"):
        link(checkpoint / "training.safetensors", victim)
    assert "damaged" in used(resume, run, victim)


def test_plugins_of_a_strangers_folder_are_not_run(run, victim):
    (run / "plugins").mkdir()
    (run / "plugins" / "mine.py").write_text(f"open({str(victim / 'secret')!r}, 'w').write('run')")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("plugins: []", "plugins: [plugins/mine.py]"))
    for use in (score, export, load, resume):
        used(use, run, victim)


def test_the_folder_is_as_good_as_before_for_its_owner(run, victim):
    """What the tests above compare with: each use works."""
    for use in USES:
        said = used(use, run, victim)
        if use is report:  # whose scripts may have the word
            assert said.endswith("</html>\\n'")
        else:
            assert "error" not in said.lower().replace("calibration_error", "")
    assert np.isfinite(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"])
