"""The review page of small curated folders: its counts, its order, its thumbnails, and names of strangers."""

import base64
import hashlib
import io
import json
import os
import re
import tarfile
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from curated_images import scene, write_scenes
from PIL import Image
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation import review
from wildfern.ssl.curation.curate import Curated, Tools, decide_again, scan
from wildfern.ssl.curation.decide import Decided
from wildfern.ssl.curation.duplicates import Copies
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.hierarchical_kmeans import Level
from wildfern.ssl.curation.manifest import Manifest, stored_path
from wildfern.ssl.curation.marks import write_marks
from wildfern.ssl.curation.policy import People, Policy, Rule
from wildfern.ssl.curation.review import write_review
from wildfern.ssl.curation.takedowns import add_takedowns
from wildfern.ssl.curation.verdicts import Verdicts


class Page(HTMLParser):
    """What a page shows: tiles by section, in order, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tiles, self.words, self.tags, self.code = text, [], [], [], ""
        self._in = ""
        self.feed(text)
        self.data = json.loads(self.code)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self._in = found.get("id", tag) if tag == "script" else tag
        if tag == "h2" or "sheet" in (found.get("class") or ""):
            self.tiles.append([])
        if "data-sha256" in found:
            self.tiles[-1].append({"sha256": found["data-sha256"], "title": found["title"]})
        elif tag == "img":
            self.tiles[-1][-1]["image"] = found["src"]

    def handle_data(self, data):
        if self._in == "data":
            self.code += data
        elif self._in not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, tag):
        self._in = ""

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())

    def sheet(self, rule: str) -> list[dict]:
        """The tiles of a contact sheet."""
        found = re.search(
            rf"<details class=sheet id=sheet-\d+[^>]*><summary><b>{rule}</b>.*?</details>", self.text, re.DOTALL
        )
        return [tile for tiles in Page.of(found[0]) for tile in tiles]

    @staticmethod
    def of(part: str) -> list[list[dict]]:
        return Page(f"<h2>x</h2>{part}<script id=data>0</script>").tiles


def pixels(tile: dict) -> np.ndarray:
    content = base64.b64decode(tile["image"].partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def is_gray(tile: dict) -> bool:
    return bool((pixels(tile) == 128).all())


def shows(tile: dict, image: Image.Image) -> bool:
    small = [np.asarray(Image.fromarray(np.asarray(one)).resize((16, 16)), float) for one in (pixels(tile), image)]
    return float(np.abs(small[0] - small[1]).mean()) < 12


def page_of(found: Curated) -> Page:
    return Page(write_review(found.manifest.folder, found.manifest, found.decided).read_text(encoding="utf-8"))


@pytest.fixture
def images(tmp_path):
    """Ten scenes, copies of two of them, one flat, tiny and dark image, a text, and a file that ends too early."""
    folder = tmp_path / "images"
    write_scenes(folder, 10)
    scene(0).save(folder / "same.bmp")
    scene(1).save(folder / "encoded.jpg", quality=90)
    scene(1).resize((128, 96), Image.Resampling.BICUBIC).save(folder / "larger.png")
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "flat.png")
    scene(20, (20, 16)).save(folder / "tiny.png")
    scene(21, (24, 12)).save(folder / "tinier.png")
    scene(22).point(lambda value: value // 8).save(folder / "dark.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "scene_09.png").read_bytes()[:3000])
    return folder


def test_counts_decisions_and_reasons(images, tmp_path):
    page = page_of(scan([f"folder:{images}"], tmp_path / "holidays", Policy()))
    figures = re.findall(r"<li class=(\w+)><b>([\d,]+)</b>", page.text)
    assert figures == [("all", "19"), ("keep", "10"), ("review", "1"), ("reject", "8")]
    table = re.findall(r"<a href='#sheet-\d+'>(\w+)</a></td>.*?<td class=num>([\d,]+)</td></tr>", page.text)
    assert table == [
        ("truncated", "1"),
        ("not_an_image", "1"),
        ("tiny", "2"),
        ("flat", "1"),
        ("dark", "1"),
        ("exact_duplicate", "1"),
        ("near_duplicate", "2"),
    ]
    assert "people: no detector was used, so that any image may show people" in page.shown
    assert f"wildfern curate review {tmp_path}/holidays --marks marks.csv" in page.shown
    assert f"<h1>holidays</h1><p class=lead>folder:{images} · policy default</p>" in page.text


def test_a_sheet_shows_the_images_of_its_reason_the_worst_first(images, tmp_path):
    page = page_of(scan([f"folder:{images}"], tmp_path / "c", Policy()))
    titles = [tile["title"].split("\n")[0] for tile in page.sheet("tiny")]
    assert titles == ["tinier.png", "tiny.png"]
    assert shows(page.sheet("tiny")[0], scene(21, (24, 12)))
    assert [tile["title"].split("\n")[0] for tile in page.sheet("exact_duplicate")] == ["scene_00.png"]  # fewer bytes
    assert "by ," not in page.shown  # a reason without a value has no order
    passed = page.sheet("passed")
    kept = Manifest(tmp_path / "c").table(["sha256", "decision"]).to_pylist()
    digests = [row["sha256"] for row in kept if row["decision"] == "keep"]
    assert [tile["sha256"] for tile in passed] == sorted(digests, key=lambda digest: digest[::-1])
    assert all(is_gray(tile) for tile in page.sheet("not_an_image") + page.sheet("truncated"))
    assert not any(is_gray(tile) for tile in passed)


def test_a_sheet_has_a_limited_number_of_images_and_says_so(images, tmp_path, monkeypatch):
    monkeypatch.setattr(review, "SHEET", 1)
    monkeypatch.setattr(review, "PASSED", 3)
    found = scan([f"folder:{images}"], tmp_path / "c", Policy())
    page = page_of(found)
    (tile,) = page.sheet("tiny")
    assert tile["title"].startswith("tinier.png\n24 × 12")
    assert "1 of 2 shown" in page.shown
    assert "3 of 10 shown" in page.shown


def test_the_best_copy_of_a_group_comes_first_and_large_groups_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "COPIES", 4)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        scene(1).save(folder / f"{number}.jpg", quality=70 + number)
    scene(1, (128, 96)).save(folder / "z.png")  # the best one is the last of the manifest
    scene(2).save(folder / "other.png")
    found = scan([f"folder:{folder}"], tmp_path / "c", Policy())
    assert found.manifest.info.counts["keep"] == 3 - 1
    page = page_of(found)
    (card,) = re.findall("<article class=group>.*?</article>", page.text, re.DOTALL)
    tiles = Page.of(card)[0]
    assert [tile["title"].split("\n")[0] for tile in tiles] == ["z.png", "0.jpg", "1.jpg", "2.jpg"]
    assert all(shows(tile, scene(1)) for tile in tiles)


def test_copies_that_a_policy_keeps_are_shown_as_a_group(tmp_path):
    names = write_scenes(tmp_path / "images", 2)
    (tmp_path / "images" / "copy.png").write_bytes((tmp_path / "images" / names[0]).read_bytes())
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy(exact_duplicate=Rule(action="keep")))
    (card,) = re.findall("<article class=group>.*?</article>", page_of(found).text, re.DOTALL)
    assert {tile["title"].split("\n")[0] for tile in Page.of(card)[0]} == {"copy.png", "scene_00.png"}


def test_images_taken_down_have_no_thumbnail_and_what_looks_like_them_has(images, tmp_path):
    found = scan([f"folder:{images}"], tmp_path / "c", Policy())
    taken, *_ = find_images(found.manifest, {"path": {"scene_00.png", "scene_02.png"}})
    add_takedowns(tmp_path / "c", taken)
    (images / "scene_02.png").unlink()
    rng = np.random.Generator(np.random.Philox(7))
    noisy = np.asarray(scene(2)).astype(int) + rng.integers(-60, 61, (48, 64, 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(images / "noisy.png")
    found = scan([f"folder:{images}"], tmp_path / "c", Policy())
    rows = {row["path"]: row for row in found.manifest.table(["path", "decision", "reasons"]).to_pylist()}
    assert [rows[path]["decision"] for path in ("scene_00.png", "same.bmp", "noisy.png")] == [
        "reject",
        "reject",
        "review",
    ]
    page = page_of(found)
    by_name = {tile["title"].split("\n")[0]: tile for tile in page.sheet("taken_down")}
    assert set(by_name) == {"scene_00.png", "same.bmp", "noisy.png"}
    assert is_gray(by_name["scene_00.png"])
    assert is_gray(by_name["same.bmp"])
    assert not is_gray(by_name["noisy.png"])  # which is to be reviewed
    everywhere = [tile for tiles in page.tiles for tile in tiles]
    digests = {by_name[name]["sha256"] for name in ("scene_00.png", "same.bmp")}
    assert sum(tile["sha256"] in digests for tile in everywhere) > 2  # also among the copies
    assert all(is_gray(tile) for tile in everywhere if tile["sha256"] in digests)
    assert not any(shows(tile, scene(0)) for tile in everywhere)


def test_files_that_are_gone_or_changed_have_no_thumbnail(images, tmp_path):
    found = scan([f"folder:{images}"], tmp_path / "c", Policy())
    (images / "scene_03.png").unlink()
    scene(40).save(images / "scene_04.png")
    by_name = {tile["title"].split("\n")[0]: tile for tile in page_of(found).sheet("passed")}
    assert {name for name, tile in by_name.items() if is_gray(tile)} == {"scene_03.png", "scene_04.png"}


def test_members_of_a_shard_with_one_name_have_their_own_thumbnails(tmp_path):
    images = [scene(number) for number in (1, 2, 3)]
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, image in zip(("a.png", "b.png", "a.png"), images, strict=True):
            file = io.BytesIO()
            image.save(file, "PNG")
            header = tarfile.TarInfo(name)
            header.size = file.tell()
            shard.addfile(header, io.BytesIO(file.getvalue()))
    found = scan([f"webdataset:{tmp_path}/a.tar"], tmp_path / "c", Policy())
    rows = found.manifest.table(["path", "sha256"]).to_pylist()
    assert [row["path"] for row in rows] == ["a.png", "b.png", "a.png"]
    tiles = {tile["sha256"]: tile for tile in page_of(found).sheet("passed")}
    assert [[shows(tiles[row["sha256"]], image) for image in images] for row in rows] == np.eye(3, dtype=bool).tolist()


def test_only_files_that_can_be_read_can_be_marked(images, tmp_path):
    (images / "empty.png").touch()
    page = page_of(scan([f"folder:{images}"], tmp_path / "c", Policy()))
    for rule in ("truncated", "not_an_image", "unreadable"):
        assert [tile["sha256"] for tile in page.sheet(rule)] == [""]
        assert "Mark all" not in re.findall(rf"<b>{rule}</b>.*?</details>", page.text, re.DOTALL)[0]
    assert all(tile["sha256"] for tile in page.sheet("tiny"))
    assert "Mark all" in re.findall(r"<b>tiny</b>.*?</details>", page.text, re.DOTALL)[0]


def test_scores_near_the_thresholds_of_people(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        image = scene(number).point(lambda value: value // 2)
        (with_square(scene(number)) if number < 3 else image).save(folder / f"{number}.png")
    policy = Policy(people=People(action="reject", detector="squares", reject=0.95, review=0.5))
    found = scan([f"folder:{folder}"], tmp_path / "c", policy, tools=Tools(detector=SquareDetector()))
    assert found.manifest.info.counts == {"keep": 3, "review": 3, "reject": 0}
    page = page_of(found)
    assert "people: reject: 3 images around 0.95" in page.shown
    assert "people: review: 3 images around 0.5" in page.shown
    assert "Checked: squares: squares, weights first. Not checked: squares of other colors" in page.shown
    assert "by score, highest first" in page.shown


NAMES = [
    "</script><script>alert(1)<",
    "\"onmouseover='alert(2)' x=\"",
    "line\nbreak, 'single' & \"double\" <b>",
    "=HYPERLINK(1)",
    "tab\t\u202egpj.\x1b[2J",
    "\udcff\udcfe",
    " ",
]


@pytest.fixture
def hostile(tmp_path):
    folder = tmp_path / "images of \"<b>'"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        path = os.fsencode(str(folder)) + b"/" + os.fsencode(name.replace("/", "\u2215"))
        with open(path + b".png", "wb") as file:
            scene(number, (64, 48) if number % 2 else (20, 20)).save(file, "PNG")
    return folder


def plainly_named(hostile, tmp_path):
    """The same files with other names in the same order."""
    folder = tmp_path / "plain images"
    folder.mkdir()
    for number, name in enumerate(sorted(os.listdir(hostile))):
        (folder / f"{number}.png").write_bytes((hostile / name).read_bytes())
    return folder


def test_names_of_strangers_are_only_text(hostile, tmp_path):
    found = scan([f"folder:{hostile}"], tmp_path / "c; rm -rf '<i>", Policy())
    assert found.manifest.info.counts == {"keep": 3, "review": 0, "reject": 4}
    path = write_review(found.manifest.folder, found.manifest, found.decided)
    page = Page(path.read_text(encoding="utf-8"))
    plain = page_of(scan([f"folder:{plainly_named(hostile, tmp_path)}"], tmp_path / "plain", Policy()))
    assert [(tag, set(found)) for tag, found in page.tags] == [(tag, set(found)) for tag, found in plain.tags]
    expected = {stored_path(f"{name}.png".replace("/", "\u2215")) for name in NAMES}
    assert {path for _, path in page.data["images"]} == expected
    assert all(not is_gray(tile) for tiles in page.tiles for tile in tiles)
    assert f"wildfern curate review '{tmp_path}/c; rm -rf '\"'\"'<i>' --marks marks.csv" in page.shown


def test_an_image_without_a_digest_that_a_policy_keeps_does_not_break_the_page(tmp_path):
    write_scenes(tmp_path / "images", 2)
    (tmp_path / "images" / "empty.png").touch()
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy(unreadable=Rule(action="keep")))
    assert len(page_of(found).sheet("passed")) == 2


def test_marks_come_first_on_the_page(images, tmp_path):
    found = scan([f"folder:{images}"], tmp_path / "c", Policy())
    digests = {row["path"]: row["sha256"] for row in found.manifest.table(["path", "sha256"]).to_pylist()}
    marks = {digests["flat.png"]: "keep", digests["scene_05.png"]: "drop"}
    write_marks(tmp_path / "c" / "marks.csv", marks, {})
    page = page_of(decide_again(tmp_path / "c", Policy()))
    assert {tile["sha256"] for tile in page.sheet("marked")} == set(marks)
    assert re.findall(r"<li class=keep><b>(\d+)</b>", page.text) == ["10"]


def clusters_of(manifest: Manifest, sizes: list[int]) -> Decided:
    """Decisions with levels of clusters, as if features had been used: the first images in the first cluster, and so on."""
    count = len(manifest)
    of_item = torch.arange(count) * sizes[0] // count
    levels = [Level(torch.zeros(sizes[0], 2), of_item, torch.arange(count, dtype=torch.float32).flip(0))]
    for below, size in pairwise(sizes):
        levels.append(Level(torch.zeros(size, 2), torch.arange(below) * size // below, torch.zeros(below)))
    nothing = np.zeros(count, np.int64)
    copies = Copies(nothing, nothing.astype(np.int32), nothing.astype(bool), nothing.astype(np.float32), 6)
    return Decided(Verdicts(count), copies, of_item.numpy().astype(np.int32), levels=levels, clustered=np.arange(count))


@pytest.mark.parametrize("sizes", [[4], [4, 2]])
def test_the_treemap_shows_clusters_with_the_images_nearest_to_their_centers(tmp_path, sizes):
    write_scenes(tmp_path / "images", 12)
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy())
    decided = clusters_of(found.manifest, sizes)
    path = write_review(tmp_path / "c", found.manifest, decided)
    page = Page(path.read_text(encoding="utf-8"))
    clusters = page.data["clusters"]
    assert [one["size"] for one in clusters] == ([3, 3, 3, 3] if sizes == [4] else [6, 6])
    inside = clusters if sizes == [4] else [one for cluster in clusters for one in cluster["children"]]
    order = found.manifest.table(["path"]).column("path").to_pylist()
    for number, cluster in enumerate(inside):
        shown = [{"image": page.data["thumbnails"][place]} for place in cluster["thumbnails"]]
        nearest = [order[3 * number + n] for n in (2, 1, 0)]  # distances fall
        assert len(shown) == 3
        for tile, name in zip(shown, nearest, strict=True):
            assert shows(tile, scene(int(name[6:8])))
    assert hashlib.sha256((tmp_path / "c" / "manifest.parquet").read_bytes()).hexdigest() == page.data["manifest"]
