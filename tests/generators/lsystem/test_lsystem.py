"""Images of L-systems against their segments, taken for every pixel, and what each argument changes."""

import math

import numpy as np
import pytest

from wildfern.generators.lsystem.lsystem import LSystemStream
from wildfern.generators.lsystem.presets import NUMBERS, PRESETS

BARE = {"background": "plain", "blur": False, "noise": 0.0}
#: As published: straight branches of one width, one tree as it stands.
STRAIGHT = {"bend": (0, 0), "jag": 0, "pieces": 1, "smooth": False, "taper": False, "rotation": (0, 0), "trees": (1, 1)}


def distances(segment, size):
    """Distance of every pixel center to the segment, and half the width at the nearest point."""
    x0, y0, x1, y1, w0, w1 = segment
    y, x = np.mgrid[:size, :size] + 0.5
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - x0 - t * dx, y - y0 - t * dy), (w0 + t * (w1 - w0)) / 2


def away_from(masks):
    """Pixels that are not in the masks, nor next to one in them, nor at the image's edge, where one may lie just outside."""
    size = masks.shape[1]
    wide = np.pad(masks, ((0, 0), (1, 1), (1, 1)), constant_values=1)
    return np.max([wide[:, i : i + size, j : j + size] for i in range(3) for j in range(3)], axis=0) == 0


def length_seen(segment, size):
    """By 400 points along the segment."""
    x0, y0, x1, y1 = segment[:4]
    t = (np.arange(400) + 0.5) / 400
    inside = (np.abs(x0 + t * (x1 - x0) - size / 2) < size / 2) & (np.abs(y0 + t * (y1 - y0) - size / 2) < size / 2)
    return inside.mean() * math.hypot(x1 - x0, y1 - y0)


@pytest.mark.parametrize(
    ("size", "arguments"),
    [(8, {}), (33, {"preset": "cracks"}), (48, {"width": (0.01, 0.08), "preset": "retina"}), (40, STRAIGHT)],
)
def test_masks_and_widths_are_those_of_the_segments(size, arguments):
    stream = LSystemStream(size=size, seed=4, **arguments)
    batch = stream.batch(np.arange(12))
    assert (batch.masks.dtype, batch.widths.dtype, batch.centerlines.dtype) == (np.uint8, np.float32, np.uint8)
    assert batch.masks.shape == batch.widths.shape == batch.centerlines.shape == (12, size, size)
    assert batch.labels is None
    for index in range(12):
        mask, widths = np.zeros((size, size), bool), np.zeros((size, size))
        for segment in stream.segments(index):
            distance, half = distances(segment, size)
            inside = distance <= half
            mask |= inside
            widths[inside] = np.maximum(widths, 2 * half)[inside]
        np.testing.assert_array_equal(batch.masks[index], mask)
        np.testing.assert_allclose(batch.widths[index], widths, rtol=1e-6)


def test_pixel_widths_of_untapered_branches_are_branch_widths():
    stream = LSystemStream(size=64, taper=False, width=(0.02, 0.1))
    widths = stream.batch(np.arange(20)).widths
    for index in range(20):
        segments = stream.segments(index)
        np.testing.assert_array_equal(segments[:, 4], segments[:, 5])
        assert set(widths[index].ravel().tolist()) <= {0.0, *segments[:, 4].astype(np.float32).tolist()}


@pytest.mark.parametrize("size", [8, 32, 101])
@pytest.mark.parametrize("preset", PRESETS)
def test_centerlines_lie_in_the_masks_along_the_segments(size, preset):
    stream = LSystemStream(size=size, preset=preset)
    batch = stream.batch(np.arange(15))
    assert (batch.centerlines <= batch.masks).all()
    for index in range(15):
        seen, near = 0.0, np.full((size, size), np.inf)
        for segment in stream.segments(index):
            seen += length_seen(segment, size)
            near = np.minimum(near, distances(segment, size)[0])
        line = batch.centerlines[index].astype(bool)
        assert near[line].max() <= math.sqrt(0.5)
        # A pixel a step of the longer axis: at least 1/√2 of the length, fewer only where branches share pixels.
        assert 0 < line.sum() <= 1.3 * seen + 2 * len(stream.segments(index))


def test_a_single_centerline_is_as_long_as_its_branch():
    """Three straight branches that only meet at their ends."""
    arguments = STRAIGHT | {"rule_weights": (1, 0, 0), "iterations": (1, 1), "turn": (60, 60), "bracketed": 0.0}
    stream = LSystemStream(size=256, start_angle=(0, 0), start_x=(0.3, 0.3), start_y=(0.5, 0.5), **arguments)
    for index in range(20):
        segments = stream.segments(index)
        steps = np.abs(segments[:, 2:4] - segments[:, :2]).max(1).sum()
        shared = np.abs(segments[:, 2:4] - segments[:, :2]).max()  # the two brackets' ends may cross
        assert steps - shared <= stream.batch([index]).centerlines.sum() <= steps + 2 * len(segments)


