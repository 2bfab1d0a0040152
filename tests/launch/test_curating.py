"""`wildfern curate`: from a folder to a page, a run, a takedown in the middle of it, and back."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from curated_images import scene, write_scenes
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import open_mixture
from wildfern.launch.components import read_recipe
from wildfern.launch.curated_record import evaluated_outside
from wildfern.launch.curating import diff, merge, review, scan
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.takedown import remove
from wildfern.ssl.curation.manifest import CurationError, Manifest
from wildfern.ssl.curation.marks import read_marks
from wildfern.ssl.data import open_source

SMALL = ["tiny.min_side=16"]
RUN = [word for word in TINY if not word.startswith("data.")]


@pytest.fixture
def images(tmp_path):
    """Sixteen scenes of two authors, a copy, a flat image and a text."""
    folder = tmp_path / "images"
    names = write_scenes(folder, 16)
    scene(3).save(folder / "copy.jpg", quality=90)
    scene(0).resize((64, 48)).point(lambda value: 90).save(folder / "flat.png")
    (folder / "notes.txt").write_text("not an image")
    with (tmp_path / "rights.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "license", "author"])
        rows.writerows([name, ["CC-BY-4.0", "CC BY-NC 2.0"][n % 2], f"author{n % 2}"] for n, name in enumerate(names))
    return folder


def test_scan_writes_a_page_and_its_tables(wildfern, images):
    done = wildfern("curate", "scan", "images", "--metadata", "rights.csv", "--set", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "19 files, policy default: 16 kept, 0 to review, 3 rejected" in done.stdout
    assert "not checked: people" in done.stdout
    folder = images.parent / "curated"
    assert "16" in (folder / "review.html").read_text()
    with (folder / "rejected.csv").open(newline="") as file:
        rejected = {row["path"]: row["rule"] for row in csv.DictReader(file)}
    assert rejected == {"copy.jpg": "near_duplicate", "flat.png": "flat", "notes.txt": "not_an_image"}
    with (folder / "attribution.csv").open(newline="") as file:
        rights = {row["path"]: (row["license"], row["author"]) for row in csv.DictReader(file)}
    assert rights["scene_01.png"] == ("CC-BY-NC-2.0", "author1")
    assert len(rights) == 16
    assert json.loads((folder / "croissant.json").read_text())["@type"] == "sc:Dataset"
    assert "CC-BY-4.0" in (folder / "datasheet.md").read_text()
    assert len(Manifest(folder)) == 19


def test_a_second_scan_without_changes_writes_the_same_manifest(images):
    first = scan([str(images)], images.parent / "one", changes=SMALL, processes=1)
    again = scan([], images.parent / "one", processes=1)
    other = scan([str(images)], images.parent / "two", changes=SMALL, processes=2)
    assert first.manifest_sha256 == again.manifest_sha256 == other.manifest_sha256


def test_only_new_and_changed_files_are_measured(images, monkeypatch):
    folder = images.parent / "curated"
    scan([str(images)], folder, changes=SMALL, processes=1)
    scene(30).save(images / "scene_05.png")
    scene(31).save(images / "new.png")
    (images / "scene_06.png").unlink()
    measured = []
    from wildfern.ssl.curation import scan as scanning

    original = scanning.measure_listed

    def noted(kind, name, items):
        measured.extend(item.path for item in items)
        return original(kind, name, items)

    monkeypatch.setattr(scanning, "measure_listed", noted)
    found = scan([], folder, processes=1)
    assert sorted(measured) == ["new.png", "scene_05.png"]
    assert sum(found.counts.values()) == 19
    assert found.counts["keep"] == 16


def test_marks_from_the_page_decide(wildfern, images):
    folder = images.parent / "curated"
    scan([str(images)], folder, changes=SMALL, processes=1)
    rows = Manifest(folder).table(["path", "sha256"]).to_pylist()
    digest = {row["path"]: row["sha256"] for row in rows}
    marks = images.parent / "marks.csv"
    marks.write_text(f"sha256,path,mark\r\n{digest['flat.png']},flat.png,keep\r\n{digest['scene_03.png']},x,drop\r\n")
    done = wildfern("curate", "review", "curated", "--marks", "marks.csv")
    assert done.returncode == 0, done.stderr
    decisions = dict(zip(*Manifest(folder).table(["path", "decision"]).to_pydict().values(), strict=True))
    assert (decisions["flat.png"], decisions["scene_03.png"], decisions["copy.jpg"]) == ("keep", "reject", "reject")
    assert read_marks(folder / "marks.csv")[digest["flat.png"]] == "keep"
    marks.write_text(f"sha256,path,mark\r\n{digest['flat.png']},flat.png,drop\r\n")
    found = scan([], folder, marks=marks, processes=1)  # later marks replace earlier ones, and others stay
    assert found.reasons["marked"] == 3
    assert review(folder).counts == found.counts


def test_a_run_trains_on_it_and_a_takedown_works_in_the_middle(wildfern, images, tmp_path):
    folder = tmp_path / "curated"
    scan([str(images)], folder, metadata=[tmp_path / "rights.csv"], changes=SMALL, processes=1)
    changes = [*RUN, f"data=curated:{folder}", "training.checkpoint_every=2", "schedule.length=4"]
    run = pretrain("quickstart", [*changes, "training.steps=4"], run=tmp_path / "runs" / "a")
    recorded = json.loads((run / "data.json").read_text())[0]
    assert recorded["curated"]["licenses"] == {"CC-BY-4.0": 8, "CC-BY-NC-2.0": 8}
    assert (recorded["curated"]["folder"], recorded["curated"]["takedowns"]) == (str(folder), 0)
    pinned = RunFolder.for_reading(run).recipe().data[0].arguments["manifest"]
    assert recorded["curated"]["manifest"].startswith(pinned)
    untouched = pretrain("quickstart", [*changes, "training.steps=6"], run=tmp_path / "untouched")

    done = wildfern("curate", "remove", "curated", "--path", "scene_03.png", "--reason", "asked by mail")
    assert done.returncode == 0, done.stderr
    assert "taken down, copies included: 2 files" in done.stdout  # the re-encoded copy, too
    assert "runs/a: reads them 2 times" in done.stdout  # twice: 4 steps of 8 are two epochs of 16
    again = wildfern("curate", "remove", "curated", "--path", "scene_03.png")
    assert "copies included: 2 files (2 before)" in again.stdout
    assert "runs/a: reads them 2 times" in again.stdout  # also if it is asked later

    scene(40).save(images / "later.png")
    scan([], folder, processes=1)  # the run goes on with the images it was started with
    resumed = wildfern(
        "pretrain", "runs/a/recipe.yaml", "training.steps=6", "schedule.length=4", "--run", "runs/a", "--resume"
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "taken down since the run was started" in resumed.stdout
    assert "scene_03.png" in resumed.stdout
    lines = [(one / "metrics.jsonl").read_text().splitlines() for one in (run, untouched)]
    losses = [[json.loads(line)["loss"] for line in some] for some in lines]
    assert losses[0][:4] == losses[1][:4]
    exported = wildfern("export", "runs/a")
    assert exported.returncode == 0, exported.stderr
    card = (run / "model_card.md").read_text()
    assert recorded["curated"]["manifest"] in card
    assert "licenses: CC-BY-4.0 (8), CC-BY-NC-2.0 (8)" in card
    assert "16 images" in card
    fresh = open_source(f"curated:{folder}")
    assert fresh.num_items == 16  # without scene_03, with later
    assert not any("scene_03" in fresh.item_name(item) for item in range(16))


def test_remove_names_what_is_not_there_and_takes_nothing_down(images, tmp_path):
    folder = tmp_path / "curated"
    scan([str(images)], folder, changes=SMALL, processes=1)
    with pytest.raises(CurationError, match=r"no image of author nobody; nothing was taken down"):
        remove(folder, path=["scene_01.png"], author=["nobody"])
    assert not (folder / "takedowns.jsonl").exists()
    with pytest.raises(RunError, match="--sha256, --path or --author"):
        remove(folder)


def test_diff_and_merge(wildfern, images, tmp_path):
    other = tmp_path / "more"
    write_scenes(other, 4, first=14)  # two of them are in both
    scan([str(images)], tmp_path / "one", changes=SMALL, processes=1)
    scan([str(other)], tmp_path / "two", changes=SMALL, processes=1)
    remove(tmp_path / "two", path=["scene_17.png"])
    both = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both", processes=1)
    assert both.counts == {"keep": 17, "review": 0, "reject": 6}
    assert both.reasons["taken_down"] == 1
    assert both.reasons["exact_duplicate"] == 2
    found = diff(tmp_path / "one", tmp_path / "both")
    assert (len(found.added), found.removed, found.changed) == (4, [], [])
    done = wildfern("curate", "diff", "one", "both")
    assert "added: 4" in done.stdout
    with pytest.raises(RunError, match="curated folder already"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")


def test_another_source_does_not_lose_the_licenses(images, tmp_path):
    write_scenes(tmp_path / "more", 2, first=40)
    folder = tmp_path / "curated"
    scan([str(images)], folder, metadata=[tmp_path / "rights.csv"], changes=SMALL, processes=1)
    scan([str(images), str(tmp_path / "more")], folder, processes=1)
    licenses = Manifest(folder).table(["license"]).column("license").to_pylist()
    assert len(licenses) == 21
    assert sum(one is not None for one in licenses) == 16


def test_the_table_of_another_source_is_named_when_it_is_not_used(wildfern, images, tmp_path):
    scan([str(images)], tmp_path / "curated", changes=SMALL, metadata=[tmp_path / "rights.csv"], processes=1)
    images.rename(tmp_path / "renamed")
    done = wildfern("curate", "scan", "renamed", "--out", "curated")
    assert done.returncode == 0, done.stderr
    assert f"metadata of the last scan was not used, as its sources were others; --metadata {tmp_path}/rights.csv" in (
        done.stdout.replace("\n", " ")
    )


def test_a_first_scan_that_was_ended_goes_on_without_its_sources(images, tmp_path, monkeypatch):
    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("wildfern.ssl.curation.curate.measure_images", killed)
        with pytest.raises(KeyboardInterrupt):
            scan([str(images)], tmp_path / "c", changes=SMALL, metadata=[tmp_path / "rights.csv"], processes=1)
    found = scan([], tmp_path / "c", processes=1)
    assert found.counts["keep"] == 16
    whole = scan([str(images)], tmp_path / "d", changes=SMALL, metadata=[tmp_path / "rights.csv"], processes=1)
    assert found.manifest_sha256 == whole.manifest_sha256


def test_evaluation_sets_are_found_from_another_working_folder(images, tmp_path, monkeypatch):
    write_scenes(tmp_path / "test" / "a", 2)
    monkeypatch.chdir(tmp_path)
    first = scan(["images"], "c", changes=[*SMALL, "leak.against=[folder:test]"], processes=1)
    assert first.reasons["leak"] == 2
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert review("../c", processes=1).manifest_sha256 == first.manifest_sha256


def test_a_name_that_is_too_long_is_an_error(images):
    with pytest.raises(RunError, match="File name too long"):
        scan([str(images)], "x" * 300, processes=1)


def test_folders_of_the_user_are_left_alone(wildfern, images, tmp_path):
    """Whatever they are called."""
    mine = tmp_path / "photos" / "scan"
    names = write_scenes(mine, 3)
    (tmp_path / "photos" / "attribution.csv").write_text("my own")
    scan([str(images)], tmp_path / "curated", changes=SMALL, processes=1)
    for command in (
        ["scan", "photos", "--out", "photos"],
        ["merge", "curated", "curated", "--out", "photos"],
        ["export", "curated", "--out", "photos"],
        ["export", "curated", "--out", "images"],
        ["export", "curated", "--out", "images/copy"],
        ["export", "curated", "--out", "curated"],
        ["export", "curated", "--out", "."],
    ):
        assert wildfern("curate", *command).returncode == 2, command
    assert sorted(path.name for path in mine.iterdir()) == names
    assert (tmp_path / "photos" / "attribution.csv").read_text() == "my own"
    assert len(list(images.iterdir())) == 19


def test_a_review_keeps_what_a_killed_scan_has_measured(images, tmp_path):
    folder = tmp_path / "curated"
    scan([str(images)], folder, changes=SMALL, processes=1)
    part = folder / ".scan" / "part-000000.parquet"
    part.parent.mkdir()
    part.write_bytes(b"what was measured")
    review(folder)
    assert part.exists()


def test_a_wrong_source_with_marks_spoils_no_folder(wildfern, images, tmp_path):
    (tmp_path / "marks.csv").write_text("sha256,path,mark\r\n")
    (tmp_path / "empty").mkdir()
    wrong = wildfern("curate", "scan", "empty", "--marks", "marks.csv")
    assert wrong.returncode == 2
    right = wildfern("curate", "scan", "images", "--marks", "marks.csv", "--set", *SMALL)
    assert right.returncode == 0, right.stderr


def test_an_image_of_a_former_manifest_is_taken_down(images, tmp_path):
    folder = tmp_path / "curated"
    first = scan([str(images)], folder, changes=SMALL, processes=1)
    (images / "scene_05.png").unlink()
    scan([], folder, processes=1)
    found = remove(folder, path=["scene_05.png"])
    assert len(found.files) == len(found.new) == 1
    pinned = open_source(f"curated:{folder}", manifest=first.manifest_sha256[:16])
    assert [name.rsplit("/")[-1] for name in pinned.taken_down] == ["scene_05.png"]


def test_what_is_dry_changes_nothing(wildfern, images, tmp_path):
    scan([str(images)], tmp_path / "curated", changes=SMALL, processes=1)
    done = wildfern("curate", "remove", "curated", "--path", "scene_05.png", "--dry-run")
    assert "would be taken down, copies included: 1 file" in done.stdout
    assert not (tmp_path / "curated" / "takedowns.jsonl").exists()


def test_the_policy_of_a_merge_is_named(images, tmp_path):
    scan([str(images)], tmp_path / "one", changes=SMALL, processes=1)
    scan([str(images)], tmp_path / "two", changes=["tiny.min_side=17"], processes=1)
    with pytest.raises(RunError, match=r"different policies .*name one with --policy"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")


def test_members_of_one_name_do_not_differ_from_themselves(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as shard:
        for number, name in enumerate(("a.png", "b.png", "a.png")):
            content = io.BytesIO()
            scene(number).save(content, "PNG")
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            shard.addfile(member, io.BytesIO(content.getvalue()))
    scan([str(tmp_path / "x.tar")], tmp_path / "one", changes=SMALL, processes=1)
    found = diff(tmp_path / "one", tmp_path / "one")
    assert (found.added, found.removed, found.changed, found.decisions) == ([], [], [], [])


def test_what_crowded_out_an_image_may_be_left_out_itself(images, tmp_path):
    """Features are of all images that could be kept, not of those that a cap has let through."""
    run = pretrain("quickstart", [*RUN, f"data=folder:{images}", "training.steps=1"], run=tmp_path / "run")
    settings = [*SMALL, "caps.album=10", f"features.backbone={run}", "selection.clusters=[4,2]", "selection.balance=8"]
    found = scan([str(images)], tmp_path / "curated", changes=settings, processes=1)
    assert found.counts["keep"] == 8
    rows = Manifest(tmp_path / "curated").table(["decision", "cluster"]).to_pylist()
    assert all(row["cluster"] >= 0 for row in rows if row["decision"] == "keep")


def test_an_evaluation_on_the_same_folder_is_named(images, tmp_path):
    scan([str(images)], tmp_path / "curated", changes=SMALL, processes=1)
    recipe = read_recipe("quickstart", [*RUN, f"data=curated:{tmp_path}/curated", "evaluation.on=[digits]"])
    mixture = open_mixture(recipe)
    assert evaluated_outside(recipe, mixture) == []
    entry = recipe.evaluation.on[0].model_copy(update={"source": f"folder:{tmp_path}"})
    wrong = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"on": [entry]})})
    (message,) = evaluated_outside(wrong, mixture)
    assert "also the images that the curation left out" in message


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_export_copies_what_is_kept(wildfern, images, tmp_path, format):
    scan([str(images)], tmp_path / "curated", changes=SMALL, processes=1)
    done = wildfern("curate", "export", "curated", "--out", "copy", "--format", format)
    assert done.returncode == 0, done.stderr
    place = {
        "folder": "folder:copy",
        "webdataset": "webdataset:copy/images-{000000..000000}.tar",
        "parquet": "parquet:copy",
    }
    source = open_source(place[format].replace("copy", str(tmp_path / "copy")))
    kept = open_source(f"curated:{tmp_path}/curated")
    pixels = [{np.asarray(p).tobytes() for p in one.read(np.arange(one.num_items)).pixels} for one in (source, kept)]
    assert pixels[0] == pixels[1]
    assert len(pixels[0]) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "nowhere"], "nowhere does not exist; a source is a folder"),
        (["scan", "--out", "new"], "name what to scan"),
        (["scan", "images", "--out", "images"], "is a folder with other files"),
        (["scan", "images", "--policy", "pas"], "did you mean pass?"),
        (["scan", "images", "--set", "license.allow=[CC-BX-4.0]"], "CC-BX-4.0"),
        (["scan", "images", "--metadata", "none.csv"], "none.csv"),
        (["scan", "images", "--metadata", "other.csv"], "none of its 1 rows is for an image"),
        (["scan", "images", "--set", "people.detector=yolo"], "is neither 'centerface'"),
        (["scan", "images", "--set", "features.backbone=resnet0"], "resnet0"),
        (["scan", "images", "--marks", "rights.csv"], "line 1: must be sha256,path,mark"),
        (["review", "nowhere"], "there is no folder nowhere"),
        (["review", "images"], "has no manifest.parquet"),
        (["export", "images", "--out", "x"], "has no manifest.parquet"),
    ],
)
def test_bad_input_gives_one_message_and_loses_nothing(wildfern, images, arguments, message):
    (images.parent / "other.csv").write_text("path,license\nelsewhere.jpg,CC0-1.0\n")
    before = sorted(path.name for path in images.iterdir())
    done = wildfern("curate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in images.iterdir()) == before


def test_a_damaged_manifest_is_named(wildfern, images, tmp_path):
    scan([str(images)], tmp_path / "curated", changes=SMALL, processes=1)
    path = tmp_path / "curated" / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:-400])
    for command in (["review", "curated"], ["remove", "curated", "--path", "x"], ["diff", "curated", "curated"]):
        done = wildfern("curate", *command)
        assert done.returncode == 2
        assert "manifest.parquet cannot be read" in done.stderr.replace("\n", "")
    shutil.rmtree(tmp_path / "curated" / "manifests")
    path.unlink()
    assert scan([str(images)], tmp_path / "again", changes=SMALL, processes=1).counts["keep"] == 16


@pytest.mark.slow
def test_a_scan_that_is_killed_goes_on_where_it_was(images, tmp_path):
    write_scenes(images, 400, first=100)
    folder = tmp_path / "curated"
    arguments = ["wildfern", "curate", "scan", str(images), "--out", str(folder), "--set", *SMALL]
    code = (  # with a part on the disk after each task, and slower
        "import sys, time; from wildfern.ssl.curation import measured_parts, scan as s; measured_parts._SECONDS = 0.0\n"
        "original = s.measure_listed\n"
        "s.measure_listed = lambda *a: (time.sleep(0.1), original(*a))[1]\n"
        f"sys.argv = {arguments!r}\n"
        "from wildfern.launch.cli import main; main()"
    )
    killed = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        before = len(list(folder.glob(".scan/part-*.parquet")))
        while process.poll() is None and time.monotonic() < until:
            if len(list(folder.glob(".scan/part-*.parquet"))) > before:
                break
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed
    found = scan([str(images)], folder, changes=SMALL, processes=1)
    whole = scan([str(images)], tmp_path / "whole", changes=SMALL, processes=1)
    assert found.manifest_sha256 == whole.manifest_sha256
    assert not (folder / ".scan").exists()
