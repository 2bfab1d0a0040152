"""The mixture's closed form against a plain loop with a counter per component."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wildfern.generators import ImageBatch, make_stream
from wildfern.ssl.data import DataError, GuidedBatches, Images, Mixture, Source, SyntheticSource, permuted
from wildfern.ssl.data.block_order import BlockOrder
from wildfern.ssl.data.mixture import BLOCK, block_counts


class Numbers(Source):
    """Images whose first pixel encodes (source, item)."""

    def __init__(self, tag: int, num_items: int | None, side: int = 2, class_names: list[str] | None = None) -> None:
        super().__init__()
        self.tag, self.num_items, self.side, self.class_names = tag, num_items, side, class_names

    def read(self, items):
        pixels = np.zeros((len(items), self.side, self.side, 3), np.uint8)
        pixels[:, 0, 0] = np.stack([np.full(len(items), self.tag), items // 256 % 256, items % 256], 1)
        return Images(pixels, None if self.class_names is None else np.asarray(items) % len(self.class_names))


def seen(images: Images) -> list[tuple[int, int]]:
    return [(int(p[0, 0, 0]), int(p[0, 0, 1]) * 256 + int(p[0, 0, 2])) for p in images.pixels]


def plain_loop(mixture: Mixture, length: int) -> list[tuple[int, int]]:
    """(component, own index) for 0 … length - 1, with a counter for each component."""
    slots = np.repeat(np.arange(len(mixture.counts)), mixture.counts)
    counters = [0] * len(mixture.counts)
    out = []
    for index in range(length):
        component = int(slots[permuted([index], BLOCK, mixture._block_seed)[1][0]])
        out.append((component, counters[component]))
        counters[component] += 1
    return out


def test_one_endless_source_gives_item_equals_index():
    assert seen(Mixture([(Numbers(1, None), 1.0)], 0).read([5, 0, 300])) == [(1, 5), (1, 0), (1, 300)]


def test_one_finite_source_gives_shuffled_epochs():
    mixture = Mixture([(Numbers(1, 10, class_names=["a", "b"]), 1.0)], 0)
    images = mixture.read(np.arange(30))
    items = np.array([item for _, item in seen(images)]).reshape(3, 10)
    np.testing.assert_array_equal(np.sort(items, axis=1), np.tile(np.arange(10), (3, 1)))
    np.testing.assert_array_equal(images.labels, items.ravel() % 2)
    assert mixture.class_names == ["a", "b"]


def test_own_indices_match_the_plain_loop():
    mixture = Mixture([(Numbers(0, None), 0.5), (Numbers(1, None), 0.3), (Numbers(2, None), 0.2)], 4)
    assert seen(mixture.read(np.arange(2500))) == plain_loop(mixture, 2500)


def test_every_block_has_the_exact_counts():
    mixture = Mixture([(Numbers(0, None), 0.7), (Numbers(1, 40), 0.3)], 1)
    components, _, _ = mixture.locate(np.arange(5 * BLOCK))
    for block in components.reshape(5, BLOCK):
        np.testing.assert_array_equal(np.bincount(block), [717, 307])


def test_a_finite_component_has_exact_epochs_in_a_mix():
    mixture = Mixture([(Numbers(0, None), 3.0), (Numbers(1, 37), 1.0)], 1)
    components, epochs, items = mixture.locate(np.arange(3 * BLOCK))
    mine = items[components == 1]
    assert len(mine) == 768
    for epoch in range(768 // 37):
        assert sorted(mine[epoch * 37 : (epoch + 1) * 37]) == list(range(37))
    assert (epochs[components == 1] == np.arange(768) // 37).all()


def test_an_index_gives_the_same_image_in_any_order_and_batch():
    components = [(Numbers(0, None), 1.0), (Numbers(1, 500), 2.0)]
    whole = seen(Mixture(components, 3).read(np.arange(6000)))
    mixture = Mixture(components, 3)
    scattered = np.random.default_rng(0).permutation(6000)[:700]
    assert seen(mixture.read(scattered)) == [whole[i] for i in scattered]
    far = 10**10 + np.arange(40)
    halves = seen(mixture.read(far[20:])), seen(mixture.read(far[:20]))
    assert halves[1] + halves[0] == seen(mixture.read(far))


def test_images_of_two_sizes_come_as_a_list():
    mixture = Mixture([(Numbers(0, None, 2, ["x"]), 1.0), (Numbers(1, 9, 3, ["y"]), 1.0)], 0)
    images = mixture.read(np.arange(20))
    assert isinstance(images.pixels, list)
    assert {p.shape for p in images.pixels} == {(2, 2, 3), (3, 3, 3)}
    assert mixture.class_names is None


class Annotated(Numbers):
    """With labels (of `width` columns, or one number) and with masks of the item's number, where asked."""

    def __init__(self, tag: int, side: int = 2, width: int | None = None, labels: bool = True, masks: bool = False):
        super().__init__(tag, None, side)
        self.width, self.labels, self.masks = width, labels, masks

    def read(self, items):
        labels = np.eye(self.width, dtype=np.uint8)[items % self.width] if self.width else items % 7
        masks = np.broadcast_to((items % 251).astype(np.uint8)[:, None, None], (len(items), self.side, self.side))
        pixels = super().read(items).pixels
        return Images(pixels, labels if self.labels else None, masks=masks if self.masks else None)


