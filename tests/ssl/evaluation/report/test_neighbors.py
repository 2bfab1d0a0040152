"""Nearest neighbors against a plain loop, images that cannot be read, and the page."""

from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.evaluation import Features, Preprocessing, extract_features
from wildfern.ssl.evaluation.report.image_bank import read_bank
from wildfern.ssl.evaluation.report.neighbors import draw_queries, find_neighbors, spread_evenly
from wildfern.ssl.evaluation.report.neighbors_page import About, neighbors_page
from wildfern.ssl.evaluation.report.thumbnails import thumbnail


def features(n=40, labels=None):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(n, 5)).astype(np.float32))
    x[7] = x[30] = x[12] * 2  # three equal directions
    y = torch.from_numpy(np.arange(n) % 4) if labels is None else labels
    return Features(x, y, ("a", "b", "c", "d"))


def by_loop(x, query, k):
    """Places and similarities, one pair at a time."""
    x = x.double().numpy()
    pairs = []
    for other in range(len(x)):
        if other != query:
            cosine = x[query] @ x[other] / (np.linalg.norm(x[query]) * np.linalg.norm(x[other]))
            pairs.append((-round(float(cosine), 6), other))
    return [(place, -cosine) for cosine, place in sorted(pairs)[:k]]


def test_neighbors_match_the_plain_loop():
    bank = features()
    queries = np.array([12, 0, 39, 5])
    found = find_neighbors({"pretrained": bank}, queries, 6).found["pretrained"]
    assert found.places.shape == (4, 6)
    for row, query in enumerate(queries):
        expected = by_loop(bank.x, query, 6)
        assert found.places[row].tolist() == [place for place, _ in expected]
        np.testing.assert_allclose(found.similarity[row], [cosine for _, cosine in expected], atol=2e-6)


@pytest.mark.parametrize("kind", ["single", "unlabeled images", "multi-hot"])
def test_shares_match_the_plain_loop(kind):
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 40))
    if kind == "unlabeled images":
        labels[::3] = -1
    if kind == "multi-hot":
        labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (40, 3)).astype(np.uint8))
    bank = features(labels=labels)
    found = find_neighbors({"random": bank}, np.array([1]), 4)

    def same(one, other):
        if kind == "multi-hot":
            return bool((labels[one] * labels[other]).any())
        return bool(labels[one] == labels[other] and labels[one] >= 0)

    scored = [i for i in range(40) if (labels[i].any() if kind == "multi-hot" else labels[i] >= 0)]
    share = np.mean([same(i, place) for i in scored for place, _ in by_loop(bank.x, i, 4)])
    chance = np.mean([same(i, other) for i in scored for other in range(40) if other != i])
    assert found.scored == len(scored)
    assert found.found["random"].share == pytest.approx(share)
    assert found.chance == pytest.approx(chance)
    assert all(found.agrees(i, j) == same(i, j) for i in range(8) for j in range(8))


def test_few_images_no_labels_and_features_that_are_not_finite():
    bank = features(labels=torch.full((40,), -1))
    found = find_neighbors({"pretrained": bank[torch.arange(3)]}, np.array([0, 2]), 8)
    assert found.found["pretrained"].places.shape == (2, 2)
    assert (found.labels, found.chance, found.found["pretrained"].share, found.label(0)) == (None, None, None, "")
    with pytest.raises(ValueError, match="at least two images"):
        find_neighbors({"pretrained": bank[torch.arange(1)]}, np.array([0]), 8)
    bank.x[3, 2] = torch.nan
    with pytest.raises(ValueError, match="features of the pretrained backbone contain NaN"):
        find_neighbors({"pretrained": bank}, np.array([0]), 8)


def test_queries_are_a_function_of_the_seed_and_grow():
    few, many = draw_queries(1000, 4, 0), draw_queries(1000, 64, 0)
    np.testing.assert_array_equal(few, many[:4])
    assert len(set(many.tolist())) == 64
    assert many.min() >= 0
    assert many.max() < 1000
    assert set(many.tolist()) != set(draw_queries(1000, 64, 1).tolist())
    assert sorted(draw_queries(5, 16, 0).tolist()) == [0, 1, 2, 3, 4]


def test_items_are_spread_evenly():
    assert spread_evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(101, 5).tolist() == [0, 25, 50, 75, 100]
    steps = np.diff(spread_evenly(1000, 300))
    assert set(steps.tolist()) == {3, 4}


class Colors(nn.Module):
    """The mean color of an image."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.mean((2, 3)) * self.scale


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(11):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        size = (40, 30) if number < 9 else (400, 300)  # the last ones are large
        pixels = np.full((*size, 3), rng.integers(0, 255, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[number % 2] / f"{number:02d}.png")
    (tmp_path / "a" / "04.png").write_bytes(b"\x89PNG broken")
    return tmp_path


def test_the_bank_is_read_in_parts_without_what_cannot_be_read(folder):
    source = open_source(f"folder:{folder}", labels="folders", check_headers=False)
    settings = Preprocessing(size=16)
    items, found = read_bank(source, np.arange(11), {"one": Colors()}, {"one": settings}, batch_size=3)
    assert [source.item_name(i)[-8:] for i in items] == [
        *(f"/a/{n:02d}.png"[-8:] for n in (0, 2, 6, 8, 10)),
        *(f"/b/{n:02d}.png"[-8:] for n in (1, 3, 5, 7, 9)),
    ]
    assert list(source.skipped) == [str(folder / "a" / "04.png")]
    images = source.read(items)
    whole = extract_features(Colors(), [(images.pixels, images.labels)], **vars(settings))
    torch.testing.assert_close(found["one"].x, whole.x)
    assert found["one"].y.tolist() == whole.y.tolist() == [0] * 5 + [1] * 5
    assert found["one"].class_names == ("a", "b")


def test_a_bank_of_unreadable_images_is_an_error(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    source = open_source(f"folder:{tmp_path}", check_headers=False)
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        read_bank(source, np.arange(1), {"one": Colors()}, {"one": Preprocessing(size=16)})


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "\"><script>alert(1)</script>' onerror='x\x1b[31m\udcff"


def test_hostile_names_stay_text():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
    pixels[4] = pixels[3]
    bank = Features(torch.eye(6) + 0.1, torch.tensor([0, 1, 0, 1, 0, 1]), (HOSTILE, "b"))
    found = find_neighbors({HOSTILE: bank, "random": bank}, np.array([3, 0]), 5)
    shown = {place: thumbnail(image, HOSTILE) for place, image in enumerate(pixels)}
    about = About(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 9, {HOSTILE: HOSTILE}, [HOSTILE])
    page = neighbors_page(found, 6, shown, about)
    page.encode()  # no halves of surrogate pairs
    assert "\x1b" not in page
    tags = Tags(page)
    assert "script" not in {tag for tag, _ in tags.found}
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 2 * (1 + 2 * 5)
    assert all(attributes.keys() <= {"class", "alt", "title", "loading", "src"} for attributes in images)
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in images)
    assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)
    assert "6 of 9 images, spread evenly," in page
    assert "2 neighbors look like" not in page
    assert "1 neighbor looks like a copy of the query" in page


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((8, 8, 1), "png", (8, 8)),
        ((300, 60, 3), "jpeg", (19, 96)),
        ((1, 4000, 5), "jpeg", (96, 1)),
        ((32, 32, 2), "png", (32, 32)),
    ],
)
def test_thumbnails_are_small(shape, kind, size):
    import base64
    import io

    made = thumbnail(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), "x")
    head, _, content = made.uri.partition(",")
    assert head == f"data:image/{kind};base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.size == size
    assert made.looks_like(made)
