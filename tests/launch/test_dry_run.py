"""`wildfern pretrain … --dry-run` and the trial steps that it measures."""

import re
from functools import partial

import pytest
import torch
from PIL import Image
from small_runs import TINY

from wildfern.launch import dry_run
from wildfern.launch.assembly import assemble
from wildfern.launch.cluster.distributed import start
from wildfern.launch.components import read_recipe
from wildfern.launch.dry_run import size_words
from wildfern.launch.expected_time import matrix_flops, rough_duration
from wildfern.launch.pretrain import main
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.training import trial_steps as trials


@pytest.fixture(autouse=True)
def two_timed_steps(monkeypatch):
    monkeypatch.setattr(dry_run, "trial_steps", partial(trials.trial_steps, seconds=0.0))


CHANGES = [*TINY, "training.precision=fp32", "training.steps=40", "optimizer.base_learning_rate=0.05"]


def test_a_dry_run_prints_a_recipe_and_what_it_would_do_and_writes_nothing(wildfern, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 90, 9)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    data = "data=[{source: ifs, size: 32, points: 200, weight: 3}, folder:images]"
    changes = [change for change in CHANGES if not change.startswith("data.")]
    before = sorted(tmp_path.rglob("*"))
    done = wildfern("pretrain", "quickstart", *changes, data, "evaluation.on=[digits]", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "printed.yaml").write_text(done.stdout)
    asked = read_recipe("quickstart", [*changes, data, "evaluation.on=[digits]"], data_here=False)
    assert read_recipe(tmp_path / "printed.yaml", data_here=False) == asked
    comments = "\n".join(line for line in done.stdout.splitlines() if line.startswith("# "))
    for expected in (
        r"data: ifs: endless, 75% of the images",
        r"data: folder:images: 3 images, .*25% of the images",
        r"note: .*passed over.*1 other file",
        r"data: 320 images in 40 steps",
        r"views: simclr, 2 of 32 px, 3 channels",
        r"network: resnet18, 19,072 parameters, features of width 8;",
        r"note: learning rate 0\.0015625: optimizer\.base_learning_rate 0\.05 × 8/256",
        r"memory: .* MiB at the peak of a real step",
        r"time: .* per step, .* images/s on this CPU \(mean of \d+ real steps",
        r"time: about .* for 40 steps, until ",
        r"disk: checkpoints of \d+ KiB, at most 1 at a time: \d+ KiB; .* are free at runs/quickstart-",
        r"evaluation: on digits with linear, knn, 5 labels per class, at the end",
    ):
        assert re.search(expected, comments), f"{expected} is not in\n{comments}"


def test_a_dry_run_reports_the_errors_of_a_run(wildfern):
    done = wildfern("pretrain", "quickstart", "--dry-run", "--resume", "--run", "x")
    assert (done.returncode, done.stderr.strip()) == (2, "--dry-run describes a new run: leave out --resume")
    done = wildfern("pretrain", "quickstart", *TINY, "data=folder:nowhere", "--dry-run")
    assert done.returncode == 2
    assert "there is no nowhere" in done.stderr


def test_a_batch_that_would_take_long_is_measured_with_fewer_images(wildfern, monkeypatch):
    changes = [*CHANGES, "training.steps=400000", "training.checkpoint_every=1000", "training.loader_threads=0"]
    whole = wildfern("pretrain", "quickstart", *changes, "--dry-run")
    monkeypatch.setattr(dry_run, "LONGEST_STEP", 1e-9)
    few = wildfern("pretrain", "quickstart", *changes, "--dry-run")
    assert "# note: measured with 2 of 8 images, since a step with all of them would take long" in few.stdout
    assert re.search(r"# memory: about .* MiB, estimated", few.stdout)
    disk = [re.search(r"# disk: (.*); ", done.stdout)[1] for done in (whole, few)]
    assert disk[0] == disk[1]
    size = float(re.match(r"checkpoints of (\d+) KiB, at most 3 at a time", disk[0])[1])
    assert size == pytest.approx(3 * 4 * 19_376 / 1024, rel=0.02)  # weights and two moments, besides batch statistics


def test_trial_steps_are_those_of_the_run(tmp_path, monkeypatch):
    recipe = read_recipe("quickstart", [*CHANGES, "training.accumulation=2", "training.loader_threads=0"])
    assembly = assemble(recipe, RunFolder(tmp_path / "none"), start(recipe))
    trained, read, step = [], [], trials.train_step

    def noted(number, config, engine, reader, *rest):
        trained.append(number)
        return step(number, config, engine, reader, *rest)

    monkeypatch.setattr(trials, "train_step", noted)
    reader = assembly.reader
    monkeypatch.setattr(type(reader), "indices", lambda self, s, p: read.append((s, p)) or s * 8 + self.positions(p))
    trial = trials.trial_steps(assembly.config, assembly.engine, reader, assembly.schedule, seconds=0.0)
    assert trained == [0, 1, 2, 3]  # the first, two that are timed, one for memory
    assert read == [(0, 0), (0, 0), (0, 1), *((s, part) for s in range(4) for part in range(2))]
    assert (trial.batch_size, trial.steps) == (8, 2)
    assert trial.images_per_second == pytest.approx(8 / trial.step_seconds)
    weights = 4 * sum(p.numel() for p in assembly.engine.method.parameters())
    assert trial.peak > 3 * weights  # with the two moments of AdamW
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (0.4, "0.4 seconds"),
        (80, "80 seconds"),
        (100, "1.7 minutes"),
        (3 * 3600, "3 hours"),
        (6.2 * 86400, "6.2 days"),
        (40 * 86400, "40 days"),
        (3e9, "95 years"),
    ],
)
def test_rough_durations(seconds, words):
    assert rough_duration(seconds) == words


def test_sizes_in_words():
    assert [size_words(n) for n in (0, 2048, 5e6, 3 * 2**30)] == ["0 KiB", "2 KiB", "4.8 MiB", "3 GiB"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_speed_of_matrix_products_is_that_of_a_processor(precision):
    assert 1e8 < matrix_flops(torch.device("cpu"), precision, 0.0) < 1e15


RANKS = {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def test_of_several_processes_rank_0_describes_the_run_and_the_others_end(tmp_path, monkeypatch, capsys):
    """Nobody waits for anybody: no process listens at the address of the master."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--recipe", "quickstart", *CHANGES, "--run", "run", "--dry-run"]
    said = []
    for rank in "10":
        for name, value in {**RANKS, "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, value)
        main(arguments)
        said.append(capsys.readouterr().out)
    assert said[0] == ""
    assert (
        "# note: memory and time below are those of one process with the whole batch of 8 images, which 2 will"
        in said[1]
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "printed.yaml").write_text(said[1])
    asked = read_recipe("quickstart", [*CHANGES, "engine.name=deepspeed"], data_here=False)
    assert read_recipe(tmp_path / "printed.yaml", data_here=False) == asked


def test_a_launched_dry_run_of_a_resumed_run_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--recipe", "quickstart", "--run", "x", "--resume", "--dry-run"])
    assert (end.value.code, capsys.readouterr().err) == (2, "--dry-run describes a new run: leave out --resume\n")
