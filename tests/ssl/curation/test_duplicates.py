"""Copies of synthetic images, against a plain loop: re-encoded, resized, gray, exact; and what is no copy."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from wildfern.ssl.curation import duplicates, hash_pairs
from wildfern.ssl.curation.duplicates import QUALITY, SHAPE, best_first, find_copies, near_pairs
from wildfern.ssl.curation.hash_pairs import same_small
from wildfern.ssl.curation.image_table import COLUMNS, ImageTable, as_small
from wildfern.ssl.curation.manifest import SCHEMA, SMALL
from wildfern.ssl.curation.measure import measure
from wildfern.ssl.curation.policy import Duplicates

RULE = Duplicates()


def scene(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """Colored shapes on a gradient."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(rng.integers(40, 200, 3), rng.integers(40, 200, 3), height)
    image = Image.fromarray(np.broadcast_to(ramp[:, None], (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, w, h = (rng.random(4) * [width, height, width / 2, height / 2]).tolist()
        draw.ellipse((x - w / 2, y - h / 2, x + w / 2, y + h / 2), tuple(rng.integers(0, 256, 3).tolist()))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)


def table_of(rows: list[dict]) -> ImageTable:
    columns = {name: pa.array([row.get(name) for row in rows], SCHEMA.field(name).type) for name in (*COLUMNS, "small")}
    whole = pa.table(columns)

    def read_small(images):
        assert (np.diff(images) > 0).all()  # ascending, as the reader of files needs them
        return as_small(whole.column("small").take(pa.array(images)))

    return ImageTable(whole, read_small)


def images_of(contents: list[bytes]) -> ImageTable:
    return table_of([measure(content) | {"bytes": len(content), "path": str(n)} for n, content in enumerate(contents)])


def groups_of(contents: list[bytes], rule: Duplicates = RULE, rank=None) -> list[list[int]]:
    """The groups, each with its best copy first."""
    images = images_of(contents)
    copies = find_copies(images, rule, np.zeros(len(contents), np.int8) if rank is None else np.array(rank, np.int8))
    found = []
    for number in range(copies.group.max() + 1):
        members = np.flatnonzero(copies.group == number)
        (best,) = set(copies.best[members].tolist())
        found.append([best, *(n for n in members.tolist() if n != best)])
    alone = copies.group < 0
    assert (copies.best[alone] == np.flatnonzero(alone)).all()
    return sorted(found)


def by_loop(images: ImageTable, rule: Duplicates, rank) -> tuple[list[int], list[int]]:
    """The best copy and the group of each image, by the definition."""
    table = images._table.to_pylist()
    small = [None if row["small"] is None else np.frombuffer(row["small"], np.uint8).astype(float) for row in table]

    def key(n):
        row = table[n]
        return rank[n], -(row["width"] or 0) * (row["height"] or 0), -(row["bytes"] or 0), n

    def is_near(i, j):
        one, other = table[i], table[j]
        if (one["phash"] ^ other["phash"]).bit_count() > rule.bits:
            return False
        a, b = (row["width"] / row["height"] for row in (one, other))
        rounding = 1 / min(one["width"], one["height"], other["width"], other["height"])
        if abs(np.log(a / b)) > SHAPE + rounding:
            return False
        first, second = small[i].reshape(256, 3), small[j].reshape(256, 3)
        if min(np.ptp(first, axis=1).max(), np.ptp(second, axis=1).max()) <= 2:
            first, second = (side @ [0.299, 0.587, 0.114] for side in (first, second))
        return np.abs(first - second).mean() <= rule.difference

    order = sorted(range(len(table)), key=key)
    readable = [n for n in order if table[n]["pixels_sha256"] is not None]
    leaders: dict[str, int] = {}
    for n in readable:
        leaders.setdefault(table[n]["pixels_sha256"], n)
    groups: list[list[int]] = []
    for n in readable:
        if leaders[table[n]["pixels_sha256"]] != n or table[n]["phash_quality"] < QUALITY:
            continue
        for group in groups:
            if all(is_near(n, member) for member in group):
                group.append(n)
                break
        else:
            groups.append([n])
    best = list(range(len(table)))
    for group in groups:
        for n in group:
            best[n] = group[0]
    for n in readable:
        best[n] = best[leaders[table[n]["pixels_sha256"]]]
    numbers: dict[int, int] = {}
    for leader in sorted({one for one in best if best.count(one) > 1}):
        numbers[leader] = len(numbers)
    return best, [numbers.get(one, -1) for one in best]


def variants(image: Image.Image) -> dict[str, bytes]:
    return {
        "PNG": encoded(image),
        "same pixels": encoded(image, "BMP"),
        "JPEG 95": encoded(image, "JPEG", quality=95),
        "JPEG 40": encoded(image, "JPEG", quality=40),
        "WebP": encoded(image, "WEBP", quality=60),
        "half": encoded(resized(image, 0.5), "JPEG"),
        "0.8": encoded(resized(image, 0.8), "JPEG"),
        "double": encoded(resized(image, 2), "JPEG"),
        "gray": encoded(image.convert("L"), "JPEG"),
        "palette": encoded(image.quantize(64)),
    }


def test_copies_of_all_kinds_are_one_group_and_other_images_are_not_in_it():
    contents = [content for seed in range(6) for content in variants(scene(seed)).values()]
    count = len(variants(scene(0)))
    found = groups_of(contents)
    assert [sorted(group) for group in found] == [list(range(n * count, (n + 1) * count)) for n in range(6)]
    double = list(variants(scene(0))).index("double")
    assert [group[0] for group in found] == [n * count + double for n in range(6)]  # has most pixels


def test_a_plain_loop_finds_the_same():
    contents = [content for seed in range(12) for content in variants(scene(seed, 120, 90)).values()]
    contents += [encoded(scene(seed % 6, 120, 90 + 6 * (seed // 6))) for seed in range(24)]  # stretched more and more
    contents += [
        b"not an image",
        encoded(Image.new("RGB", (90, 90), "red")),
        encoded(Image.new("RGB", (80, 80), "red")),
    ]
    rng = np.random.default_rng(0)
    for number in range(4):
        order = rng.permutation(len(contents))
        images = images_of([contents[n] for n in order])
        rank = rng.integers(0, 3, len(contents)).astype(np.int8) * (number % 2)
        rule = Duplicates(bits=[6, 8, 2, 0][number], difference=[8.0, 4.0, 12.0, 8.0][number])
        copies = find_copies(images, rule, rank)
        best, group = by_loop(images, rule, rank.tolist())
        assert copies.best.tolist() == best
        assert copies.group.tolist() == group
        assert copies.group.dtype == np.int32


def test_the_best_copy_is_by_rank_then_pixels_then_bytes_then_order():
    image = scene(1)
    small, large = encoded(resized(image, 0.5)), encoded(image, "BMP")
    jpeg, fine = encoded(image, "JPEG", quality=50), encoded(image, "JPEG", quality=90)
    assert groups_of([small, jpeg, fine]) == [[2, 0, 1]]
    assert groups_of([small, jpeg, fine, large]) == [[3, 0, 1, 2]]
    assert groups_of([small, jpeg, fine], rank=[0, 1, 2]) == [[0, 1, 2]]
    assert groups_of([small, jpeg, fine], rank=[2, 0, 1]) == [[1, 0, 2]]
    assert groups_of([jpeg, jpeg]) == [[0, 1]]
    images = images_of([small, b"not an image", jpeg, fine, large])
    assert best_first(images, np.zeros(5, np.int8)).tolist() == [4, 3, 2, 0, 1]
    assert best_first(images, np.array([2, 0, 1, 1, 2], np.int8)).tolist() == [1, 3, 2, 4, 0]


def test_exact_copies_and_differences():
    image = scene(2)
    png, bmp, jpeg = encoded(image), encoded(image, "BMP"), encoded(image, "JPEG", quality=30)
    images = images_of([png, bmp, jpeg, encoded(scene(3))])
    copies = find_copies(images, RULE, np.zeros(4, np.int8))
    assert copies.best.tolist() == [1, 1, 1, 3]  # of the same pixels the one of most bytes
    assert copies.exact.tolist() == [True, True, False, True]
    assert copies.difference[[0, 1, 3]].tolist() == [0, 0, 0]
    one, other = (np.frombuffer(images._table.column("small")[n].as_py(), np.uint8).astype(float) for n in (1, 2))
    assert copies.difference[2] == pytest.approx(np.abs(one - other).mean())
    assert 0 < copies.difference[2] < 8
    # An exact copy of a copy has the difference of that.
    again = find_copies(images_of([bmp, jpeg, jpeg]), RULE, np.zeros(3, np.int8))
    assert again.best.tolist() == [0, 0, 0]
    assert again.exact.tolist() == [True, False, False]
    assert again.difference[1] == again.difference[2] == copies.difference[2]


def test_flat_images_are_no_copies_of_one_another_unless_they_are_the_same():
    flat = [Image.new("RGB", (200, 150), color) for color in ("white", "black", "red", "red")]
    dim = [Image.fromarray(np.uint8(100 + 3 * np.random.default_rng(n).random((150, 200, 3)))) for n in range(4)]
    assert groups_of([encoded(image) for image in flat + dim]) == [[2, 3]]
    assert (
        groups_of([encoded(resized(image, 0.5)) for image in flat[:3]] + [encoded(image) for image in flat[:3]]) == []
    )


def test_another_aspect_is_another_image():
    image = scene(4)
    for stretch, is_copy in ((1.05, True), (1.09, True), (1.2, False), (2, False), (1 / 1.2, False)):
        other = image.resize((round(image.width * stretch), image.height), Image.Resampling.BICUBIC)
        assert (groups_of([encoded(image), encoded(other)]) != []) == is_copy, stretch


def test_sides_of_few_pixels_are_rounded():
    image = scene(5, 300, 200)
    tiny = encoded(image.resize((8, 6), Image.Resampling.BOX))  # 8 / 6 is 11 % less than 300 / 200
    images = images_of([encoded(image), tiny])
    pairs, _ = near_pairs(images, np.arange(2), Duplicates(bits=8, difference=255.0))
    distance = (int(images.hashes[0]) ^ int(images.hashes[1])).bit_count()
    assert pairs.tolist() == ([[0, 1]] if distance <= 8 else [])


def test_a_chain_of_changes_is_no_group():
    """Each is like the next, but the first is not like the last."""
    image = np.asarray(scene(6), np.float64)
    steps = [Image.fromarray(np.uint8(np.clip(image * (1 - 0.05 * n), 0, 255))) for n in range(8)]
    found = groups_of([encoded(step) for step in steps])
    for group in found:
        for one in group:
            for other in group:
                means = [np.asarray(steps[n].resize((16, 16), Image.Resampling.BOX), float) for n in (one, other)]
                assert np.abs(means[0] - means[1]).mean() <= RULE.difference + 0.5
    assert len(found) > 1


def test_thresholds():
    image = scene(7)
    darker = Image.fromarray(np.uint8(np.asarray(image) * 0.9))
    contents = [encoded(image), encoded(darker)]
    images = images_of(contents)
    small = images.read_small(np.arange(2))
    difference = float(same_small(small[:1], small[1:])[0])
    assert len(near_pairs(images, np.arange(2), Duplicates(difference=difference + 0.01))[0]) == 1
    assert len(near_pairs(images, np.arange(2), Duplicates(difference=difference - 0.01))[0]) == 0


def test_pairs_of_some_images_in_several_blocks(monkeypatch):
    contents = [content for seed in range(3) for content in variants(scene(seed)).values()]
    images = images_of(contents)
    chosen = np.arange(0, len(contents), 2)
    whole, bits = near_pairs(images, chosen, RULE)
    assert len(whole) > 20
    assert bits == RULE.bits
    for read, compared in ((7, 100), (100, 7), (9, 4)):
        monkeypatch.setattr(duplicates, "_READ", read)
        monkeypatch.setattr(duplicates, "_COMPARED", compared)
        assert near_pairs(images, chosen, RULE)[0].tolist() == whole.tolist()


def test_frames_of_a_camera_that_stands_still(monkeypatch):
    """One hash for all: compared with the best one alone, and in fewer bits if there are still too many pairs."""
    frames = [scene(8) for _ in range(12)]
    for number, frame in enumerate(frames):
        frame.putpixel((0, 0), (number, number, number))
    images = images_of([encoded(frame, "PNG") for frame in frames] + [encoded(scene(9))])
    assert len(set(images.hashes[:12].tolist())) == 1
    expected = find_copies(images, RULE, np.zeros(13, np.int8))
    assert (expected.group[:12] == 0).all()
    monkeypatch.setattr(duplicates, "_MANY", 5)
    found = find_copies(images, RULE, np.zeros(13, np.int8))
    assert found.best.tolist() == expected.best.tolist()
    assert found.group.tolist() == expected.group.tolist()
    np.testing.assert_allclose(found.difference, expected.difference)
    monkeypatch.setattr(duplicates, "_MANY", 1000)
    monkeypatch.setattr(hash_pairs, "MOST_PAIRS", 20)
    limited = find_copies(images, RULE, np.zeros(13, np.int8))
    assert limited.bits == -1
    assert (limited.group == -1).all()


def test_no_images_and_no_readable_ones():
    for rows in ([], [{"bytes": 3, "fault": "unreadable", "path": "x"}] * 3):
        copies = find_copies(table_of(rows), RULE, np.zeros(len(rows), np.int8))
        assert copies.best.tolist() == [*range(len(rows))]
        assert copies.group.tolist() == [-1] * len(rows)
        assert copies.difference.tolist() == [0] * len(rows)
    assert SMALL == 16
