"""A curation as a whole: its decisions are a function of images, marks and policy, and a kill loses nothing."""

import os
import shutil

import numpy as np
import pytest
import torch
from curated_images import scene, write_scenes
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation import curate
from wildfern.ssl.curation.curate import Tools, decide_again, merge, scan, unfinished
from wildfern.ssl.curation.manifest import MANIFEST, CurationError, Manifest, version_path, versions
from wildfern.ssl.curation.marks import read_marks
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.policy import Features, People, Policy, Rule, Selection, Similar, Tiny

PEOPLE = People(action="reject", detector="squares", reject=0.5, review=0.2)


def digests(folder) -> dict[str, str]:
    return dict(zip(*Manifest(folder).table(["path", "sha256"]).to_pydict().values(), strict=True))


def decisions(folder) -> dict[str, str]:
    return dict(zip(*Manifest(folder).table(["path", "decision"]).to_pydict().values(), strict=True))


def test_what_was_examined_by_a_former_policy_does_not_count(tmp_path):
    images = write_scenes(tmp_path / "images", 3)
    small = with_square(scene(7, (40, 30)), side=14)
    small.save(tmp_path / "images" / "small.png")
    small.resize((80, 60)).point(lambda value: 60 + value // 3).save(tmp_path / "images" / "large.png")  # no red left
    tools = Tools(detector=SquareDetector())
    policy = Policy(people=PEOPLE, tiny=Tiny(action="reject", min_side=32))
    fresh = scan([str(tmp_path / "images")], tmp_path / "fresh", policy, tools=tools)
    lenient = Policy(people=PEOPLE, tiny=Tiny(action="keep"), near_duplicate=policy.near_duplicate)
    scan([str(tmp_path / "images")], tmp_path / "former", lenient, tools=tools)
    assert decisions(tmp_path / "former")["small.png"] == "reject"
    again = scan([str(tmp_path / "images")], tmp_path / "former", policy, tools=tools)
    assert again.manifest.path.read_bytes() == fresh.manifest.path.read_bytes()
    assert decisions(tmp_path / "fresh") == dict.fromkeys(images, "keep") | {"small.png": "reject", "large.png": "keep"}


def test_what_could_not_be_examined_is_not_kept_to_be_blurred(tmp_path):
    write_scenes(tmp_path / "images", 3)
    scan([str(tmp_path / "images")], tmp_path / "c", Policy())
    (tmp_path / "images" / "scene_01.png").rename(tmp_path / "away.png")
    blurring = Policy(people=People(action="reject", detector="squares", blur=True))
    decide_again(tmp_path / "c", blurring, tools=Tools(detector=SquareDetector()))
    assert decisions(tmp_path / "c") == {"scene_00.png": "keep", "scene_01.png": "review", "scene_02.png": "keep"}


def test_a_filter_learns_from_what_is_marked_drop_also_in_a_new_folder(tmp_path):
    write_scenes(tmp_path / "images", 30)
    scan([str(tmp_path / "images")], tmp_path / "first", Policy())
    marked = [digests(tmp_path / "first")[f"scene_{n:02d}.png"] for n in range(24)]
    (tmp_path / "second").mkdir()
    lines = [f"{digest},,{'keep' if n < 12 else 'drop'}" for n, digest in enumerate(marked)]
    (tmp_path / "second" / "marks.csv").write_text("\n".join(["sha256,path,mark", *lines, ""]))

    def extract(source, items):
        pixels = [torch.from_numpy(np.array(source.decode(int(item)), np.float32)).mean((0, 1)) for item in items]
        return items, torch.stack(pixels)

    policy = Policy(features=Features(backbone="net"), similar=Similar(action="keep"), selection=Selection(filter=0.0))
    found = scan([str(tmp_path / "images")], tmp_path / "second", policy, tools=Tools(network="net", extract=extract))
    assert found.manifest.info.notes == []
    assert found.manifest.info.counts == {"keep": 18, "review": 0, "reject": 12}


def test_a_manifest_is_kept_before_it_is_there(tmp_path, monkeypatch):
    write_scenes(tmp_path / "images", 2)
    first = scan([str(tmp_path / "images")], tmp_path / "c", Policy()).manifest.sha256
    write_scenes(tmp_path / "images", 1, first=5)
    replace, killed = os.replace, []

    def kill(source, target):
        if os.fspath(target).endswith(MANIFEST):
            killed.append(target)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        scan([str(tmp_path / "images")], tmp_path / "c", Policy())
    monkeypatch.undo()
    assert killed
    assert Manifest(tmp_path / "c").sha256 == first
    assert len(versions(tmp_path / "c")) == 2
    second = scan([str(tmp_path / "images")], tmp_path / "c", Policy()).manifest.sha256
    assert versions(tmp_path / "c") == sorted([first[:16], second[:16]])
    assert version_path(tmp_path / "c", second).read_bytes() == (tmp_path / "c" / MANIFEST).read_bytes()


def test_a_scan_that_was_ended_tells_what_it_was_asked_for(tmp_path, monkeypatch):
    write_scenes(tmp_path / "images", 2)
    rights = tmp_path / os.fsdecode(b"rights\xff.csv")
    rights.write_text("path,license\nscene_00.png,CC0-1.0\n")

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    assert unfinished(tmp_path / "c") is None
    monkeypatch.setattr(curate, "measure_images", killed)
    with pytest.raises(KeyboardInterrupt):
        scan([str(tmp_path / "images")], tmp_path / "c", Policy(exact_duplicate=Rule(action="keep")), metadata=[rights])
    monkeypatch.undo()
    found = unfinished(tmp_path / "c")
    assert found["sources"] == [f"folder:{tmp_path}/images"]
    assert found["policy"]["exact_duplicate"]["action"] == "keep"
    done = scan(found["sources"], tmp_path / "c", Policy(), metadata=found["metadata"]).manifest
    assert unfinished(tmp_path / "c") is None
    assert not (tmp_path / "c" / PARTS).exists()
    assert done.table(["license"]).column("license").to_pylist() == ["CC0-1.0", None]
    assert Manifest(tmp_path / "c").info.notes == done.info.notes


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"sources": ["x"]}', '{"sources": [1], "metadata": [], "policy": {}}']
)
def test_a_damaged_request_is_none(tmp_path, text):
    (tmp_path / PARTS).mkdir()
    (tmp_path / PARTS / "request.json").write_text(text)
    assert unfinished(tmp_path) is None


