"""Values of every data type -> 8 bits: ranges, values without data, and what the user is told."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from wildfern.ssl.data import DataError, UnreadableImage
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.value_range import RawImage, percentile_range


def raw(values, bits=None, nodata=None) -> RawImage:
    values = np.asarray(values)
    return RawImage(values.reshape(*values.shape[:2], -1), bits, nodata)


def own(values, **options) -> np.ndarray:
    image = raw(values, **options)
    return image.to_bytes([image.own_range()] * image.values.shape[2])[..., 0]


def remarks(values, ranges=None, **options) -> dict[str, str]:
    image = raw(values, **options)
    return dict(image.remarks(ranges or [image.own_range()], given=ranges is not None))


def test_values_that_are_not_finite_or_without_data_become_zero_and_do_not_change_the_scale():
    clean = np.linspace(0, 1, 12).reshape(3, 4)
    for hole in (np.nan, np.inf, -np.inf):
        values = clean.copy()
        values[1, 1] = hole
        expected = np.rint(clean * 255)
        expected[1, 1] = 0
        assert_array_equal(own(values), expected)
        assert "1 of 12 values" in remarks(values)["invalid"]
    marked = clean.astype(np.float32)
    marked[0] = -9999
    assert_array_equal(own(marked, nodata=-9999.0)[1:], np.rint(clean.astype(np.float32) * 255.0)[1:])
    assert own(marked, nodata=-9999.0)[0].max() == 0
    depths = np.array([[-32768, 0, 510]], np.int16)
    assert_array_equal(own(depths, nodata=-32768), [[0, 0, 255]])
    assert_array_equal(own(np.array([[5, 7]], np.uint16), bits=16, nodata=-9999), [[0, 0]])  # no value of this type


def test_an_image_without_valid_values_is_refused():
    with pytest.raises(UnreadableImage, match="no value is finite"):
        own(np.full((2, 2), np.nan))


@pytest.mark.parametrize(
    ("dtype", "edge"), [(np.float32, 1.0), (np.float64, 255.0), (np.int32, 255), (np.int32, 65535)]
)
def test_a_slightly_larger_value_changes_no_pixel_much(dtype, edge):
    values = np.linspace(0, edge, 50).astype(dtype)[None]
    larger = values.copy()
    larger[0, -1] += edge / 1000 + (1 if dtype == np.int32 else 0)
    assert np.abs(own(values).astype(int) - own(larger)).max() <= 2


def test_negative_values_are_kept_apart():
    tissue = np.array([[-1024, -100, 0, 60, 3071]], np.int32)
    assert_array_equal(own(tissue), np.rint((tissue + 1024) * (255 / 4095)))
    window = raw(tissue).to_bytes([(-160.0, 240.0)])[0, :, 0]
    assert_array_equal(window, [0, 38, 102, 140, 255])


def test_each_band_can_have_its_own_range():
    values = np.array([[[0, -25], [5000, 0], [10_000, 5]]], np.int16)
    assert_array_equal(raw(values).to_bytes([(0, 10_000), (-25, 5)])[0], [[0, 0], [127, 212], [255, 255]])


def test_dark_images_are_reported_with_the_range_that_mends_them():
    twelve_bits = np.linspace(0, 4095, 40).astype(np.uint16)[None]
    assert remarks(twelve_bits, bits=16) == {
        "dark": "uses only 0 … 4,095 of the range of uint16, 0 … 65,535; set value_range: [0, 4095], or image or dataset "
        "(percentiles)"
    }
    assert "dark" in remarks(np.array([[0.0, 0.01]]))
    assert "of value_range, 0 … 65,535" in remarks(np.array([[0.0, 0.9]]), [(0, 65535)])["dark"]
    for fine in (np.array([[0, 60_000]], np.uint16), np.zeros((2, 2), np.uint16)):
        assert remarks(fine, bits=16) == {}
    assert remarks(np.array([[0, 9]], np.uint8), bits=8) == {}  # a dark photograph
    assert remarks(np.array([[0.0, 1.0]])) == {}


def test_a_scale_that_differs_between_images_is_reported():
    told = remarks(np.array([[-1000, 2000]], np.int32))["own range"]
    assert "each image's own range; set value_range: [-1000, 2000] (or dataset" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_range": (5.0, 5.0)}, r"\[low, high\] with low < high, got \[5, 5\]"),
        ({"value_range": (0.0, float("nan"))}, "low < high"),
        ({"value_range": ((0.0, 1.0),) * 2}, "2 ranges for 3 bands"),
        ({"value_range": ((0.0, 1.0),) * 3, "bands": (1,)}, "3 ranges for 1 bands"),
        ({"value_range": (0.0, 1.0, 2.0)}, "or such a pair for each band"),
        ({"value_range": "images"}, "image or dataset, got 'images'"),
        ({"percentiles": (1.0, 99.0)}, "value_range: image or dataset, which is not set"),
        ({"percentiles": (99.0, 1.0), "value_range": "image"}, "from 0 to 100"),
        ({"bands": ()}, "one band or more"),
        ({"bands": (0, 1)}, "numbered from 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Decoding(**settings)


def test_percentiles_are_those_of_valid_values():
    values = np.arange(1000.0).reshape(20, 50)
    values[0, 0] = np.nan
    found = Decoding(value_range="dataset", percentiles=(10.0, 90.0)).with_range_of([raw(values), raw(values)])
    assert found.value_range == pytest.approx(tuple(np.percentile(np.arange(1, 1000), (10, 90))), abs=1)


@pytest.mark.parametrize("value", [0.0, -5.0, 777.0, 1e20, -3.4e38, 1.7e308])
def test_percentiles_of_a_constant_image_are_a_range(value):
    low, high = percentile_range([np.full(4, value)], (0.5, 99.5))
    assert low == value
    assert low < high < np.inf
    assert own_bytes(np.full((2, 2), value), (low, high)).max() == 0
    if value < 0 or value > 1:
        assert "set value_range: dataset (percentiles of all images) for one scale" in remarks([[value]])["own range"]


def test_float64_near_its_end_is_scaled_without_overflow():
    ends = np.array([[-1.7e308, 0.0, 1.7e308]])
    with np.errstate(all="raise"):
        assert_array_equal(own(ends), [[0, 128, 255]])
        assert_array_equal(own_bytes(ends, (0.0, 100.0)), [[0, 0, 255]])
    assert "dark" not in remarks(ends)


def own_bytes(values, one) -> np.ndarray:
    return raw(values).to_bytes([one])[..., 0]
