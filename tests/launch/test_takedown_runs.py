"""Which runs have read images that are taken down, by what their processes knew when they started."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from curated_images import write_scenes
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import open_mixture
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.components import read_recipe
from wildfern.launch.curated_record import Reading
from wildfern.launch.curating import scan
from wildfern.launch.data_record import new_takedowns, record_data, record_resume
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.takedown_runs import _last_steps, _seen, runs_that_saw
from wildfern.recipes import Recipe
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.curation.takedowns import Takedown, add_takedowns
from wildfern.ssl.data import open_source
from wildfern.ssl.data.subset import Subset

RUN = [word for word in TINY if not word.startswith(("data.", "training.log_every"))]
LOG = '{{"step": {}, "loss": 1.0}}\n'


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A folder with 24 images, of which a batch is a third."""
    folder = tmp_path_factory.mktemp("scanned")
    write_scenes(folder / "images", 24)
    scan([str(folder / "images")], folder / "curated", changes=["tiny.min_side=16"], processes=1)
    return folder / "curated"


@pytest.fixture
def curated(scanned, tmp_path):
    """A copy of it, without takedowns."""
    return shutil.copytree(scanned, tmp_path / "curated")


def image(curated: Path, name: str) -> Takedown:
    """The takedown of an image, which is not yet in the list."""
    rows = Manifest(curated).table(["path", "sha256", "pixels_sha256", "container"]).to_pylist()
    (row,) = [row for row in rows if row["path"] == name]
    place = (row["container"], name)
    return Takedown("2026-01-01", row["sha256"], row["pixels_sha256"], None, "folder:images", *place, "asked")


def recipe_of(curated: Path, *changes: str, more: str = "") -> Recipe:
    data = f"data=[{{source: 'curated:{curated}'}}{more}]"
    return read_recipe("quickstart", [*RUN, "training.log_every=1", data, "training.steps=60", *changes])


def start(run: Path, recipe: Recipe) -> RunFolder:
    folder = RunFolder(run)
    folder.begin(recipe)
    record_data(recipe, open_mixture(recipe), folder)
    log(folder, 0)
    return folder


def log(folder: RunFolder, count: int, log_every: int = 1) -> None:
    """The log of a run after its first `count` steps."""
    steps = [step for step in range(count) if step == 0 or (step + 1) % log_every == 0]
    (folder.path / "metrics.jsonl").write_text("".join(map(LOG.format, steps)))


def resume(folder: RunFolder, recipe: Recipe) -> None:
    record_resume(open_mixture(recipe), folder, recipe)


def steps_of(recipe: Recipe, name: str, count: int) -> list[int]:
    """Those of the first `count` steps that an image has a place in, by a plain loop."""
    mixture, found = open_mixture(recipe), []
    for step in range(count):
        components, _, items = mixture.locate(range(8 * step, 8 * step + 8))
        for component, item in zip(components, items, strict=True):
            if component == 0 and mixture.sources[0].item_name(item).endswith(f"/{name}"):
                found.append(step)
    return found