def test_a_single_source_keeps_its_labels_and_masks_and_gets_its_number():
    images = Mixture([(Annotated(1, width=3, masks=True), 1.0)], 0).read([4, 2])
    np.testing.assert_array_equal(images.labels, np.eye(3)[[1, 2]])
    assert images.masks[:, 1, 1].tolist() == [4, 2]
    assert (images.source.tolist(), images.source.dtype) == ([0, 0], np.int64)


def test_labels_of_several_sources_are_their_own_and_source_distinguishes_them():
    sources = [Annotated(0), Annotated(1, labels=False), Annotated(2, 3)]
    images = Mixture([(source, 1.0) for source in sources], 0).read(np.arange(60))
    for image, label, source in zip(images.pixels, images.labels, images.source, strict=True):
        tag, item = int(image[0, 0, 0]), int(image[0, 0, 1]) * 256 + int(image[0, 0, 2])
        assert source == tag
        assert label == (-1 if tag == 1 else item % 7)
    assert (set(images.source), images.labels.dtype, images.source.dtype) == ({0, 1, 2}, np.int64, np.int64)


def test_multi_hot_labels_join_if_all_are_of_one_width():
    images = Mixture([(Annotated(0, width=4), 1.0), (Annotated(1, labels=False), 1.0)], 0).read(np.arange(40))
    assert (images.labels.shape, images.labels.dtype) == ((40, 4), np.uint8)
    np.testing.assert_array_equal(images.labels.sum(axis=1), images.source == 0)
    for width in (3, None):
        mixed = Mixture([(Annotated(0, width=4), 1.0), (Annotated(1, width=width), 1.0)], 0)
        assert mixed.read(np.arange(4)).labels is None


@pytest.mark.parametrize("side", [2, 3])
def test_images_without_masks_get_zeros_beside_others_that_have_some(side):
    images = Mixture([(Annotated(0, masks=True), 1.0), (Annotated(1, side), 1.0)], 0).read(np.arange(600))
    assert isinstance(images.masks, list) == (side == 3)
    for image, mask in zip(images.pixels, images.masks, strict=True):
        item = int(image[0, 0, 1]) * 256 + int(image[0, 0, 2])
        np.testing.assert_array_equal(mask, np.full(image.shape[:2], 0 if image[0, 0, 0] else item % 251, np.uint8))


def test_a_batch_has_labels_and_masks_whichever_sources_are_in_it():
    """Else ranks would differ in what their batches have."""
    mixture = Mixture([(Annotated(0, masks=True), 1.0), (Annotated(1, labels=False), 1.0)], 0)
    components = mixture.locate(np.arange(50))[0]
    for number in (0, 1):
        images = mixture.read(np.flatnonzero(components == number))
        assert (images.masks is not None, images.labels is not None) == (True, True)
        assert images.masks.any() == (number == 0)
        assert (images.labels >= 0).any() == (number == 0)


