"""The first images of a stream, repeated."""

import pickle

import numpy as np
import pytest

from wildfern.ssl.data import DataError, Mixture, open_source

OF = {"source": "spectrum", "size": 16}


def finite(items=5, **more):
    return open_source("finite", of=OF, items=items, **more)


def test_images_are_those_of_the_stream_and_are_rendered_once(monkeypatch):
    source, stream = finite(), open_source("spectrum", size=16).stream
    source.read([3])
    expected = stream.batch([1, 3, 1, 4])
    np.testing.assert_array_equal(source.read([1, 3, 1, 4]).pixels, expected.images)
    monkeypatch.setattr(source.inner.stream, "batch", None)
    np.testing.assert_array_equal(source.read([1, 3, 1, 4]).pixels, expected.images)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(finite())).read([2]).pixels, stream.batch([2]).images)


def test_what_does_not_fit_is_rendered_again(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.data.finite.CACHE_BYTES", 100)
    source = finite()
    np.testing.assert_array_equal(source.read([2, 2]).pixels, source.inner.stream.batch([2, 2]).images)
    assert source._kept is None


def test_labels_and_parameters_come_with_the_images():
    source = open_source("finite", of={"source": "ifs", "size": 16, "points": 100, "classes": 3}, items=5, seed=2)
    stream = open_source("ifs", size=16, points=100, classes=3, seed=2).stream
    assert source.read([4, 1]).parameters is None
    mixture = Mixture([(source, 1.0)], 0)
    mixture.read_parameters()
    images = mixture.read(np.arange(10))
    np.testing.assert_array_equal(np.sort(images.items.reshape(2, 5)), [range(5)] * 2)
    np.testing.assert_array_equal(images.labels, images.items % 3)
    np.testing.assert_array_equal(images.parameters, stream.parameters(images.items))


def test_more_than_there_are():
    with pytest.raises(DataError, match="at most 1258, got 2000"):
        open_source("finite", of="digits", items=2000)
    assert open_source("finite", of="digits", items=10).read([9]).pixels.shape == (1, 8, 8, 3)
    with pytest.raises(IndexError):
        finite().read([5])
