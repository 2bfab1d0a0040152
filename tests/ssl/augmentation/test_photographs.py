"""From files to views: an image is decoded once for all its views, at full size, and cropped on the host."""

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.augmentation import VIEWS, multicrop
from wildfern.ssl.augmentation.host_crops import crop_images
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.data.folder import FolderSource

SHAPES = [(160, 213), (213, 160), (64, 300), (333, 250), (48, 48), (500, 375)]


def photograph(height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for seed, (height, width) in enumerate(SHAPES):
        photograph(height, width, seed).save(tmp_path / f"{seed}.jpg", quality=92)
    return tmp_path


@pytest.mark.parametrize("max_side", [None, 120])
def test_an_image_is_decoded_once_for_all_its_views(folder, max_side, monkeypatch):
    source = open_source(f"folder:{folder}", max_side=max_side)
    source.read(np.arange(1))  # the first read checks whether all images have one size
    decoded = []
    decode = FolderSource.decode

    def counted(self, item):
        decoded.append(item)
        return decode(self, item)

    monkeypatch.setattr(FolderSource, "decode", counted)
    mixture, views = Mixture([(source, 1.0)], seed=0), multicrop(size=48, local_size=24, local_count=8)
    for epoch in range(2):
        images = mixture.read(np.arange(6 * epoch, 6 * epoch + 6))
        assert sorted(decoded) == list(range(6))
        decoded.clear()
        groups = views(views.prepare(images.pixels, 0, epoch, np.arange(6)))
        assert [tuple(g.shape[:2]) for g in groups] == [(2, 6), (8, 6)]
        assert decoded == []


def test_crops_are_taken_from_the_image_at_full_size(folder):
    images = open_source(f"folder:{folder}").read(np.arange(6)).pixels
    assert [p.shape[:2] for p in images] == SHAPES
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / f"{i}.jpg")))
    (table,) = VIEWS["mocov3"](size=32).draw(0, 0, np.arange(6))
    crops = crop_images(images, table, 32)
    boxes = table.boxes(*(np.array([p.shape[side] for p in images]) for side in (0, 1)))
    for i, image in enumerate(images):
        for v in range(2):
            top, left, height, width = boxes[v, i].tolist()
            crop = Image.fromarray(image[top : top + height, left : left + width])
            expected = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
            expected = expected[:, ::-1] if table.flip[v, i] else expected
            assert np.abs(crops[v, i] - expected).max() <= 1