def test_sources_without_labels_or_masks_make_none_and_those_of_weight_0_are_not_read():
    class Broken(Numbers):
        def read(self, items):
            raise AssertionError("this source has weight 0")

    mixture = Mixture([(Numbers(0, None), 1.0), (Numbers(1, None), 1.0), (Broken(2, None), 0.0)], 0)
    images = mixture.read(np.arange(9))
    assert (images.labels, images.masks) == (None, None)


def test_images_keep_what_they_have_on_the_host_and_as_lists():
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 2, 2, 3)
    images = Images(pixels, np.array([3, -1]), pixels + 1, pixels[..., 0], np.array([0, 1]))
    for other in (images.on_host(), images.as_lists()):
        assert (other.labels.tolist(), other.source.tolist()) == ([3, -1], [0, 1])
        for name in ("pixels", "paired_images", "masks"):
            assert all(isinstance(one, np.ndarray) for one in getattr(other, name))
            np.testing.assert_array_equal(np.stack(list(getattr(other, name))), getattr(images, name))
    assert isinstance(images.as_lists().masks, list)
    lists = images.as_lists()
    again = Images.gather(lists.pixels, lists.labels, lists.paired_images, lists.masks, lists.source)
    assert isinstance(again.masks, np.ndarray)
    np.testing.assert_array_equal(again.masks, images.masks)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([1.0], [1024]),
        ([1, 1, 1], [342, 341, 341]),
        ([0.9999, 0.0001], [1023, 1]),
        ([1e9, 1, 1, 0], [1022, 1, 1, 0]),
        ([5, 3], [640, 384]),
    ],
)
def test_block_counts(weights, counts):
    assert block_counts(weights).tolist() == counts


@pytest.mark.parametrize("weights", [[0.0], [1.0, -1.0], [float("nan")], [1.0] * 1025])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(DataError):
        block_counts(weights)


def test_a_stream_is_an_endless_source_with_a_distant_test_split():
    def batch(indices):
        pixels = np.broadcast_to((indices % 251).astype(np.uint8)[:, None, None, None], (len(indices), 4, 4, 3))
        return ImageBatch(pixels, indices % 3, masks=pixels[..., 0])

    stream = SimpleNamespace(size=4, num_classes=3, batch=batch)
    train, test = SyntheticSource(stream), SyntheticSource(stream, "test")
    assert (train.num_items, train.num_classes, train.class_names) == (None, 3, ["0", "1", "2"])
    assert Mixture([(train, 1.0)], 0).read([250, 3]).pixels[:, 0, 0, 0].tolist() == [250, 3]
    assert test.read([1]).labels.tolist() == [(2**40 + 1) % 3]
    assert train.read([9]).masks[:, 3, 3].tolist() == [9]


def test_pairs_are_kept_and_single_images_are_paired_with_themselves():
    def batch(indices):
        pixels = np.broadcast_to((indices % 100).astype(np.uint8)[:, None, None, None], (len(indices), 2, 2, 3))
        return ImageBatch(pixels, np.eye(3, dtype=np.uint8)[indices % 3], paired_images=pixels + 100)

    pairs = SyntheticSource(SimpleNamespace(size=2, num_classes=3, batch=batch))
    alone = pairs.read([5, 7])
    np.testing.assert_array_equal(alone.labels, np.eye(3)[[2, 1]])
    assert alone.paired_images[:, 0, 0, 0].tolist() == [105, 107]
    mixture = Mixture([(pairs, 1.0), (Numbers(200, None), 1.0)], 0)
    images = mixture.read(np.arange(40))
    components = mixture.locate(np.arange(40))[0]
    assert 0 < components.sum() < 40
    for image, paired_image, component in zip(images.pixels, images.paired_images, components, strict=True):
        if component:
            np.testing.assert_array_equal(image, paired_image)
        else:
            np.testing.assert_array_equal(image + 100, paired_image)
    lists = images.as_lists()
    assert [type(lists.pixels), type(lists.paired_images)] == [list, list]
    np.testing.assert_array_equal(np.stack(lists.paired_images), images.paired_images)


