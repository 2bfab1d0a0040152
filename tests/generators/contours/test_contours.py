"""Contours: strokes, fills, noise and parameters against plain loops, whole images, masks and differences between classes."""

import math

import numpy as np
import pytest

from wildfern.generators.contours import raster as raster
from wildfern.generators.contours import sampler as sampler
from wildfern.generators.contours.contours import ContoursStream
from wildfern.generators.counter_rng import draw64, fold64

RADIAL, ATOM = sampler.KINDS.index("radial"), sampler.KINDS.index("atom")


def key_of(*parts, key=1):
    key = np.uint64(key)
    for part in parts:
        key = np.uint64(fold64(key, np.uint64(part)))
    return key


def closed(points):
    x, y = np.asarray(points, np.float32).T
    return np.append(x, x[0]), np.append(y, y[0]), len(x)


def random_polyline(seed, size, count=12):
    generator = np.random.default_rng(seed)
    points = raster.MARGIN + generator.uniform(-0.4 * size, 1.4 * size, (count, 2))
    points[3] = points[2]  # no length
    points[5, 0] = points[4, 0]  # straight down
    points[7, 1] = points[6, 1]  # straight across
    points[9] = points[8] + 0.2
    return closed(points)


def drawn(x, y, count, size, half):
    """Coverage by `stroke` as float64[S, S], and its list of touched pixels."""
    width = size + 2 * raster.MARGIN
    coverage, touched = np.zeros(width * width, np.uint16), np.zeros(width * width + 1, np.int32)
    segments, line = np.empty((3, count), np.int32), np.empty((3, count), np.float32)
    number = raster.stroke(x, y, count, half, size, segments, line, coverage, touched)
    assert sorted(touched[:number]) == np.flatnonzero(coverage).tolist()
    return coverage.reshape(width, width)[raster.MARGIN : -raster.MARGIN, raster.MARGIN : -raster.MARGIN] / 256


def plain_stroke(x, y, count, size, half):
    expected = np.zeros((size, size))
    for x0, y0, x1, y1 in zip(x[:count], y[:count], x[1 : count + 1], y[1 : count + 1], strict=True):
        steep = abs(y1 - y0) > abs(x1 - x0)
        a0, a1, b0, b1 = map(float, (y0, y1, x0, x1) if steep else (x0, x1, y0, y1))
        slope = (b1 - b0) / (a1 - a0) if a1 != a0 else 0.0
        reach = half * math.sqrt(1 + slope * slope)
        for i in range(size):
            if min(a0, a1) - half <= i + raster.MARGIN <= max(a0, a1) + half:
                middle = b0 + slope * (i + raster.MARGIN - a0) - raster.MARGIN
                part = np.clip(reach + 0.5 - np.abs(np.arange(size) - middle), 0, 1)
                line = expected[:, i] if not steep else expected[i]
                np.maximum(line, part, out=line)
    return expected


@pytest.mark.parametrize("size", [8, 31, 640])
def test_strokes_match_the_plain_loop(size):
    half = raster.half_width(size)
    assert half == pytest.approx(max(0.5, size / 1024))
    for seed in range(10):
        x, y, count = random_polyline(seed, size)
        np.testing.assert_allclose(
            drawn(x, y, count, size, half), plain_stroke(x, y, count, size, float(half)), atol=1 / 256
        )


def test_stroke_width_is_the_same_in_every_direction():
    """Length times width of long segments is what they cover in sum, up to their ends."""
    for size in (200, 1500):
        half, length = raster.half_width(size), 0.6 * size
        for degrees in range(0, 180, 15):
            dx, dy = length / 2 * math.cos(math.radians(degrees)), length / 2 * math.sin(math.radians(degrees))
            middle = raster.MARGIN + size / 2 + 0.3
            x, y, _ = closed([(middle - dx, middle - dy), (middle + dx, middle + dy)])
            assert drawn(x, y, 1, size, half).sum() == pytest.approx(2 * float(half) * length, rel=0.03)


def test_fills_match_the_winding_number():
    size = 40
    rows, columns = np.mgrid[:size, :size] + float(raster.MARGIN)
    for seed in range(5):
        x, y, count = random_polyline(seed, size)
        winding = np.zeros((size, size))
        for x0, y0, x1, y1 in zip(x[:-1], y[:-1], x[1:], y[1:], strict=True):
            start, end = np.arctan2(y0 - rows, x0 - columns), np.arctan2(y1 - rows, x1 - columns)
            winding += (end - start + math.pi) % (2 * math.pi) - math.pi
        mask = np.full((size, size), 7, np.uint8)
        raster.enclose(x, y, count, size, np.empty((size, size + 1), np.int16), 3, mask)
        np.testing.assert_array_equal(mask, np.where(np.abs(winding) > 3, 3, 7))


