"""`wildfern neighbors RUN`."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import SHALLOW, TINY

from wildfern.launch import pretrain

CHANGES = [*(change for change in TINY if not change.startswith("data.")), SHALLOW, "training.steps=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder with two folders of images of different sizes, of which one is broken."""
    folder = tmp_path_factory.mktemp("neighbors")
    rng = np.random.default_rng(0)
    for number in range(12):
        place = folder / "images" / ("cats" if number % 2 else "<b>dogs") / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40 + number, 3), dtype=np.uint8)).save(place)
    (folder / "images" / "cats" / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    pretrain("quickstart", [*CHANGES, f"data=folder:{folder / 'images'}"], run=folder / "run")
    return folder


def test_the_page_shows_the_images_of_the_run(wildfern, trained):
    done = wildfern("neighbors", str(trained / "run"), "--queries", "3", "--k", "4", "--batch-size", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written to {trained / 'run' / 'neighbors.html'}\n"
    page = (trained / "run" / "neighbors.html").read_text()
    assert page.count("<article") == 3
    assert page.count("<img") == 3 * (1 + 2 * 4)
    assert re.findall("<h3>(.*?)</h3>", page) == ["query", "pretrained", "random"] * 3
    assert "12 images of folder:" in page
    assert "1 image could not be used and is left out" in page
    assert "cats/broken.jpg: " in page
    assert 'title="&lt;b&gt;dogs/' in page
    assert "<b>dogs" not in page.replace("<b>&lt;", "")
    shares = [float(share) for share in re.findall(r"<td class=num>([\d.]+) %</td>", page)]
    assert len(shares) == 3
    assert shares[2] == pytest.approx(100 * 5 / 11, abs=0.1)  # each of 12 images has 5 others of its class
    agree = page.count("<li class=agrees>")
    assert agree == page.count("✓ ") - 1  # and the legend


def test_other_images_can_be_named(wildfern, trained, tmp_path):
    done = wildfern("neighbors", str(trained / "run"), "--on", "digits", "--images", "40", "--out", "new/digits.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "new" / "digits.html").read_text()
    assert "40 of 1,258 images, spread evenly, of digits, train." in page
    assert page.count("<article") == 16
    assert "class=pixels" in page


def test_without_images_or_weights_one_line_says_what_to_do(wildfern, trained, tmp_path):
    run = pretrain("quickstart", [*TINY, SHALLOW, "training.steps=1"], run=tmp_path / "run")

    def said(*arguments):
        done = wildfern("neighbors", *arguments)
        assert done.returncode == 2
        assert "\n" not in done.stderr.strip()
        return done.stderr

    assert "name images with --on, for example --on digits" in said(str(run))
    assert said(str(run), "--on", "ifs").startswith("neighbors: on: ifs is endless")
    assert "did you mean 'folder'?" in said(str(run), "--on", "foldr:images")
    assert "cannot write" in said(str(run), "--on", "digits", "--out", str(run / "recipe.yaml"))
    assert "there is no run folder nowhere" in said("nowhere")
    (run / "backbone.safetensors").unlink()
    assert "no backbone.safetensors yet" in said(str(run), "--on", "digits")
    moved = shutil.copytree(trained / "run", tmp_path / "moved")
    text = (moved / "recipe.yaml").read_text()
    (moved / "recipe.yaml").write_text(text.replace(str(trained / "images"), "gone"))
    assert "the images of this run are gone: there is no gone" in said(str(moved))
