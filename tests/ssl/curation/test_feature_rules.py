"""Rules on features against plain expectations: similar images, and each step of the selection."""

from itertools import combinations

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.feature_rules import ImageFeatures, judge_similar, select
from wildfern.ssl.curation.policy import Selection, Similar
from wildfern.ssl.curation.verdicts import Verdicts
from wildfern.ssl.data import DataError


def mixture(sizes, spread=0.02, dim=8, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """float64[N, D] around one axis for each size, in mixed order, and the axis of each row."""
    rng = np.random.Generator(np.random.Philox(seed))
    axes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.eye(dim)[axes] + spread * rng.standard_normal((len(axes), dim)), axes


def image_features(values, images=None) -> ImageFeatures:
    images = np.arange(len(values)) if images is None else images
    return ImageFeatures(np.asarray(images, np.int64), torch.tensor(np.asarray(values), dtype=torch.float32))


def kept(verdicts: Verdicts) -> list[int]:
    return np.flatnonzero(verdicts.kept).tolist()


def rules(verdicts: Verdicts) -> dict[str, list[int]]:
    """Images by the rules that left them out."""
    found: dict[str, list[int]] = {}
    for image in sorted(verdicts.reasons):
        for reason in verdicts.reasons[image]:
            found.setdefault(reason.rule, []).append(image)
    return found


def selected(values, rule: Selection, marks=None, verdicts=None, images=None) -> Verdicts:
    verdicts = verdicts or Verdicts(len(values) if images is None else int(max(images)) + 1)
    select(image_features(values, images), rule, marks or {}, verdicts)
    return verdicts


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# Similar images


def similar(values, rule: Similar, order, verdicts=None, images=None) -> Verdicts:
    count = len(order)
    verdicts = verdicts or Verdicts(count)
    paths = [f"{n}.jpg" for n in range(count)]
    judge_similar(image_features(values, images), rule, np.asarray(order), paths, verdicts)
    return verdicts


def test_all_but_the_best_of_each_group_of_similar_images_are_named():
    values, axes = mixture([4, 5, 1], spread=0.01)
    order = np.random.Generator(np.random.Philox(1)).permutation(10)
    verdicts = similar(values, Similar(action="reject", similarity=0.95), order)
    best = {axis: next(image for image in order if axes[image] == axis) for axis in range(3)}
    assert sorted(kept(verdicts)) == sorted(best.values())
    for image, (reason,) in verdicts.reasons.items():
        leader = best[axes[image]]
        assert (reason.rule, reason.action, reason.detail) == ("similar", "reject", f"like {leader}.jpg")
        assert reason.value == pytest.approx(cosine(values[image], values[leader]), abs=1e-5)


def test_a_chain_of_similar_images_is_no_group():
    """Neighbors on a circle are similar, but not the second next ones."""
    angles = np.radians(10 * np.arange(6))
    values = np.stack([np.cos(angles), np.sin(angles)], 1)
    verdicts = similar(values, Similar(action="review", similarity=np.cos(np.radians(12))), range(6))
    assert kept(verdicts) == [0, 2, 4]
    assert [verdicts.reasons[image][0].detail for image in (1, 3, 5)] == ["like 0.jpg", "like 2.jpg", "like 4.jpg"]
    assert (verdicts.strictness == np.array([0, 1, 0, 1, 0, 1])).all()


def test_rejected_images_and_those_without_features_are_not_compared():
    values, _ = mixture([4], spread=0.01)
    verdicts = Verdicts(6)
    verdicts.add("tiny", "reject", [1])
    verdicts.add("dark", "review", [2])  # which may be kept by hand
    similar(values, Similar(action="reject", similarity=0.9), [1, 2, 0, 3, 4, 5], verdicts, images=[1, 2, 4, 5])
    assert rules(verdicts) == {"tiny": [1], "dark": [2], "similar": [4, 5]}
    assert {verdicts.reasons[image][0].detail for image in (4, 5)} == {"like 2.jpg"}


def test_a_rule_that_keeps_says_nothing_of_similar_images():
    values, _ = mixture([4], spread=0.01)
    assert similar(values, Similar(action="keep", similarity=0.5), range(4)).reasons == {}
    assert similar(values[:1], Similar(action="reject", similarity=0.5), range(1)).reasons == {}


# The selection


def test_an_empty_selection_leaves_out_nothing():
    values, _ = mixture([5, 5])
    verdicts = Verdicts(10)
    levels, clustered = select(image_features(values), Selection(), {}, verdicts)
    assert (levels, clustered.tolist(), verdicts.reasons) == ([], list(range(10)), {})


MARKED = {"keep": 12, "drop": 15}


def filtered() -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Two groups; some of the first are marked keep, some of the second drop."""
    values, axes = mixture([60, 60], spread=0.1)
    marks = dict.fromkeys(np.flatnonzero(axes == 0)[: MARKED["keep"]].tolist(), "keep")
    marks |= dict.fromkeys(np.flatnonzero(axes == 1)[: MARKED["drop"]].tolist(), "drop")
    return values, axes, marks


def test_the_filter_leaves_out_what_is_like_the_images_marked_drop():
    values, axes, marks = filtered()
    verdicts = selected(values, Selection(filter=0.5), marks)
    free = [image for image in range(120) if axes[image] == 1 and image not in marks]
    assert rules(verdicts) == {"filter": free}
    reason = verdicts.reasons[free[0]][0]
    assert reason.detail == "probability of keep, learned from 12 + 15 marks (AUC 1.00)"
    assert all(0 <= found[0].value < 0.5 for found in verdicts.reasons.values())


def test_the_filter_learns_from_marked_images_that_a_rule_left_out():
    values, _, marks = filtered()
    verdicts = Verdicts(120)
    dropped = [image for image, mark in marks.items() if mark == "drop"]
    verdicts.add("page", "reject", dropped)
    found = rules(selected(values, Selection(filter=0.5), marks, verdicts))
    assert found == {"page": dropped} | rules(selected(values, Selection(filter=0.5), marks))


def test_a_filter_without_enough_marks_is_an_error():
    values, _, marks = filtered()
    few = {image: mark for image, mark in marks.items() if mark == "keep"}
    with pytest.raises(DataError, match="got 12 and 0"):
        selected(values, Selection(filter=0.5), few)


def test_atypical_images_are_those_with_the_farthest_neighbors():
    values, axes = mixture([50, 45, 2, 1, 1, 1], spread=0.05)
    verdicts = selected(values, Selection(atypical=0.03))
    assert rules(verdicts) == {"atypical": np.flatnonzero(axes >= 3).tolist()}
    found = [verdicts.reasons[image][0] for image in kept_out(verdicts)]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for image, reason in zip(kept_out(verdicts), found, strict=True):
        nearest = np.sort(np.linalg.norm(unit - unit[image], axis=1))[1:21]
        assert reason.value == pytest.approx(1 / nearest.mean(), rel=1e-4)
    assert len(kept_out(selected(values, Selection(atypical=0.29)))) == 29  # 0.29 * 100 is less than 29 in floats


def kept_out(verdicts: Verdicts) -> list[int]:
    return np.flatnonzero(verdicts.rejected).tolist()


def test_semdedup_keeps_one_of_the_nearly_equal_images_of_a_cluster():
    values, _ = mixture([6, 3, 3], spread=0.3, seed=3)
    copies = np.repeat(values, 3, axis=0) + 1e-4 * np.random.Generator(np.random.Philox(5)).standard_normal((36, 8))
    verdicts = Verdicts(36)
    levels, _ = select(image_features(copies), Selection(clusters=(3,), epsilon=0.001), {}, verdicts)
    assert [image // 3 for image in kept(verdicts)] == list(range(12))  # one of each three
    assert rules(verdicts) == {"semdedup": kept_out(verdicts)}
    assert verdicts.reasons[kept_out(verdicts)[0]][0].detail == "more like a kept one of its cluster than 0.999"
    of_item = levels[0].of_item.numpy()
    for one, other in combinations(kept(verdicts), 2):
        if of_item[one] == of_item[other]:
            assert cosine(copies[one], copies[other]) <= 0.999


def test_a_balanced_draw_takes_as_many_of_each_cluster():
    values, axes = mixture([70, 20, 10, 4])
    verdicts = Verdicts(104)
    levels, clustered = select(image_features(values), Selection(clusters=(4,), balance=34), {}, verdicts)
    assert np.bincount(axes[kept(verdicts)]).tolist() == [10, 10, 10, 4]
    assert set(rules(verdicts)) == {"balance"}
    assert verdicts.reasons[kept_out(verdicts)[0]][0].detail == "not drawn among 34 spread evenly over the clusters"
    assert clustered.tolist() == list(range(104))
    of_item = levels[0].of_item.numpy()
    assert len({(a, b) for a, b in zip(axes.tolist(), of_item.tolist(), strict=True)}) == 4


def test_a_diverse_choice_covers_all_groups_and_takes_the_farthest():
    values, axes = mixture([50, 30, 10, 1, 1])
    verdicts = selected(values, Selection(diversity=5))
    assert sorted(axes[kept(verdicts)]) == [0, 1, 2, 3, 4]
    assert rules(verdicts) == {"diversity": kept_out(verdicts)}
    assert selected(values, Selection(diversity=92)).reasons == {}
    assert selected(values, Selection(diversity=1000)).reasons == {}


@pytest.mark.parametrize("rule", [Selection(clusters=(4,), balance=20), Selection(diversity=20)])
def test_images_marked_keep_are_among_those_that_are_chosen_and_those_marked_drop_are_not(rule):
    values, axes = mixture([70, 20, 10, 4])
    common = np.flatnonzero(axes == 0).tolist()
    marks = dict.fromkeys(common[:6], "keep") | dict.fromkeys(common[6:30], "drop")
    verdicts = Verdicts(104)
    verdicts.add("dark", "review", common[:3])  # marked keep all the same
    selected(values, rule, marks, verdicts)
    final = set(kept(verdicts)) | set(common[:6])  # marks decide after all rules
    assert len(final - set(common[6:30])) == 20
    assert not any(reason.rule != "dark" for image in marks for reason in verdicts.reasons.get(image, []))
    assert set(axes[list(final)]) == {0, 1, 2, 3}


@pytest.mark.parametrize("rule", [Selection(clusters=(4,), balance=3), Selection(diversity=3)])
def test_more_images_marked_keep_than_are_to_be_chosen_are_all_kept(rule):
    values, _ = mixture([10, 10])
    marks = dict.fromkeys(range(5), "keep")
    assert kept(selected(values, rule, marks)) == list(range(5))


def test_images_marked_keep_are_left_out_by_no_step():
    values, _, marks = filtered()
    everything = Selection(filter=0.5, atypical=0.4, clusters=(10, 3), epsilon=0.001, balance=20, diversity=15)
    verdicts = selected(values, everything, marks)
    fixed = [image for image, mark in marks.items() if mark == "keep"]
    assert not set(fixed) & set(verdicts.reasons)
    assert len(kept(verdicts)) == 15 + MARKED["drop"]  # which the marks leave out later


@pytest.mark.parametrize(
    ("clusters", "sizes"),
    [((6, 2), [6, 2]), ((100, 6, 2), [6, 2]), ((12, 6), [6]), ((1000, 100), [6]), ((12,), [6])],
)
def test_levels_of_clusters_that_are_larger_than_the_number_of_images_are_left_out(clusters, sizes):
    values, _ = mixture([6, 6])
    verdicts = Verdicts(12)
    levels, _ = select(image_features(values), Selection(clusters=clusters, balance=4), {}, verdicts)
    assert [len(level.centroids) for level in levels] == sizes
    assert len(kept(verdicts)) == 4


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_images_need_no_clusters(count):
    values, _ = mixture([3])
    everything = Selection(clusters=(1000, 10), epsilon=0.0001, balance=5, diversity=5, atypical=0.01)
    verdicts = Verdicts(3)
    levels, clustered = select(image_features(values[:count]), everything, {}, verdicts)
    assert verdicts.reasons == {}
    assert len(levels) == (count > 1)
    assert len(clustered) == count


def test_what_a_step_leaves_out_the_next_one_does_not_see():
    """The filter leaves out a group, the outliers go, equal images go, and what remains is balanced, then thinned out."""
    values, axes = mixture([40, 30, 30, 20, 1, 1], spread=0.1)
    outliers = np.flatnonzero(axes >= 4)
    bad = np.flatnonzero(axes == 3)
    twice = np.concatenate([values, values[axes == 1]])  # 30 images have a copy
    marks = dict.fromkeys(bad[:10].tolist(), "drop") | dict.fromkeys(np.flatnonzero(axes == 0)[:10].tolist(), "keep")
    rule = Selection(filter=0.5, atypical=0.016, clusters=(3,), epsilon=1e-5, balance=60, diversity=40)
    verdicts = selected(twice, rule, marks)
    found = rules(verdicts)
    assert set(found["filter"]) >= set(bad[10:])
    assert set(found["atypical"]) <= set(range(len(twice))) - set(found["filter"])
    assert set(outliers) <= set(found["filter"]) | set(found["atypical"])
    gone = set[int]()
    for name in ("filter", "atypical", "semdedup", "balance", "diversity"):
        assert found[name], name
        assert not gone & set(found[name]), name
        gone |= set(found[name])
    assert all(len(reasons) == 1 for reasons in verdicts.reasons.values())
    assert len(kept(verdicts)) - 10 == 40  # without those marked drop


def test_images_without_features_stay():
    values, _ = mixture([10, 10])
    images = np.arange(0, 40, 2)
    verdicts = selected(values, Selection(clusters=(4,), balance=5), images=images)
    assert set(range(1, 39, 2)) <= set(kept(verdicts))
    assert len(kept(verdicts)) == 19 + 5


def test_a_selection_is_a_function_of_features_and_rule():
    values, _ = mixture([40, 20, 5], spread=0.3)
    rule = Selection(atypical=0.05, clusters=(9, 3), epsilon=0.02, balance=30, diversity=20)
    first, again = (selected(values, rule) for _ in range(2))
    assert first.reasons == again.reasons
    assert len(kept(first)) == 20


@pytest.mark.parametrize("clusters", [(3, 6), (6, 6), (6, 0)])
def test_sizes_that_do_not_decrease_are_an_error(clusters):
    values, _ = mixture([10, 10])
    with pytest.raises(DataError, match="sizes must decrease"):
        selected(values, Selection(clusters=clusters))