def test_blending_is_over_and_clears_the_coverage():
    generator = np.random.default_rng(0)
    planes = generator.integers(0, 256, (3, 400)).astype(np.uint8)
    coverage, touched = np.zeros(400, np.uint16), np.arange(100, 200, dtype=np.int32)
    coverage[touched] = generator.integers(1, 257, 100)
    parts, before, seen = coverage[touched] / 256, planes.astype(float), np.zeros(400, np.uint8)
    levels = np.array([0, 255, 100])
    raster.blend(100, touched, levels, coverage, planes, seen)
    expected = before.copy()
    expected[:, touched] += (levels[:, None] - before[:, touched]) * parts
    np.testing.assert_allclose(planes, expected, atol=0.51)
    assert not coverage.any()
    assert np.flatnonzero(seen).tolist() == touched[parts >= 0.5].tolist()


def test_noise_is_perlins_at_a_random_place():
    values = []
    for i in range(4000):
        bits = int(draw64(key_of(0), np.uint64(i)))
        t = ((bits & 4095) + 0.5) / 4096
        here, there = (((bits >> shift) & 1023) / 511.5 - 1 for shift in (12, 22))
        fade = 6 * t**5 - 15 * t**4 + 10 * t**3
        values.append(2 * ((1 - fade) * here * t + fade * there * (t - 1)))
        assert float(sampler.perlin(np.uint64(bits))) == pytest.approx(values[-1], abs=1e-6)
    assert np.abs(values).max() <= 1
    assert abs(np.mean(values)) < 0.02
    assert 0.2 < np.std(values) < 0.35


def classes_of(kind, count=2000, lines=(1, 200), perlin=(0.0, 4.0)):
    rows = np.zeros((count, sampler.PARAMETERS))
    for label, row in enumerate(rows):
        sampler.sample_class(key_of(9, label), kind, *lines, *perlin, row)
    return rows


@pytest.mark.parametrize("kind", [RADIAL, ATOM])
def test_classes_have_the_published_ranges(kind):
    rows = classes_of(kind, 6000)
    lines = rows[:, sampler.LINES]
    assert (lines.min(), lines.max()) == (1, 200)
    assert lines.mean() == pytest.approx(100.5, rel=0.04)
    assert rows[:, sampler.PERLIN].mean() == pytest.approx(2, rel=0.04)
    assert 0 <= rows[:, sampler.PERLIN].min() < 0.02 < 3.98 < rows[:, sampler.PERLIN].max() < 4
    assert rows[:, sampler.GROWTH].mean() == pytest.approx(0.05, rel=0.04)
    vertices = rows[:, sampler.VERTICES]
    if kind == RADIAL:
        assert (vertices.min(), vertices.max()) == (3, 200)
        weights = np.exp(-np.arange(3, 201) / 100)
        assert vertices.mean() == pytest.approx(np.average(np.arange(3, 201), weights=weights), rel=0.04)
        assert (vertices < 22).mean() == pytest.approx(weights[:19].sum() / weights.sum(), abs=0.03)
    else:
        assert (vertices.min(), vertices.max()) == (200, 1000)
        assert vertices.mean() == pytest.approx(600, rel=0.03)
        orders = rows[:, [sampler.ORDER_1, sampler.ORDER_2]]
        assert (orders[:, 0] != orders[:, 1]).all()
        assert set(orders.ravel()) == set(range(21))
        pairs = np.unique(orders, axis=0)
        assert len(pairs) > 410 * 0.95  # of 420
        assert rows[:, [sampler.OVAL_X, sampler.OVAL_Y]].mean() == pytest.approx(1.5, rel=0.02)
    narrow = classes_of(kind, 200, (3, 5), (1.0, 1.5))
    assert set(narrow[:, sampler.LINES]) == {3, 4, 5}
    assert ((narrow[:, sampler.PERLIN] >= 1) & (narrow[:, sampler.PERLIN] <= 1.5)).all()


@pytest.mark.parametrize(("kind", "radii", "margin"), [(RADIAL, (0, 100), 56), (ATOM, (10, 60), 32)])
def test_instances_are_placed_where_they_are_seen(kind, radii, margin):
    centers, radius = [], []
    for label, row in enumerate(classes_of(kind)):
        before = row.copy()
        centers.append(sampler.sample_instance(key_of(5, label), kind, row))
        changed = [sampler.RADIUS, sampler.OVAL_X, sampler.OVAL_Y] if kind == RADIAL else []
        assert np.flatnonzero(row != before).tolist() == changed
        assert row[sampler.RADIUS] + row[sampler.LINES] * (row[sampler.PERLIN] + row[sampler.GROWTH]) >= 32 - 1e-9
        assert 1 <= min(row[sampler.OVAL_X], row[sampler.OVAL_Y]) <= max(row[sampler.OVAL_X], row[sampler.OVAL_Y]) < 2
        radius.append(row[sampler.RADIUS])
    assert radii[0] <= min(radius)
    assert max(radius) < radii[1]
    assert np.mean(radius) == pytest.approx(np.mean(radii), rel=0.05)
    np.testing.assert_allclose(np.min(centers, 0), margin / 512, atol=2 / 512)
    np.testing.assert_allclose(np.max(centers, 0), 1 - margin / 512, atol=2 / 512)