def steps_told(folder: RunFolder, curated: Path, name: str) -> list[int]:
    found = _seen(folder, curated, {image(curated, name).sha256})
    assert found is not None
    return [int(index) // 8 for index in found.indices]


@pytest.mark.parametrize("more", ["", ", {source: ifs, size: 32, points: 200}"], ids=["alone", "one of two"])
def test_steps_count_up_to_the_resume_that_knew_of_the_takedown(curated, tmp_path, more):
    """One image is taken down before the first resume, the next before the third, the last when the run has ended."""
    recipe = recipe_of(curated, more=more)
    folder = start(tmp_path / "run", recipe)
    log(folder, 20)
    add_takedowns(curated, [image(curated, "scene_03.png")])
    resume(folder, recipe)
    log(folder, 30)
    resume(folder, recipe)
    log(folder, 40)
    add_takedowns(curated, [image(curated, "scene_04.png")])
    resume(folder, recipe)
    log(folder, 60)
    for _ in range(2):  # before and after the takedown of the last
        # With the step after the last line of the log: it may have been trained, too.
        for name, count in (("scene_03.png", 21), ("scene_04.png", 41), ("scene_05.png", 60)):
            assert steps_told(folder, curated, name) == steps_of(recipe, name, count), name
        add_takedowns(curated, [image(curated, "scene_05.png")])


def test_steps_that_were_trained_twice_were_read_the_first_time(curated, tmp_path):
    """The run was killed after 40 steps, and goes on after its checkpoint of 20; then it is killed again."""
    recipe = recipe_of(curated)
    folder = start(tmp_path / "run", recipe)
    log(folder, 40)
    resume(folder, recipe)
    log(folder, 22)
    add_takedowns(curated, [image(curated, "scene_03.png")])
    resume(folder, recipe)
    log(folder, 20)
    assert steps_told(folder, curated, "scene_03.png") == steps_of(recipe, "scene_03.png", 41)


def test_steps_that_were_not_logged_may_have_been_trained(curated, tmp_path):
    """The interval of the log is that of the process that was killed, not that of the one that goes on."""
    former, recipe = recipe_of(curated, "training.log_every=10"), recipe_of(curated)
    folder = start(tmp_path / "run", former)
    log(folder, 29, 10)
    add_takedowns(curated, [image(curated, "scene_03.png")])
    assert steps_told(folder, curated, "scene_03.png") == steps_of(former, "scene_03.png", 30)
    folder.begin(recipe)
    resume(folder, former)
    log(folder, 60)
    assert steps_told(folder, curated, "scene_03.png") == steps_of(former, "scene_03.png", 30)


def test_a_checkpoint_after_the_last_line_of_the_log_counts(curated, tmp_path):
    recipe = recipe_of(curated, "training.log_every=10")
    folder = start(tmp_path / "run", recipe)
    log(folder, 12, 10)
    (folder.path / "checkpoints" / "step_00000025").mkdir(parents=True)
    assert steps_told(folder, curated, "scene_03.png") == steps_of(recipe, "scene_03.png", 30)


def test_a_run_that_goes_back_to_its_start_keeps_what_was_read(curated, tmp_path):
    """Without a checkpoint the record is written anew."""
    recipe = recipe_of(curated)
    folder = start(tmp_path / "run", recipe)
    log(folder, 15)
    add_takedowns(curated, [image(curated, "scene_03.png")])
    record_data(recipe, open_mixture(recipe), folder, former=recipe)
    log(folder, 0)
    assert steps_told(folder, curated, "scene_03.png") == steps_of(recipe, "scene_03.png", 16)


@pytest.mark.parametrize("content", [None, "[", "[]"], ids=["missing", "damaged", "empty"])
def test_a_run_without_its_record_may_have_read_everything_before(curated, tmp_path, content):
    recipe = recipe_of(curated)
    folder = start(tmp_path / "run", recipe)
    log(folder, 15)
    add_takedowns(curated, [image(curated, "scene_03.png")])
    (folder.path / "data.json").unlink()
    if content is not None:
        (folder.path / "data.json").write_text(content)
    record_data(recipe, open_mixture(recipe), folder, former=recipe)
    log(folder, 60)
    assert steps_told(folder, curated, "scene_03.png") == steps_of(recipe, "scene_03.png", 16)


@pytest.mark.parametrize(
    "earlier", [None, 3, [3], [{}], [{"takedowns": True, "taken_down": 0, "last_step": 3}],
                [{"takedowns": 0, "taken_down": 0, "last_step": 2**62}]],
)  # fmt: skip
def test_a_record_of_strangers_or_of_former_versions_counts_as_one_process(curated, tmp_path, earlier):
    recipe = recipe_of(curated)
    folder = start(tmp_path / "run", recipe)
    log(folder, 30)
    (entry,) = json.loads((folder.path / "data.json").read_text())
    assert "earlier" not in entry["curated"]
    if earlier is not None:
        entry["curated"]["earlier"] = earlier
    folder.write_json("data.json", [entry])
    add_takedowns(curated, [image(curated, "scene_03.png")])
    assert steps_told(folder, curated, "scene_03.png") == steps_of(recipe, "scene_03.png", 31)
    assert len(new_takedowns(recipe, open_mixture(recipe), folder)) == 1


def test_a_subset_has_the_steps_of_its_own_items(curated):
    source = open_source(f"curated:{curated}")
    names = [source.item_name(item) for item in range(24)]
    first = next(item for item, name in enumerate(names) if name.endswith("/scene_03.png"))
    digest = image(curated, "scene_03.png").sha256
    chosen = Subset(source, np.array([5, 6, first, 7]))
    assert _last_steps(chosen, {digest}, Reading(0, 0, 9)).tolist() == [-1, -1, 9, -1]


def test_a_run_that_started_after_the_takedown_has_not_seen_the_image(curated, tmp_path):
    one = image(curated, "scene_03.png")
    add_takedowns(curated, [one])
    log(start(tmp_path / "runs" / "a", recipe_of(curated)), 60)
    assert runs_that_saw(curated, [one], tmp_path / "runs") == [f"{tmp_path}/runs/a: has not seen them"]


def test_a_resumed_run_is_told_with_the_steps_before(curated, tmp_path):
    """By real runs, one after the takedown."""
    data = f"data=curated:{curated}"
    changes = [*RUN, "training.log_every=1", data, "training.checkpoint_every=4", "schedule.length=4"]
    run = pretrain("quickstart", [*changes, "training.steps=4"], run=tmp_path / "runs" / "a")
    one = image(curated, "scene_03.png")
    steps = steps_of(recipe_of(curated), "scene_03.png", 4)
    lines = runs_that_saw(curated, [one], tmp_path / "runs")
    times = f"{len(steps)} time{'s' * (len(steps) > 1)}"
    told = f"{run}: reads them {times} up to step 3, in {times.replace('time', 'step')}: {', '.join(map(str, steps))}"
    assert lines[0] == told
    add_takedowns(curated, [one])
    pretrain("quickstart", [*changes, "training.steps=12"], run=run, resume=True)
    for _ in range(2):
        lines = runs_that_saw(curated, [one], tmp_path / "runs")
        assert lines[0] == f"{told}; it was resumed after they were taken down, and does not read them any more"


def test_a_run_that_is_running_reads_them_until_it_is_resumed(curated, tmp_path):
    one, recipe = image(curated, "scene_03.png"), recipe_of(curated)
    folder = start(tmp_path / "runs" / "a", recipe)
    words = "; it is running, and reads them until it is stopped and resumed"
    with lock(folder.path):
        assert runs_that_saw(curated, [one], tmp_path / "runs")[0].endswith(words)
        log(folder, 20)
        add_takedowns(curated, [one])
        assert runs_that_saw(curated, [one], tmp_path / "runs")[0].endswith(words)
        resume(folder, recipe)  # knows it, while it runs
        assert "it is running" not in runs_that_saw(curated, [one], tmp_path / "runs")[0]


def test_a_run_that_was_killed_or_has_ended_is_not_running(curated, tmp_path):
    one = image(curated, "scene_03.png")
    folder = start(tmp_path / "runs" / "a", recipe_of(curated))
    for content in (None, "", "process 1 on this host\n"):
        if content is not None:
            (folder.path / ".lock").write_text(content)
        assert "it is running" not in runs_that_saw(curated, [one], tmp_path / "runs")[0]
    with lock(folder.path):  # the question took no lock that would stay
        pass


def test_a_folder_without_runs_is_no_comfort(curated, tmp_path):
    one = image(curated, "scene_03.png")
    (line,) = runs_that_saw(curated, [one], tmp_path / "nosuch")
    assert line.startswith(f"there is no folder {tmp_path}/nosuch: no run was looked through for them")
    assert "--runs" in line
    (tmp_path / "file").write_text("")
    (line,) = runs_that_saw(curated, [one], tmp_path / "file")
    assert line.startswith(f"{tmp_path}/file is not a folder: no run was looked through for them")
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    (line,) = runs_that_saw(curated, [one], tmp_path / "runs")
    assert line.startswith(f"there is no run in {tmp_path}/runs: none was looked through for them")
    start(tmp_path / "runs" / "other", read_recipe("quickstart", RUN))
    (line,) = runs_that_saw(curated, [one], tmp_path / "runs")
    assert line.startswith(f"no run in {tmp_path}/runs was trained on {curated}")
    assert runs_that_saw(curated, [], tmp_path / "nosuch") == []


def test_a_run_without_a_log_cannot_be_told(curated, tmp_path):
    """It may have been copied without it."""
    folder = start(tmp_path / "runs" / "a", recipe_of(curated))
    (folder.path / "metrics.jsonl").unlink()
    (line,) = runs_that_saw(curated, [image(curated, "scene_03.png")], tmp_path / "runs")
    assert "cannot tell whether it has seen them" in line
