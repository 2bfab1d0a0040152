"""The review page: hostile texts, figures, order, the embedded JSON, and the script's CSV as Python reads it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from wildfern.ssl.curation.marks import read_marks, write_marks
from wildfern.ssl.curation.review_page import About, ClusterTile, DuplicateGroup, Near, Sheet, Shown, review_page
from wildfern.ssl.curation.review_script import CSV_SCRIPT, SCRIPT
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail

SMALL = np.zeros((16, 16, 3), np.float32)
HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "line\nbreak, 'single' \"double\" & <b>.jpg",
    "=cmd|' /C calc'!A0",
    "tabindex=-1 \u202egpj.exe \x1b[2J \udc80 \u2028 <!--",
]
NODE = shutil.which("node")
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Start tags with their attributes, visible text, and the JSON of the page; elements must be nested."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.scripts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    def of(self, kind):
        return [attributes for _, attributes in self.tags if attributes.get("class") == kind]

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def sha256(name):
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def shown(name, value=None, decision="reject", **changes):
    image = Thumbnail(f"data:image/jpeg;base64,{sha256(name)[:16]}", name, SMALL)
    one = Shown(sha256(name), name, image, decision, value, "", 640, 480, 52_000, None, None)
    return replace(one, **changes)


ABOUT = About(
    title="holidays",
    sources=["folder:holidays"],
    policy_name="default",
    images=4000,
    decisions={"keep": 3000, "review": 900, "reject": 100},
    reasons={"flat": 70, "license": 900, "tiny": 1234},
    people_words="People were not checked.",
    manifest_sha256="f" * 64,
    command="wildfern curate review curated/ --marks marks.csv",
)
FLAT = Sheet(
    "flat",
    "nearly one color",
    {"reject": 60, "review": 10},
    70,
    True,
    "contrast",
    [shown(f"f{i}", i / 8) for i in range(5)],
)


def page_of(about=ABOUT, sheets=(), groups=(), near=(), clusters=()):
    text = review_page(about, sheets, groups, near, clusters)
    text.encode()  # no halves of surrogate pairs
    page = Page(text)
    assert page.open == []
    return page, text


def test_hostile_texts_stay_texts():
    items = [shown(name, 0.5, license=name, author=name, detail=name) for name in HOSTILE]
    clusters = [ClusterTile(3, HOSTILE[0], [items[0].thumbnail])]
    sheets = [Sheet(HOSTILE[0], HOSTILE[1], {"review": 5}, 5, False, HOSTILE[0], items)]
    about = replace(
        ABOUT,
        title=HOSTILE[0],
        sources=HOSTILE,
        policy_name=HOSTILE[1],
        people_words=HOSTILE[0],
        notes=HOSTILE,
        command=HOSTILE[0],
        reasons={HOSTILE[0]: 5, HOSTILE[1]: 1},
    )
    page, text = page_of(about, sheets, [DuplicateGroup(items[0], items[1:])], [Near(0.5, HOSTILE[0], items)], clusters)
    harmless, _ = page_of(
        about=replace(about, reasons={"a": 5, "b": 1}),
        sheets=[replace(sheets[0], rule="a", items=[shown(f"{i}", 0.5, detail="d") for i in range(5)])],
        groups=[DuplicateGroup(shown("0"), [shown(f"{i}", detail="d") for i in range(1, 5)])],
        near=[Near(0.5, "n", [shown(f"{i}", 0.5, detail="d") for i in range(5)])],
        clusters=clusters,
    )
    kinds = [tag for tag, _ in page.tags]
    assert {*kinds} == {tag for tag, _ in harmless.tags}
    for tag in ("script", "img", "style"):
        assert kinds.count(tag) == [kind for kind, _ in harmless.tags].count(tag)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.tags if tag == "img")
    assert "\x1b" not in text
    assert "\u202e" not in text
    tiles = page.of("tile")
    assert tiles[0]["title"].split("\n")[0] == HOSTILE[0]
    assert tiles[2]["title"].startswith(HOSTILE[2])
    assert [tile["tabindex"] for tile in tiles] == (
        ["0"] + ["-1"] * 4
    ) * 3  # of each grid one is reached by the tabulator


def test_the_embedded_json_is_equal_after_a_round_trip():
    items = [shown(name) for name in HOSTILE]
    again = replace(items[0], path="another/copy.jpg")  # the same bytes
    clusters = [ClusterTile(3, HOSTILE[0], [items[0].thumbnail], [ClusterTile(1, HOSTILE[4])])]
    page, text = page_of(sheets=[replace(FLAT, items=items)], near=[Near(0.1, "people", [again])], clusters=clusters)
    (data,) = re.findall(r'<script type="application/json" id=data>([^<>&]*)</script>', text)
    assert data == page.scripts[0]
    found = json.loads(data)
    assert found["manifest"] == "f" * 64
    assert found["images"] == [[sha256(name), name] for name in HOSTILE]
    assert found["thumbnails"] == [items[0].thumbnail.uri]
    assert found["clusters"][0]["label"] == HOSTILE[0]
    assert found["clusters"][0]["children"][0]["label"] == HOSTILE[4]


def test_only_the_page_s_own_script_may_run_and_nothing_is_loaded():
    page, text = page_of(sheets=[FLAT])
    (policy,) = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert page.scripts[1] == SCRIPT
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "http://" not in text
    assert "https://" not in text


def test_figures_and_reasons():
    page, _ = page_of(sheets=[FLAT])
    text = page.text
    assert "4,000files3,000kept, 75.0 %900review, 22.5 %100rejected, 2.5 %" in text
    assert "People were not checked." in text
    assert "wildfern curate review curated/ --marks marks.csv" in text
    assert "flatnearly one color0106070" in text  # only measured, review, rejected, images
    assert "tiny–––1,234" in text
    assert "flat 10 review, 60 rejected" in text
    assert "nearly one color · 5 of 70 shown, by contrast, lowest first" in text
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["#sheet-0"]
    shares = [attributes["style"] for tag, attributes in page.tags if tag == "i" and "style" in attributes]
    assert shares == ["flex-grow:3000", "flex-grow:900", "flex-grow:100"]


def test_a_page_without_images():
    page, _ = page_of(replace(ABOUT, images=0, decisions={}, reasons={}))
    assert "0files0kept, 0.0 %" in page.text
    assert page.of("tile") == []
    assert "Contact sheets" not in page.text


@pytest.mark.parametrize("ascending", [True, False])
def test_the_order_of_a_sheet_is_kept_and_only_the_first_is_open(ascending):
    items = FLAT.items if ascending else FLAT.items[::-1]
    sheet = replace(FLAT, ascending=ascending, items=items)
    page, text = page_of(sheets=[sheet, replace(sheet, rule="other")])
    assert [tile["data-sha256"] for tile in page.of("tile")] == [one.sha256 for one in items] * 2
    assert ["open" in sheet for sheet in page.of("sheet")] == [True, False]
    assert f"{'lowest' if ascending else 'highest'} first" in page.text
    assert re.findall("<div class=first><b>(.*?)</b>", text) == [f"{one.value:.3g}" for one in items] * 2


def test_what_differs_from_the_kept_copy_is_marked():
    kept = shown("a.png", decision="keep", bytes=812)
    group = DuplicateGroup(kept, [shown("b.JPG", width=320, bytes=812), shown("c.png", bytes=3_400_000)])
    page, text = page_of(groups=[group])
    assert re.findall("<i class=differs>(.*?)</i>", text) == ["320 × 480", "jpg", "3.4 MB"]
    assert "1 group 3 images" in page.text
    assert "640 × 480 · 812 bytes · png" in page.text


def test_other_rights_than_those_of_the_kept_copy_are_marked():
    kept = shown("a.png", license="CC-BY-4.0", author="Ada")
    others = [
        replace(kept, license="CC-BY-NC-4.0"),
        replace(kept, license=None, author="<b>Bo</b>"),
        replace(kept, author=None),
    ]
    page, text = page_of(groups=[DuplicateGroup(kept, others)])
    assert re.findall("<i class=differs>(.*?)</i>", text) == [
        "CC-BY-NC-4.0",
        "license unknown",
        "by &lt;b&gt;Bo&lt;/b&gt;",
        "author unknown",
    ]
    assert text.count("<i>CC-BY-4.0</i>") == 2
    assert text.count("<i>by Ada</i>") == 2
    # The kept copy may be the one without.
    _, text = page_of(groups=[DuplicateGroup(others[1], [others[1], kept])])
    assert re.findall("<i class=differs>(.*?)</i>", text) == ["CC-BY-4.0", "by Ada"]
    assert text.count("<i>license unknown</i>") == 2
    # Where no copy has any there is nothing to compare.
    page, _ = page_of(groups=[DuplicateGroup(shown("a.png"), [shown("b.png")])])
    assert "unknown" not in page.text


def test_files_that_cannot_be_read_cannot_be_marked():
    unreadable = [shown(f"cut{n}.png", sha256="") for n in range(2)]
    page, text = page_of(
        sheets=[replace(FLAT, items=unreadable), FLAT, replace(FLAT, items=[*unreadable, *FLAT.items])]
    )
    assert ["Mark all" in part for part in text.split("<details class=sheet")[1:]] == [False, True, True]
    assert {sha256 for sha256, _ in json.loads(page.scripts[0])["images"]} == {one.sha256 for one in FLAT.items}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_line_shows_where_the_threshold_is(reverse):
    values = [0.18, 0.19, 0.2, 0.21]
    items = [shown(f"n{value}", value) for value in (values[::-1] if reverse else values)]
    page, _ = page_of(near=[Near(0.2, "people: reject", items), Near(0.1, "people: review", [])])
    kinds = [a["class"] for _, a in page.tags if a.get("class") in ("tile", "threshold")]
    assert kinds == ["tile", "tile", "threshold", "tile", "tile"]
    assert "people: reject: 4 images around 0.2" in page.text
    assert "people: review" not in page.text


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_script_is_valid_and_its_csv_is_that_of_python(tmp_path):
    check = subprocess.run([NODE, "--check", "-"], input=SCRIPT.encode(), capture_output=True)
    assert check.returncode == 0, check.stderr.decode()
    paths = {sha256(name): name for name in [*HOSTILE[:4], "\tx", "plain.jpg", 'a,"b"\r\nc']}
    marks = {one: ("keep", "drop")[place % 2] for place, one in enumerate(paths)} | {sha256("unknown"): "drop"}
    call = f"process.stdout.write(marksCsv(new Map({json.dumps([*marks.items()])}), new Map({json.dumps([*paths.items()])})))"
    made = subprocess.run([NODE, "-"], input=(CSV_SCRIPT + call).encode(), capture_output=True, check=True).stdout
    write_marks(tmp_path / "python.csv", marks, paths)
    (tmp_path / "script.csv").write_bytes(made)
    assert made == (tmp_path / "python.csv").read_bytes()
    assert read_marks(tmp_path / "script.csv") == marks