def test_tensors_of_a_single_source_are_kept_and_those_of_several_are_joined_on_the_host():
    class Tensors(Numbers):
        def read(self, items):
            images = super().read(items)
            return Images(
                torch.from_numpy(images.pixels), paired_images=torch.from_numpy(images.pixels[:, ::-1].copy())
            )

    alone = Mixture([(Tensors(3, None), 1.0)], 0).read(np.arange(4))
    assert isinstance(alone.pixels, torch.Tensor)
    assert isinstance(alone.paired_images, torch.Tensor)
    for images in (alone.as_lists(), alone.on_host()):
        assert [type(image) for image in images.pixels] == [np.ndarray] * 4
        assert [type(image) for image in images.paired_images] == [np.ndarray] * 4
        assert seen(images) == [(3, item) for item in range(4)]
    several = Mixture([(Tensors(0, None), 1.0), (Numbers(1, None), 1.0)], 0)
    images = several.read(np.arange(50))
    assert isinstance(images.pixels, np.ndarray)
    assert seen(images) == plain_loop(several, 50)
    flipped = images.pixels[:, ::-1]
    own = images.pixels[:, 0, 0, 0] == 1
    np.testing.assert_array_equal(images.paired_images, np.where(own[:, None, None, None], images.pixels, flipped))


def test_items_count_on_through_the_finite_sources():
    mixture = Mixture([(Numbers(0, 7), 1.0), (Numbers(1, None), 1.0), (Numbers(2, 5), 1.0)], 0)
    images = mixture.read(np.arange(60))
    expected = [{0: item, 1: -1, 2: 7 + item}[tag] for tag, item in seen(images)]
    np.testing.assert_array_equal(images.items, expected)
    assert set(images.items) == set(range(-1, 12))
    assert mixture.num_images == 12


def test_images_without_parameters_have_none_that_are_numbers():
    noise = SyntheticSource(make_stream("spectrum", size=8))
    mixture = Mixture([(noise, 1.0), (Numbers(1, None, side=8), 1.0)], 0)
    assert mixture.read(np.arange(20)).parameters is None
    mixture.read_parameters()
    images = mixture.read(np.arange(20))
    _, _, items = mixture.locate(np.arange(20))
    rendered = images.source == 0
    np.testing.assert_array_equal(images.parameters[rendered], noise.stream.parameters(items[rendered]))
    assert np.isnan(images.parameters[~rendered]).all()
    assert 0 < rendered.sum() < 20


class InBlocks(Numbers):
    """Numbers that are stored ten at a time."""

    @property
    def blocks(self):
        return np.arange(0, self.num_items + 1, 10)


def test_components_are_ordered_by_blocks_where_asked_and_others_stay_as_they_are():
    sources = [InBlocks(0, 90), Numbers(1, None), InBlocks(2, 40)]
    parts = list(zip(sources, (1.0, 2.0, 1.0), strict=True))
    random, mixture = Mixture(parts, 3), Mixture(parts, 3, buffers=[25, None, None])
    assert [source.reads_by_blocks for source in sources] == [25, 0, 0]
    components, epochs, items = mixture.locate(np.arange(4 * BLOCK))
    for place, other in enumerate(random.locate(np.arange(4 * BLOCK))):
        np.testing.assert_array_equal((components, epochs, items)[place][components > 0], other[components > 0])
    own = items[components == 0]
    order = BlockOrder(sources[0].blocks, 25, mixture._seeds[0])
    np.testing.assert_array_equal(own, order.locate(np.arange(len(own)))[1])
    np.testing.assert_array_equal(epochs[components == 0], np.arange(len(own)) // 90)
    assert seen(mixture.read([9, 2000])) == [(int(components[i]), int(items[i])) for i in (9, 2000)]


def test_an_order_by_blocks_needs_blocks_and_no_guide():
    with pytest.raises(DataError, match=r"order: blocks is for images .* but those of this source are not"):
        Mixture([(Numbers(0, 90), 1.0)], 0, buffers=[10])
    guide = GuidedBatches(np.arange(90) % 9, 4, 0)
    with pytest.raises(DataError, match="guide chooses the images of each batch"):
        Mixture([(InBlocks(0, 90), 1.0)], 0, guide, [10])