def plain_contours(kind, parameters, stride, scale, center, noise_key):
    """Vertices of all contours about the center, float64[lines, 2, vertices], by the published recursion."""
    vertices = np.arange(0, int(parameters[sampler.VERTICES]), stride)
    theta = 2 * math.pi * vertices / int(parameters[sampler.VERTICES])
    direction = np.stack([np.cos(theta), np.sin(theta)])
    coefficient, growth = parameters[sampler.PERLIN], parameters[sampler.GROWTH]
    oval = parameters[[sampler.OVAL_X, sampler.OVAL_Y]]
    points = direction * (parameters[sampler.RADIUS] * oval)[:, None]
    contours = []
    for line in range(int(parameters[sampler.LINES])):
        line_key = key_of(line, key=noise_key)
        bits = [int(draw64(line_key, np.uint64(v))) for v in vertices]
        noise = np.array([[float(sampler.perlin(np.uint64(b >> s))) for b in bits] for s in (0, 32)])
        if kind == RADIAL:
            noise = 2 * coefficient * noise - coefficient
        else:
            waves = np.sin(parameters[sampler.ORDER_1] * theta) / 2 + np.sin(parameters[sampler.ORDER_2] * theta) / 2
            noise = coefficient * noise - coefficient - waves
        points = points - direction * (noise - growth)
        contours.append(points * scale + np.array(center)[:, None])
    return np.array(contours)


@pytest.mark.parametrize("kind", [RADIAL, ATOM])
@pytest.mark.parametrize("stride", [1, 7])
def test_contours_follow_the_published_recursion(kind, stride):
    parameters = classes_of(kind, 1)[0]
    sampler.sample_instance(key_of(5), kind, parameters)
    parameters[sampler.LINES] = 30
    expected = plain_contours(kind, parameters, stride, 0.4, (0.0, 0.0), key_of(6))
    x, y = np.empty(1001, np.float32), np.empty(1001, np.float32)
    steps = np.empty((2, 2, 1000), np.float32)
    count = sampler.prepare(kind, parameters, stride, 0.4, x, y, steps[0], steps[1])
    assert count == expected.shape[2]
    for line in range(30):
        sampler.advance(key_of(6, line), count, stride, steps[0], steps[1], x, y)
        np.testing.assert_allclose(np.stack([x[:count], y[:count]]), expected[line], atol=2e-3)
        assert (x[count], y[count]) == (x[0], y[0])