@pytest.mark.parametrize("preset", PRESETS)
def test_away_from_branches_an_image_is_its_background(preset):
    """With every pixel of the mask, and its neighbors at most, changed."""
    batch = LSystemStream(size=64, preset=preset, contrast=(1, 1), softness=0.0, **BARE).batch(np.arange(40))
    far, inside = away_from(batch.masks), batch.masks.astype(bool)
    for image, away, branch in zip(batch.images, far, inside, strict=True):
        (ground,) = np.unique(image[away], axis=0)
        assert (image[branch] < ground).all()
    clouds = BARE | {"background": "clouds"}
    faint, strong = (
        LSystemStream(size=64, preset=preset, contrast=(c, c), **clouds).batch(np.arange(40)) for c in (0.2, 1.0)
    )
    np.testing.assert_array_equal(faint.masks, strong.masks)
    np.testing.assert_array_equal(faint.images[far], strong.images[far])
    assert (faint.images[inside] > strong.images[inside]).mean() > 0.9


def test_branches_are_composited_by_coverage():
    size, contrast = 40, 0.7
    arguments = BARE | {"background": "white", "variation": 0.0, "softness": 0.4}
    stream = LSystemStream(size=size, contrast=(contrast, contrast), preset="retina", **arguments)
    images = stream.batch(np.arange(8)).images
    for index in range(8):
        alpha = np.zeros((size, size))
        for segment in stream.segments(index):
            distance, half = distances(segment, size)
            coverage = np.clip(half + 0.5 - distance, 0, 1) * (1 - 0.4 * (distance / (half + 0.5)) ** 2)
            np.maximum(alpha, coverage, out=alpha)
        expected = 255 + contrast * alpha[..., None] * (np.array(NUMBERS["retina"].branch) - 255)
        np.testing.assert_allclose(images[index], expected, atol=0.51)


def test_segments_vary_in_gray_by_the_variation_and_randomly_in_color():
    size = 64
    white = BARE | {"background": "white", "contrast": (1, 1), "softness": 0.0, "width": (0.08, 0.08)}

    def colors(**arguments):
        """Color in the middle of a branch: that of the last stroke there."""
        batch = LSystemStream(size=size, **white, **arguments).batch(np.arange(60))
        return batch.images[batch.masks.astype(bool) & (batch.images.max(-1) < 250)].astype(int)

    plain, varied = colors(variation=0.0, ratio=(1, 1)), colors(variation=3.0, ratio=(1, 1))
    branch = NUMBERS["vessels"].branch[0]
    assert plain.min() == branch
    assert varied.min() == branch - 3
    assert set(range(branch - 3, branch + 4)) <= set(varied[:, 0].tolist())
    assert (varied == varied[:, :1]).all()
    wild = colors(color="random")
    assert wild.std(0).min() > 50
    assert np.abs(np.corrcoef(wild.T) - np.eye(3)).max() < 0.5


def test_random_colors_are_never_those_of_the_background():
    stream = LSystemStream(size=64, color="random", contrast=(1, 1), softness=0.0, width=(0.08, 0.08), **BARE)
    batch, far = stream.batch(np.arange(200)), []
    for image, mask, away in zip(batch.images, batch.masks, away_from(batch.masks), strict=True):
        (ground,) = np.unique(image[away], axis=0)
        far += (np.abs(image[mask == 1].astype(int) - ground).max(1) >= 32).tolist()
    assert np.mean(far) > 0.99  # at edges two colors can mix to the background's


def test_effects_of_noise_blur_and_softness():
    same = {"size": 64, "contrast": (1, 1), "variation": 0.0}
    bare = LSystemStream(**same, softness=0.0, **BARE).batch(np.arange(30))
    noisy = LSystemStream(**same, softness=0.0, **BARE | {"noise": 5.0}).batch(np.arange(30))
    step = noisy.images.astype(int) - bare.images
    assert (step.min(), step.max()) == (-5, 5)
    assert abs(step.mean()) < 0.05
    assert step.std() == pytest.approx(5 / math.sqrt(3), rel=0.05)
    assert (step == step[..., :1]).all()
    blurred = LSystemStream(**same, softness=0.0, **BARE | {"blur": True}).batch(np.arange(30))
    edges = [np.abs(np.diff(batch.images.astype(int), axis=2)).mean() for batch in (bare, blurred)]
    assert edges[1] < 0.9 * edges[0]
    soft = LSystemStream(**same, softness=0.8, **BARE).batch(np.arange(30))
    inside = bare.masks.astype(bool)
    assert (soft.images[inside] >= bare.images[inside]).all()
    assert soft.images[inside].mean() > bare.images[inside].mean() + 4
    for batch in (noisy, blurred, soft):
        np.testing.assert_array_equal(batch.masks, bare.masks)


