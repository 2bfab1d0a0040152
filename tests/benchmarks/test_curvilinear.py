"""The study of curvilinear objects: its images and masks, its filters, its rows and its table."""

import json
from statistics import mean, stdev

import numpy as np
import pytest
from PIL import Image

from wildfern.benchmarks.studies import curvilinear, curvilinear_target
from wildfern.benchmarks.studies.curvilinear import filter_threshold, ridges, run, selected, study, summary, text_table
from wildfern.benchmarks.studies.curvilinear_target import branches, ground, paste, target_image, write_target
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.ssl.data import open_source


def test_an_image_is_a_function_of_seed_split_and_number():
    image, mask = target_image(3, "test", 1)
    again, same = target_image(3, "test", 1)
    assert (image == again).all()
    assert (mask == same).all()
    for other in ((4, "test", 1), (3, "unlabeled", 1), (3, "test", 7)):  # 7 is on the same photograph
        assert (target_image(*other)[0] != image).mean() > 0.5
        assert (target_image(*other)[1] != mask).any()


@pytest.mark.parametrize("brightness", [60.0, 120.0, 200.0])
def test_only_pixels_of_the_mask_are_pasted(brightness):
    rng, mask = np.random.default_rng(0), branches(0, "test", 2)
    signs = set()
    for _ in range(12):
        below = np.repeat(rng.uniform(brightness - 20, brightness + 20, (256, 256, 1)), 3, axis=2)
        change = (paste(below, mask, rng) - below).mean(axis=2)
        assert (change[mask == 0] == 0).all()
        sign = np.unique(np.sign(change[mask == 1]))
        assert len(sign) == 1
        signs.add(sign[0])
    assert signs == ({-1.0} if brightness > curvilinear_target.BRIGHT else {-1.0, 1.0})


def test_squares_of_the_splits_share_no_pixel_of_a_photograph(monkeypatch):
    rng = np.random.default_rng(0)
    halves = [rng.integers(low, low + 100, (300, 256), dtype=np.uint8) for low in (0, 150)]
    monkeypatch.setattr("skimage.data.brick", lambda: np.concatenate(halves, axis=1))
    for number in range(20):
        pixels = ground("brick", "test" if number % 2 else "unlabeled", rng)
        assert pixels.shape == (256, 256, 3)
        assert pixels.mean() == pytest.approx(200 if number % 2 else 50, abs=2)


def test_sources_read_what_was_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(curvilinear_target, "COUNTS", {"unlabeled": 3, "test": 2})
    write_target(tmp_path, seed=5)
    test = open_source(f"masks:{tmp_path / 'labeled'}", "test").read(np.arange(2))
    unlabeled = open_source(f"folder:{tmp_path / 'unlabeled'}", "train")
    for number in range(2):
        image, mask = target_image(5, "test", number)
        assert (np.asarray(test.pixels[number]) == image).all()
        assert (np.asarray(test.masks[number]) == mask).all()
    assert unlabeled.num_items == 3
    assert (np.asarray(unlabeled.read([2]).pixels[0]) == target_image(5, "unlabeled", 2)[0]).all()
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    write_target(tmp_path, seed=5)
    assert written == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    write_target(tmp_path, seed=6)
    assert (np.asarray(Image.open(tmp_path / "unlabeled/0001.png")) == target_image(6, "unlabeled", 1)[0]).all()


@pytest.mark.parametrize("name", curvilinear.FILTERS)
def test_filters_find_dark_and_bright_lines_alike(name):
    pixels = np.random.default_rng(0).integers(100, 110, (64, 64, 3), dtype=np.uint8)
    pixels[:, 30:33] -= 60
    dark, bright = ridges(pixels, name), ridges(255 - pixels, name)
    np.testing.assert_allclose(dark, bright, atol=1e-9)
    assert dark[:, 31].min() > 5 * np.delete(dark, range(26, 37), axis=1).max()


