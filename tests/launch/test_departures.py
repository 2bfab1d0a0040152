"""Messages about recipes that depart from the papers of their method and optimizer."""

import pytest

from wildfern.launch.components import read_recipe
from wildfern.launch.departures import departures
from wildfern.recipes import list_recipes
from wildfern.registry import METHODS


def said(name, *changes):
    """The messages on reading a recipe, and its departures."""
    announced = []
    recipe = read_recipe(name, changes, data_here=False, announce=announced.append)
    return announced + departures(recipe)


@pytest.mark.parametrize("name", list_recipes())
def test_bundled_recipes_do_not_depart(name):
    assert said(name) == []


DINO, MAE = "dino_ifs_vit_small", "mae_ifs_vit_small"


@pytest.mark.parametrize(
    ("name", "changes", "start"),
    [
        (
            DINO,
            ["optimizer={name: sgd}"],
            "dino with optimizer.name sgd: the usual one of vision transformers is adamw",
        ),
        (DINO, ["schedule.warmup=0.0"], "dino with schedule.warmup 0: usually the learning rate is warmed up"),
        (MAE, ["optimizer.weight_decay=0.0"], "mae with optimizer.weight_decay 0: it is usually above 0"),
        (
            MAE,
            ["optimizer.betas=[0.9, 0.999]"],
            "mae with optimizer.betas [0.9, 0.999]: the second one is usually 0.95",
        ),
        ("quickstart", ["training.batch_size=16"], "simclr with training.batch_size 16: it compares the images"),
        ("quickstart", ["optimizer.learning_rate=0.3"], "adamw with learning rate 0.3: usual ones are at most 0.02"),
        ("simclr_ifs_resnet50", ["training.batch_size=256"], "lars with training.batch_size 256: it is made for"),
        (
            "simclr_ifs_resnet18",
            ["optimizer.base_learning_rate=1e-4"],
            "lars with learning rate 0.0002: usual ones are at least 0.01",
        ),
    ],
)
def test_each_departure_is_one_line_with_its_source(name, changes, start):
    [line] = said(name, *changes)
    assert line.startswith(start)
    assert line.endswith(")")


def test_a_queue_that_is_shorter_than_a_batch():
    changes = ["training.batch_size=512", "method.queue_length=100"]
    assert said("nnclr_cifar10", *changes) == [
        "nnclr with method.queue_length 100: a batch has more images, 512, than are remembered"
    ]


def test_dino_trains_convolutional_networks_with_any_optimizer():
    changes = ["model.backbone=resnet18", "optimizer={name: sgd}"]
    assert [line for line in said(DINO, *changes) if "optimizer" in line] == []


def test_another_method_with_the_optimizer_of_the_former_one():
    kept = "method.name is now dino: the section optimizer (adamw) is that of simclr"
    assert said("quickstart", "method.name=dino") == [kept]
    assert said("quickstart", "method.name=dino", "optimizer={name: adamw, learning_rate: 1e-3}") == []


def test_a_variant_of_a_method_has_its_usual_optimizer(monkeypatch):
    class Variant(METHODS["simclr"]):
        pass

    monkeypatch.setitem(METHODS._components, "variant", Variant)
    assert said("quickstart", "method.name=variant") == []
