"""What `data.json` says of a curated folder after a run was resumed."""

import json
import shutil

import pytest
from curated_images import write_scenes
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import open_mixture
from wildfern.launch.components import read_recipe
from wildfern.launch.curating import scan
from wildfern.launch.data_record import new_takedowns, record_data, record_resume
from wildfern.launch.model_card import model_card
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.curation.takedowns import Takedown, add_takedowns

RUN = [word for word in TINY if not word.startswith("data.")]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scanned")
    write_scenes(folder / "images", 16)
    scan([str(folder / "images")], folder / "curated", changes=["tiny.min_side=16"], processes=1)
    return folder / "curated"


@pytest.fixture
def curated(scanned, tmp_path):
    """A copy, without takedowns."""
    return shutil.copytree(scanned, tmp_path / "curated")


def take_down(curated, *names):
    rows = Manifest(curated).table(["path", "sha256"]).to_pylist()
    digests = {row["path"]: row["sha256"] for row in rows}
    taken = [Takedown("2026-01-01", digests[name], None, None, "folder:x", "/x", name, "asked") for name in names]
    add_takedowns(curated, taken)


def counts(run):
    (entry,) = json.loads((run / "data.json").read_text())
    return {key: entry["curated"].get(key) for key in ("takedowns", "taken_down", "earlier")}


def test_a_resumed_run_records_what_is_taken_down_and_what_it_knew_before(curated, tmp_path, capsys):
    changes = [*RUN, f"data=curated:{curated}", "training.checkpoint_every=2", "schedule.length=4"]
    run = pretrain("quickstart", [*changes, "training.steps=2"], run=tmp_path / "run")
    before = json.loads((run / "data.json").read_text())
    assert counts(run) == {"takedowns": 0, "taken_down": 0, "earlier": None}
    take_down(curated, "scene_03.png", "scene_04.png")

    capsys.readouterr()
    pretrain("quickstart", [*changes, "training.steps=4"], run=run, resume=True)
    assert "scene_03.png" in capsys.readouterr().out
    first = {"takedowns": 0, "taken_down": 0, "last_step": 1}
    assert counts(run) == {"takedowns": 2, "taken_down": 2, "earlier": [first]}
    after = json.loads((run / "data.json").read_text())
    assert {**after[0], "curated": None} == {**before[0], "curated": None}
    assert after[0]["curated"]["licenses"] == before[0]["curated"]["licenses"]

    take_down(curated, "scene_05.png")
    recipe = RunFolder(run).recipe()
    (message,) = new_takedowns(recipe, open_mixture(recipe), RunFolder(run))  # of the newer one alone
    assert "scene_05.png" in message
    assert "scene_03.png" not in message
    pretrain("quickstart", [*changes, "training.steps=6"], run=run, resume=True)
    second = {"takedowns": 2, "taken_down": 2, "last_step": 3}
    assert counts(run) == {"takedowns": 3, "taken_down": 3, "earlier": [first, second]}
    assert new_takedowns(recipe, open_mixture(recipe), RunFolder(run)) == []
    card = "\n".join(model_card(RunFolder(run), "backbone.pth", "load()", "read back, the same"))
    assert "3 of them were taken down during the run, which may have read them up to step 3, but not afterwards" in card
    assert "when the run started" not in card


def test_resumes_that_knew_the_same_are_one_entry(curated, tmp_path):
    recipe = read_recipe("quickstart", [*RUN, f"data=curated:{curated}", "training.steps=60"])
    folder = RunFolder(tmp_path)
    record_data(recipe, open_mixture(recipe), folder)
    for count, last in ((0, None), (3, 3), (9, 9), (5, 9)):  # the last resume was after an older checkpoint
        lines = "".join(f'{{"step": {step}}}\n' for step in range(count))
        if last is not None:
            (tmp_path / "metrics.jsonl").write_text(lines)
        record_resume(open_mixture(recipe), folder, recipe)
        earlier = None if last is None else [{"takedowns": 0, "taken_down": 0, "last_step": last}]
        assert counts(tmp_path) == {"takedowns": 0, "taken_down": 0, "earlier": earlier}


def test_a_new_run_does_not_inherit_the_record_of_a_former_one(curated, tmp_path):
    """Its recipe and checkpoints were removed, and the folder is used again."""
    recipe = read_recipe("quickstart", [*RUN, f"data=curated:{curated}", "training.steps=60"])
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 30}\n')
    record_data(recipe, open_mixture(recipe), folder)
    record_resume(open_mixture(recipe), folder, recipe)
    record_data(recipe, open_mixture(recipe), folder)
    assert counts(tmp_path)["earlier"] is None


def test_a_resume_without_curated_sources_leaves_the_record_alone(tmp_path):
    recipe = read_recipe("quickstart", TINY)
    folder = RunFolder(tmp_path)
    folder.write_json("data.json", [{"source": "ifs", "items": None}])
    before = (tmp_path / "data.json").stat()
    record_resume(open_mixture(recipe), folder, recipe)
    after = (tmp_path / "data.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