def test_backgrounds_are_white_plain_or_cloudy():
    batches = {
        b: LSystemStream(size=64, background=b, blur=False, noise=0).batch(range(20))
        for b in ("white", "plain", "clouds")
    }
    away = away_from(batches["white"].masks)
    assert (batches["white"].images[away] == 255).all()
    kinds = [len(np.unique(batches["clouds"].images[i][away[i]], axis=0)) for i in range(20)]
    assert min(kinds) > 10
    levels = [batches["plain"].images[i][away[i]][0, 0] for i in range(20)]
    assert len(set(levels)) > 5


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_published_turns_widths_lengths_and_places(preset):
    """Of the first rule after one iteration: branch, turn to the right, branch …; numbers in pixels of an 800 canvas."""
    turn, widths, lengths, angles = {
        "vessels": ((1, 4), (2, 12), (90, 150), (0, 0)),
        "retina": ((10, 39), (2, 6), (90, 150), (-80, 20)),
        "cracks": ((10, 39), (2, 8), (120, 200), (-80, 20)),
    }[preset]
    one = STRAIGHT | {"iterations": (1, 1), "bracketed": 0.0, "second_set": 0.0, "rule_weights": (1, 0, 0)}
    size = 640
    stream = LSystemStream(size=size, preset=preset, background="white", **one)
    found = np.array([stream.segments(index)[:2] for index in range(120)])
    starts, steps = found[:, :, :2] / size * 800, (found[:, :, 2:4] - found[:, :, :2]) / size * 800
    mirrored = starts[:, 0, 0] > 400
    assert 30 < mirrored.sum() < 90
    sides = np.where(mirrored, 800 - starts[:, 0, 0], starts[:, 0, 0])
    assert 50 <= sides.min() < 90
    assert 210 < sides.max() <= 250
    np.testing.assert_allclose(starts[:, 0, 1], 500)
    headings = np.degrees(np.arctan2(-steps[..., 1], np.where(mirrored, -1, 1)[:, None] * steps[..., 0]))
    assert headings[:, 0].min() >= angles[0] - 1e-9
    assert headings[:, 0].max() <= angles[1] + 1e-9
    assert np.ptp(headings[:, 0]) >= 0.6 * (angles[1] - angles[0])
    turns = headings[:, 0] - headings[:, 1]
    assert turn[0] <= turns.min() < turn[0] + 0.1 * (turn[1] - turn[0])
    assert turn[1] - 0.1 * (turn[1] - turn[0]) < turns.max() <= turn[1]
    first = found[:, 0, 4] / size * 800
    assert first.min() >= widths[0]
    assert 0.85 * widths[1] < first.max() <= widths[1]
    length = np.hypot(*np.moveaxis(steps[:, 0], -1, 0))
    assert 0.7 * lengths[0] <= length.min() < 0.8 * lengths[0]
    assert 0.85 * lengths[1] < length.max() <= lengths[1]


def test_presets_look_different():
    means = {
        preset: LSystemStream(size=32, preset=preset).batch(np.arange(50)).images.mean((0, 1, 2)) for preset in PRESETS
    }
    gray, red, concrete = (means[preset] for preset in ("vessels", "retina", "cracks"))
    assert np.ptp(gray) < 1
    assert red[0] > red[1] + 50 > red[2] + 60
    assert concrete[0] > concrete[2]
    assert np.ptp(concrete) < 10


def test_numbers_override_those_of_the_preset():
    arguments = {"width": (0.05, 0.05), "length": (0.1, 0.1), "ratio": (1, 1), "trees": (3, 3), "iterations": (1, 1)}
    form = STRAIGHT | arguments | {"rule_weights": (1, 0, 0), "second_set": 0.0, "bracketed": 1.0}
    for preset in PRESETS:
        segments = LSystemStream(size=100, preset=preset, **form).segments(5)
        assert segments.shape == (3 * 3 * 6, 6)
        np.testing.assert_allclose(segments[:, 4:], 5.0)
        np.testing.assert_allclose(np.hypot(*(segments[:, 2:4] - segments[:, :2]).T), 10.0)
        assert (len(np.unique(segments[::18, :2], axis=0))) == 3