def test_the_threshold_of_a_filter_has_the_best_dice():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 40, 40)) < 0.2
    responses = [rng.random((40, 40)) + 0.6 * mask for mask in masks]

    def dice(threshold):
        found = [response >= threshold for response in responses]
        return mean(2 * (f & m).sum() / (f.sum() + m.sum()) for f, m in zip(found, masks, strict=True))

    best = max(dice(threshold) for threshold in np.linspace(0, 1.6, 400))
    assert dice(filter_threshold(responses, masks.astype(np.uint8))) == pytest.approx(best, abs=0.005)


def test_rows_are_recipes_of_one_network_and_budget(tmp_path):
    (tmp_path / "target" / "unlabeled").mkdir(parents=True)
    recipes = {arm.name: read_recipe(arm.recipe, arm.changes) for arm in study(30, tmp_path).arms}
    assert len(recipes) == 7
    for recipe in recipes.values():
        assert recipe.training.steps == 30
        assert recipe.training.batch_size == 16
        assert recipe.model.arguments["widths"] == [16, 32, 64, 128]
    adversarial = [name for name, recipe in recipes.items() if recipe.method.arguments["adversarial"]]
    assert adversarial == ["+ adversarial alignment", "+ mask contrast (FreeCOS)"]
    assert [name for name, recipe in recipes.items() if recipe.method.arguments["contrast"]] == adversarial[1:]


def test_rows_are_selected_by_name(tmp_path):
    chosen, filters = selected(study(1, tmp_path), "Sato,alignment")
    assert filters == ["Sato"]
    assert [arm.name for arm in chosen.arms] == ["+ adversarial alignment"]
    with pytest.raises(RunError, match="no row has 'none' in its name; there are: Frangi, Sato, RGB"):
        selected(study(1, tmp_path), "none")


def test_table_of_given_scores():
    values = {
        metric: [0.1 * place + 0.01 * seed for seed in range(3)] for place, metric in enumerate(curvilinear.SCORES)
    }
    network = summary("U-Net", [{metric: of[seed] for metric, of in values.items()} for seed in range(3)])
    filtered = summary("Sato", [{"roc_auc": 0.5, "dice_validation_threshold": 0.25}])
    assert network["scores"]["cl_dice"]["mean"] == pytest.approx(100 * mean(values["cl_dice"]), abs=0.01)
    assert network["scores"]["cl_dice"]["std"] == pytest.approx(100 * stdev(values["cl_dice"]), abs=0.01)
    assert json.dumps([network, filtered])
    assert text_table([network, filtered]).splitlines()[2:] == [
        "| U-Net | 1.0 ± 1.0 | 11.0 ± 1.0 | 21.0 ± 1.0 | 31.0 ± 1.0 | 41.0 ± 1.0 | 51.0 ± 1.0 |",
        "| Sato | – | 25.0 | – | – | 50.0 | – |",
    ]


@pytest.mark.slow
def test_finished_rows_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(curvilinear_target, "COUNTS", {"unlabeled": 2, "test": 2})
    monkeypatch.setattr(curvilinear, "VALIDATION", 2)
    changes = ["model.arguments.widths=[4,8]", "training.batch_size=4", "method.decoder_width=8"]
    whole, filters = selected(study(1, tmp_path), "RGB,Sato")
    result = run(whole, filters, [0], tmp_path, changes)
    assert [row["row"] for row in result["rows"]] == ["Sato", "RGB"]
    assert str(tmp_path) not in json.dumps(result)
    evaluation = json.loads((tmp_path / "seed=0/RGB/evaluation.json").read_text())
    scores = {row["metric"]: row["value"] for row in evaluation["rows"] if row["backbone"] == "pretrained"}
    for metric, found in result["rows"][1]["scores"].items():
        assert found["mean"] == pytest.approx(100 * scores[metric], abs=0.01)
    monkeypatch.setattr("wildfern.launch.pretrain", lambda *given, **named: pytest.fail("trained again"))
    monkeypatch.setattr("wildfern.launch.evaluate", lambda *given, **named: pytest.fail("evaluated again"))
    monkeypatch.setattr(curvilinear, "filter_scores", lambda *given: pytest.fail("filtered again"))
    assert run(whole, filters, [0], tmp_path, changes)["rows"] == result["rows"]
    with pytest.raises(RunError, match="is a run of other settings"):
        run(whole, filters, [0], tmp_path, [*changes, "optimizer.learning_rate=0.5"])
