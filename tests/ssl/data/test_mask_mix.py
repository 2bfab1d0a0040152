"""Images composed by masks, against a plain loop over the images that they are made from."""

import numpy as np
import pytest
from PIL import Image

from wildfern.generators.counter_rng import fold, integers, key
from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors
from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.kmeans_mask import kmeans_mask

NOISE = {"source": "spectrum", "size": 16}


def plain_image(source, item, seed, mixup):
    own = fold(np.array([key("mask_mix", seed)], np.uint64), item)
    most = source.inner.num_items or 2**32
    numbers = integers(fold(own, 0), 6 if mixup else 3, most)[0]
    composed = []
    for c in range(2 if mixup else 1):
        of_mask, outside, inside = (source.inner.read([n]).pixels[0] for n in numbers[3 * c : 3 * c + 3])
        mask = kmeans_mask(of_mask, fold(fold(own, 1), c)[0])
        rows = [[inside[y, x] if mask[y, x] else outside[y, x] for x in range(16)] for y in range(16)]
        composed.append(np.array(rows).astype(float))
    if not mixup:
        return composed[0]
    weight = integers(fold(own, 2), 1, 256)[0, 0] / 256
    return np.floor((1 - weight) * composed[0] + weight * composed[1] + 0.5)


@pytest.mark.parametrize("mixup", [False, True])
def test_images_of_the_plain_loop(mixup):
    source = open_source("mask_mix", of=NOISE, mixup=mixup, seed=3)
    items = np.array([7, 0, 10**9])
    images = source.read(items)
    for image, item in zip(images.pixels, items, strict=True):
        np.testing.assert_array_equal(image, plain_image(source, item, 3, mixup))
    assert images.labels is None
    assert source.num_items is None


def test_an_image_depends_on_its_number_and_seed_and_split_only():
    source = open_source("mask_mix", of=NOISE)
    five = source.read([5]).pixels[0]
    with_others = open_source("mask_mix", of={**NOISE, "threads": 2}).read([1, 5, 9]).pixels
    np.testing.assert_array_equal(with_others[1], five)
    for other in (open_source("mask_mix", of=NOISE, seed=1), open_source("mask_mix", "test", of=NOISE)):
        assert (other.read([5]).pixels[0] != five).any()


def test_photographs_are_cropped_and_resized(tmp_path):
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    source = open_source("mask_mix", of=f"folder:{tmp_path}", size=16)
    assert source.read([0, 1]).pixels.shape == (2, 16, 16, 3)
    assert len(list(source.files())) == 5
    with pytest.raises(DataError, match="needs a size in pixels"):
        open_source("mask_mix", of=f"folder:{tmp_path}")


def test_what_it_is_made_from_is_checked_with_the_recipe():
    changes = ["data={source: mask_mix, of: {source: spectrum, points: 5}}"]
    with pytest.raises(RecipeErrors, match=r"data\.of\.points: unknown key"):
        read_recipe("quickstart", changes)
    for of, complaint in (
        ("{source: digits, split: test}", "data.of.split: unknown key"),
        ("{source: spectrum, size: big}", "data.of.size: must be an integer"),
        ("{source: finite, of: {source: digits, classes: 3}, items: 9}", "data.of.of.classes: unknown key"),
        ("{source: finite, of: digits, items: many}", "data.of.items: must be an integer"),
        ("{source: digits, imbalance: {kind: exp}}", "data.of.imbalance: is for the entries of data"),
        ("{source: 'folder:nowhere'}", "data.of.source: .*nowhere"),
        ("{size: 16}", "data.of: must be the name of a source"),
        ("7", "data.of"),
    ):
        with pytest.raises(RecipeErrors, match=complaint):
            read_recipe("quickstart", [f"data={{source: mask_mix, of: {of}}}"])
    with pytest.raises(DataError, match="an argument has the wrong type"):
        open_source("mask_mix", of={"source": "finite", "of": "digits", "items": "many"}, size=16)
    with pytest.raises(DataError, match="its split is that of the source"):
        open_source("mask_mix", of={"source": "digits", "split": "test"}, size=16)
    with pytest.raises(DataError, match="did you mean 'spectrum'"):
        open_source("mask_mix", of="spectrun")
    with pytest.raises(DataError, match="a mapping with the key source"):
        open_source("mask_mix", of={"size": 32})