def test_weights_and_sets_reach_every_rule():
    """Rule 1 stands first in one set and third in the other, rule 3 third and second."""

    def segments(second_set, *weights):
        stream = LSystemStream(size=16, second_set=second_set, rule_weights=weights)
        return [stream.segments(index) for index in range(5)]

    for one, other in zip(segments(0.0, 1, 0, 0), segments(1.0, 0, 0, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(segments(0.0, 0, 0, 2), segments(1.0, 0, 0.1, 0), strict=True):
        np.testing.assert_array_equal(one, other)
    single = STRAIGHT | {"iterations": (1, 1), "bracketed": 0.0, "length": (0.05, 0.05)}
    many = LSystemStream(size=8, rule_weights=(0.5, 0.3, 0.2), **single)
    counts = [len(many.segments(index)) for index in range(1500)]
    # 6 branches come of rules 1 and 3; 11 of rule 2, second of the first set; 9 of rule 4, first of the second.
    shares = [counts.count(n) / 1500 for n in (6, 11, 9)]
    np.testing.assert_allclose(shares, (0.6, 0.15, 0.25), atol=0.05)


def test_widths_and_lengths_scale_with_the_image():
    small, large = (LSystemStream(size=size, pieces=3, preset="cracks").segments(9) for size in (512, 1024))
    np.testing.assert_allclose(large[:, :4], 2 * small[:, :4])
    thin = small[:, 4:] == small[:, 4:].min()
    assert small[:, 4:].min() == 1.5
    np.testing.assert_allclose(large[:, 4:][~thin], 2 * small[:, 4:][~thin], rtol=0.15)
    assert large[:, 4:].min() == pytest.approx(1024 / 400)
    assert [LSystemStream(size=size).pieces for size in (8, 32, 64, 224, 2048)] == [2, 2, 2, 6, 16]


@pytest.mark.parametrize("preset", PRESETS)
def test_enough_of_the_branches_is_visible(preset):
    for size in (32, 100):
        stream = LSystemStream(size=size, preset=preset, seed=2)
        for index in range(60):
            segments = stream.segments(index)
            seen = sum(length_seen(segment, size) for segment in segments)
            total = np.hypot(*(segments[:, 2:4] - segments[:, :2]).T).sum()
            assert seen >= 0.98 * min(total / 2, 1.5 * size)


def test_trees_outside_the_image_are_centered():
    away = STRAIGHT | {"start_x": (0, 0), "start_angle": (180, 180), "turn": (0, 0), "rule_weights": (1, 0, 0)}
    for length, fills in ((0.05, False), (1.0, True)):
        stream = LSystemStream(
            size=50, length=(length, length), iterations=(1, 1), ratio=(0.9, 0.9), bracketed=0.0, **away
        )
        for index in range(5):
            points = stream.segments(index)[:, :4].reshape(-1, 2)
            np.testing.assert_allclose((points.min(0) + points.max(0)) / 2, 25.0)
            assert (np.ptp(points, axis=0).max() == pytest.approx(0.95 * 50)) == fills
            assert np.ptp(points, axis=0).max() < 50
            assert stream.batch([index]).masks.sum() > 8


def test_drawing_stops_when_half_of_the_image_is_covered():
    for size in (8, 33):
        stream = LSystemStream(size=size, trees=(30, 30), width=(0.1, 0.1), **BARE)
        masks = stream.batch(np.arange(50)).masks
        assert (masks.mean((1, 2)) < 0.8).all()
        assert (masks.mean((1, 2)) > 0.5).mean() > 0.8
        segments = stream.segments(3)
        covered = np.zeros((size, size), bool)
        for segment in segments[:-1]:
            distance, half = distances(segment, size)
            covered |= distance <= half
        assert covered.mean() <= 0.5
        distance, half = distances(segments[-1], size)
        np.testing.assert_array_equal(masks[3], covered | (distance <= half))


@pytest.mark.parametrize("size", [8, 32, 33])
def test_no_image_is_empty_or_of_one_color(size):
    for seed in range(4):
        for preset in PRESETS:
            for look in ({}, {"color": "random"}, BARE | {"contrast": (0.2, 0.2), "variation": 0.0, "softness": 0.8}):
                batch = LSystemStream(size=size, seed=seed, preset=preset, **look).batch(np.arange(60) - 10**12)
                assert batch.masks.any((1, 2)).all()
                assert not batch.masks.all((1, 2)).any()
                assert np.ptp(batch.images.astype(int).reshape(60, -1, 3), axis=1).max(1).min() >= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "rivers"}, "preset='rivers' is not known: choose one of 'vessels', 'retina', 'cracks'"),
        ({"iterations": (0, 2)}, "the least of iterations must lie between 1 and 6, not 0"),
        ({"iterations": 2}, "iterations must be a pair, least and most"),
        ({"trees": (4, 2)}, r"trees must be in order, least first: \(2, 4\)"),
        (
            {"rule_weights": (0.6, 0.4)},
            r"rule_weights must be three numbers, such as \(0.5, 0.3, 0.2\), not \(0.6, 0.4\)",
        ),
        ({"rule_weights": (0, 0, 0)}, "rule_weights must not all be 0"),
        ({"rule_weights": (1, -1, 0)}, r"rule_weights\[1\] must be a number between 0.0 and 1000000.0, not -1"),
        ({"second_set": 2}, "second_set must be a number between 0.0 and 1.0, not 2"),
        ({"bracketed": "no"}, "bracketed must be a number between 0.0 and 1.0, not 'no'"),
        ({"width": (0.0, 0.5)}, "the most of width must be a number between 0.0 and 0.1, not 0.5"),
        ({"length": (0.0, 0.5)}, "the least of length must be a number between 0.02 and 1.0, not 0.0"),
        ({"turn": (0, 200)}, "the most of turn must be a number between 0.0 and 180.0, not 200"),
        ({"ratio": (0.7, 1.2)}, "the most of ratio must be a number between 0.3 and 1.0, not 1.2"),
        ({"bend": (5,)}, "bend must be a pair"),
        ({"jag": 100}, "jag must be a number between 0.0 and 90.0, not 100"),
        ({"pieces": 0}, "pieces must lie between 1 and 64, not 0"),
        ({"start_x": (0.5, 2)}, "the most of start_x must be a number between 0.0 and 1.0, not 2"),
        ({"color": "red"}, "color='red' is not known: choose one of 'preset', 'random'"),
        ({"background": "cloud"}, "background='cloud' is not known: did you mean 'clouds'"),
        ({"contrast": (0, 1)}, "the least of contrast must be a number between 0.2 and 1.0, not 0"),
        ({"softness": 1}, "softness must be a number between 0.0 and 0.8, not 1"),
        ({"noise": math.nan}, "noise must be a number between 0.0 and 64.0, not nan"),
        ({"smooth": "yes"}, "smooth must be true or false, not 'yes'"),
        (
            {"iterations": (1, 4), "trees": (1, 2), "pieces": 2},
            "2 trees of 2 pieces a branch after 4 iterations can have 175692 pieces, and 100000 is the most of an image: "
            "choose fewer trees, iterations or pieces",
        ),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        LSystemStream(**arguments)