def test_a_merge_keeps_marks_that_are_there(tmp_path):
    write_scenes(tmp_path / "images", 3)
    scan([str(tmp_path / "images")], tmp_path / "one", Policy())
    names = digests(tmp_path / "one")
    lines = "sha256,path,mark\r\n{},here.png,{}\r\n{},,keep\r\n"
    (tmp_path / "one" / "marks.csv").write_text(lines.format(names["scene_00.png"], "keep", names["scene_01.png"]))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "marks.csv").write_text(lines.format(names["scene_00.png"], "drop", names["scene_02.png"]))
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out", Policy())
    kept = {names["scene_01.png"]: "keep", names["scene_02.png"]: "keep"}
    assert read_marks(tmp_path / "out" / "marks.csv") == kept | {names["scene_00.png"]: "drop"}
    assert "here.png" in (tmp_path / "out" / "marks.csv").read_text()
    assert decisions(tmp_path / "out")["scene_00.png"] == "reject"


def test_what_cannot_be_written_replaces_nothing(tmp_path, monkeypatch):
    write_scenes(tmp_path / "images", 2)
    scan([str(tmp_path / "images")], tmp_path / "c", Policy())
    before = (tmp_path / "c" / MANIFEST).read_bytes()
    monkeypatch.setattr(curate, "used_words", lambda table: "\udcff")
    (tmp_path / "rights.csv").write_text("path,license\nscene_00.png,CC0-1.0\n")
    with pytest.raises(CurationError, match="cannot be written into the manifest"):
        scan([str(tmp_path / "images")], tmp_path / "c", Policy(), metadata=[tmp_path / "rights.csv"])
    assert (tmp_path / "c" / MANIFEST).read_bytes() == before