def plain_sample(stream, index):
    """(image, lines, ring, filled) of one sample from plain loops; no line may leave the canvas on all sides."""
    kind, size = sampler.KINDS.index(stream.kind), stream.size
    class_key = key_of(1, index % stream.num_classes, key=stream.stream_key)
    place, noise, color = (key_of(2, index, part, key=stream.stream_key) for part in range(3))
    parameters = np.zeros(sampler.PARAMETERS)
    sampler.sample_class(class_key, kind, *stream.lines, *stream.perlin, parameters)
    center = np.array(sampler.sample_instance(place, kind, parameters)) * size - 0.5 + raster.MARGIN
    stride = max(int(parameters[sampler.VERTICES]) // (4 * size), 1)
    image = np.full((size, size), 0.0 if kind == ATOM else 255.0)
    lines, encloses = np.zeros((size, size), np.uint8), []
    for line, points in enumerate(plain_contours(kind, parameters, stride, size / 512, center, noise)):
        x, y, count = closed(points.T)
        part = plain_stroke(x, y, count, size, max(0.5, size / 1024))
        gray = 3 * (int(draw64(color, np.uint64(line))) & 255) // 4 + (64 if kind == ATOM else 0)
        image += (gray - image) * part
        lines |= part >= 0.5
        inside = np.zeros((size, size), np.uint8)
        raster.enclose(x, y, count, size, np.empty((size, size + 1), np.int16), 1, inside)
        encloses.append(inside)
    return image, lines, lines | (encloses[-1] & ~encloses[0] & 1), lines | encloses[-1]


@pytest.mark.parametrize("kind", ["radial", "atom"])
def test_images_and_masks_match_the_plain_loop(kind):
    arguments = {"size": 24, "kind": kind, "lines": (2, 9), "classes": 50}
    indices = np.array([0, 1, 2, 53, 54, 10**12])
    images = ContoursStream(**arguments).batch(indices).images
    assert (images == images[..., :1]).all()
    masks = {mask: ContoursStream(**arguments, mask=mask).batch(indices).masks for mask in raster.MASKS}
    for i, index in enumerate(indices):
        image, *expected = plain_sample(ContoursStream(**arguments), int(index))
        # Every line may round by half a level, and its edges by a 256th.
        np.testing.assert_allclose(images[i, ..., 0], image, atol=5)
        for mask, plain in zip(raster.MASKS, expected, strict=True):
            assert (masks[mask][i] != plain).sum() <= 2  # at exactly half a pixel


@pytest.mark.parametrize("kind", ["radial", "atom"])
def test_masks_are_nested_and_contain_the_visible_lines(kind):
    arguments = {"size": 48, "kind": kind, "lines": (1, 20), "perlin": (4.0, 24.0)}
    batches = [ContoursStream(**arguments, mask=mask).batch(np.arange(200)) for mask in raster.MASKS]
    lines, ring, filled = (batch.masks for batch in batches)
    assert all((batch.images == batches[0].images).all() for batch in batches)
    assert (lines <= ring).all()
    assert (ring <= filled).all()
    assert lines.mean() < ring.mean() < 0.95 * filled.mean()
    contrast = np.abs(batches[0].images[..., 0].astype(int) - (255 if kind == "radial" else 0))
    assert contrast[lines == 1].min() >= 31
    assert lines.sum((1, 2)).min() > 0


@pytest.mark.parametrize("kind", ["radial", "atom"])
@pytest.mark.parametrize("lines", [(1, 1), (1, 200)])
def test_no_image_is_empty(kind, lines):
    for size in (8, 33):
        batch = ContoursStream(size=size, kind=kind, lines=lines, classes=10**9).batch(np.arange(1500))
        assert np.ptp(batch.images.reshape(1500, -1).astype(int), axis=1).min() >= 32
        assert batch.masks.any((1, 2)).all()


def test_an_instance_looks_like_its_class():
    """The area of an atom identifies its class, wherever it lies; labels are index % classes."""
    stream = ContoursStream(size=64, kind="atom", classes=20, lines=(1, 30), mask="filled")
    batch = stream.batch(np.arange(200))
    assert batch.labels.tolist() == [index % 20 for index in range(200)]
    areas = np.log(batch.masks.sum((1, 2)).reshape(10, 20))
    assert areas.mean(0).var() > 2 * areas.var(0).mean()
    assert (areas.std(0) > 0).all()


def test_arguments_have_their_effects():
    def lit(**arguments):
        return ContoursStream(size=64, **arguments).batch(np.arange(100)).masks.mean()

    assert lit(lines=(100, 150)) > 2 * lit(lines=(1, 20))
    assert lit(perlin=(3.0, 6.0), mask="filled") > 1.5 * lit(perlin=(0.0, 1.0), mask="filled")
    plain = ContoursStream(size=48).batch(np.arange(10))
    color = ContoursStream(size=48, color=True).batch(np.arange(10))
    assert (plain.images == plain.images[..., :1]).all()
    assert (color.images != color.images[..., :1]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(plain.masks, color.masks)
    corners = [ContoursStream(size=48, kind=kind).batch(np.arange(100)).images[:, 0, 0] for kind in sampler.KINDS]
    assert np.median(corners[RADIAL]) == 255
    assert np.median(corners[ATOM]) == 0
    assert (plain.images != ContoursStream(size=48, seed=1).batch(np.arange(10)).images).any((1, 2, 3)).all()


@pytest.mark.parametrize("size", [700, 2048])
def test_large_images_have_the_same_shapes(size):
    """Lengths scale with the image: an image averaged over its pixels matches a smaller one."""
    small = ContoursStream(size=64, mask="filled", kind="atom").batch([0, 1]).masks.mean((1, 2))
    large = ContoursStream(size=size, mask="filled", kind="atom").batch([0, 1]).masks.mean((1, 2))
    np.testing.assert_allclose(large, small, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "atoms"}, "kind='atoms' is not known: did you mean 'atom'"),
        ({"mask": "m1"}, "mask='m1' is not known: choose one of 'lines', 'ring', 'filled'"),
        ({"lines": (0, 5)}, "the least of lines must lie between 1 and 1000, not 0"),
        ({"lines": (1.0, 5)}, "the least of lines must be a whole number, not 1.0"),
        ({"perlin": (0.0, 50.0)}, "the most of perlin must be a number between 0.0 and 32.0, not 50.0"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"color": "yes"}, "color must be true or false, not 'yes'"),
        ({"threads": 0}, "threads must lie between 1"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContoursStream(**arguments)