def test_unreachable_rules_do_not_count_toward_the_bound():
    """Without the rule of eleven branches and the axiom of three, five iterations fit; with them, four do not."""
    lean = {"rule_weights": (1, 0, 0), "second_set": 0.0, "bracketed": 0.0, "trees": (1, 1), "pieces": 1}
    segments = LSystemStream(size=32, iterations=(5, 5), length=(0.02, 0.02), **lean).segments(0)
    assert 100 < len(segments) <= 6**5
    with pytest.raises(ValueError, match="can have 161051 pieces"):
        LSystemStream(iterations=(5, 5), **lean | {"rule_weights": (1, 1, 0)})


def test_segments_takes_one_index():
    with pytest.raises(ValueError, match=r"index must be a whole number, not 1.5"):
        LSystemStream(size=8).segments(1.5)


@pytest.mark.parametrize("preset", ["vessels", "retina", "cracks"])
def test_inverted_branches_are_as_much_brighter_as_others_are_darker(preset):
    plain = {"preset": preset, "size": 48, "noise": 0.0, "variation": 0.0, "blur": False}
    dark, bright = (LSystemStream(inverted=inverted, **plain).batch(np.arange(6)) for inverted in (False, True))
    np.testing.assert_array_equal(dark.masks, bright.masks)
    difference = np.abs(255 - dark.images.astype(int) - bright.images.astype(int))
    assert difference.max() <= 0.15 * 255 + 2  # the ground's brightness is multiplied by 0.85 to 1.08 in both
    inside = bright.masks > 0
    assert bright.images[inside].mean() > bright.images[~inside].mean() + 20


@pytest.mark.parametrize("arguments", [{"background": "white"}, {"background": "texture"}, {"color": "texture"}])
def test_textures_are_not_inverted(arguments):
    with pytest.raises(ValueError, match="inverted is for the colors of a preset"):
        LSystemStream(inverted=True, **arguments)
