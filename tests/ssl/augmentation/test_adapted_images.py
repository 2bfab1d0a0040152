"""Fourier domain adaptation of only those images whose source has masks."""

import numpy as np
import pytest
import torch

from wildfern.launch.views_image import CELL, GAP, MARGIN, draw_views, shown
from wildfern.ssl.augmentation import FourierAdaptationSettings, multicrop, simclr
from wildfern.ssl.augmentation.fourier_adaptation import draw_adaptation
from wildfern.ssl.augmentation.reference_images import rows_to_change
from wildfern.ssl.data import Images, Mixture, Source
from wildfern.ssl.training import BatchReader

N, SEED = 12, 3
MASKED = np.array([True, False, False, True, True, True, False, True, False, False, True, True])


def noise(n, side=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


class Photographs(Source):
    """Images of noise, with masks or without, and a record of those that were read."""

    def __init__(self, n, seed, masks=False):
        super().__init__()
        self.pixels, self.num_items, self.masks, self.reads = noise(n, seed=seed), n, masks, []

    def read(self, items):
        self.reads.append(np.asarray(items))
        pixels = self.pixels[items]
        return Images(pixels, masks=pixels[..., 0] if self.masks else None)


def adapting(images, data=None, **settings):
    data = data or Photographs(5, seed=1)
    return FourierAdaptationSettings(data=data, images=images, **{"probability": 0.6, **settings})


def test_the_adapted_rows_are_those_with_masks_among_those_that_fire():
    """Their targets and noise are those with images "all", and nothing is read for the others."""
    x, targets = noise(N), Photographs(5, seed=1)
    plain = multicrop(size=24, local_size=12, local_count=2)
    every, some = (
        multicrop(size=24, local_size=12, local_count=2, fourier_adaptation=adapting(images, targets, noise=0.02))
        for images in ("all", "with_masks")
    )
    before, all_of_them = (views(views.prepare(x, SEED, 5, np.arange(N))) for views in (plain, every))
    targets.reads.clear()
    batch = some.prepare(x, SEED, 5, np.arange(N), masked=MASKED)
    made, view = some(batch), 0
    for group, unchanged, adapted in zip(made, before, all_of_them, strict=True):
        for v in range(len(group)):
            fired = rows_to_change("fourier_adaptation", 0.6, SEED, 5, view, np.arange(N))
            rows = [i for i in fired if MASKED[i]]
            assert 0 < len(rows) < len(fired) < N
            others = [i for i in range(N) if i not in rows]
            torch.testing.assert_close(group[v, others], unchanged[v, others], rtol=0, atol=1e-5)
            torch.testing.assert_close(group[v, rows], adapted[v, rows], rtol=0, atol=1e-5)
            assert (group[v, rows] - unchanged[v, rows]).abs().flatten(1).amax(1).min() > 0.05
            table = draw_adaptation(SEED, 5, np.array(rows), view, 5)
            np.testing.assert_array_equal(targets.reads[view], table.target)
            view += 1
    assert view == 4


@pytest.mark.parametrize("masked", [np.ones(N, bool), np.zeros(N, bool)])
def test_all_masked_is_all_and_none_masked_is_none(masked):
    x = noise(N)
    views = simclr(size=24, fourier_adaptation=adapting("with_masks"))
    same = simclr(size=24, fourier_adaptation=adapting("all") if masked.all() else None)
    made = views(views.prepare(x, SEED, 0, np.arange(N), masked=masked))[0]
    torch.testing.assert_close(made, same(same.prepare(x, SEED, 0, np.arange(N)))[0], rtol=0, atol=1e-5)


def test_masks_do_not_matter_with_all_images():
    x = noise(N)
    views = simclr(size=24, fourier_adaptation=adapting("all"))
    with_masks, without = (views(views.prepare(x, SEED, 0, np.arange(N), masked=m))[0] for m in (MASKED, None))
    assert torch.equal(with_masks, without)


def test_two_ranks_adapt_as_one_process():
    x = noise(N)
    operations = [{"operation": "RandomErasing", "p": 0.4}]  # which takes no masks
    views = simclr(size=24, fourier_adaptation=adapting("with_masks"), extra=operations)
    whole = views(views.prepare(x, SEED, 5, np.arange(N), batch_size=N, masked=MASKED))[0]
    parts = [
        views(views.prepare(x[own], SEED, 5, np.arange(N)[own], batch_size=N, masked=MASKED[own]))[0]
        for own in (slice(5), slice(5, N))
    ]
    torch.testing.assert_close(whole, torch.cat(parts, dim=1), rtol=0, atol=1e-5)


def test_data_without_masks_are_refused():
    views = simclr(size=24, fourier_adaptation=adapting("with_masks"))
    message = "images is with_masks, but no source of the data has masks: set it to all, or add a source with masks"
    with pytest.raises(ValueError, match=message):
        views.prepare(noise(N), 0, 0, np.arange(N))
    mixture = Mixture([(Photographs(9, seed=2), 1.0), (Photographs(9, seed=3), 1.0)], 0)
    with pytest.raises(ValueError, match=message):
        BatchReader(mixture, views, seed=0, batch_size=4)(0)


@pytest.mark.parametrize("wrong", [MASKED[1:], MASKED.astype(np.int64), MASKED[:, None]])
def test_masked_of_another_form_is_refused(wrong):
    with pytest.raises(ValueError, match=r"masked must be bool\[12\], not (bool\[11\]|int64\[12\]|bool\[12, 1\])"):
        simclr(size=24).prepare(noise(N), 0, 0, np.arange(N), masked=wrong)


def mixture_of_both():
    return Mixture([(Photographs(20, seed=4, masks=True), 1.0), (Photographs(20, seed=5), 1.0)], 0)


UNCHANGED = dict(crop_pixels=(24, 24), flip=0.0, jitter=0.0, gray=0.0, blur=0.0)  # every view is its image


def test_training_adapts_the_images_of_sources_with_masks():
    mixture = mixture_of_both()
    views = simclr(size=24, fourier_adaptation=adapting("with_masks", probability=1.0), **UNCHANGED)
    for masks in (True, False):  # whether the method needs masks or not
        reader = BatchReader(mixture, views, seed=0, batch_size=N, masks=masks)
        batch = reader.batch(reader(2))
        read = mixture.read(reader.indices(2, 0))
        differs = (
            (_pixels(batch.views[0], views) - torch.from_numpy(np.stack(read.pixels)).float()).abs().amax((2, 3, 4))
        )
        assert torch.equal(differs > 2, torch.from_numpy(read.source == 0).expand(2, N))
        assert 0 < (read.source == 0).sum() < N
        assert torch.equal(batch.masked, batch.source == 0)


def _pixels(group, views):
    """[V, n, H, W, 3] in 0 … 255."""
    return ((group * views.std + views.mean) * 255).permute(0, 1, 3, 4, 2)


def test_the_image_of_views_shows_what_training_sees():
    mixture = mixture_of_both()
    views = simclr(size=CELL, fourier_adaptation=adapting("with_masks"), crop_pixels=(12, 24))
    sheet = np.asarray(draw_views(mixture, views, 7, N))
    reader = BatchReader(mixture, views, seed=7, batch_size=N)
    group = reader.batch(reader(0)).views[0]
    for row in range(8):
        for view in range(2):
            top, left = MARGIN + row * (CELL + GAP), GAP + (1 + view) * (CELL + GAP)
            expected = shown(group[view, row : row + 1], views)[0]
            np.testing.assert_array_equal(sheet[top : top + CELL, left : left + CELL], expected)
