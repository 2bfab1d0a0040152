"""The keys `order` and `buffer` of an entry of `data`."""

import pytest


def entry_of(recipe) -> dict:
    return recipe.as_dict()["data"]


def test_the_order_is_random_and_then_no_recipe_has_the_keys(load):
    recipe = load()
    assert (recipe.data[0].order, recipe.data[0].buffer) == ("random", None)
    assert not {"order", "buffer"} & entry_of(recipe).keys()


@pytest.mark.parametrize(("given", "buffer"), [((), 10_000), (("data.buffer=500",), 500)])
def test_an_order_by_blocks_has_a_buffer(load, given, buffer):
    recipe = load("data.order=blocks", *given)
    assert (recipe.data[0].order, recipe.data[0].buffer) == ("blocks", buffer)
    assert {key: entry_of(recipe)[key] for key in ("order", "buffer")} == {"order": "blocks", "buffer": buffer}
    several = load("data=[{source: ifs, order: blocks}, digits]")
    assert [entry.buffer for entry in several.data] == [10_000, None]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("data.buffer=500",), "data.buffer: is for order: blocks; set order to blocks, or buffer to null"),
        (("data.order=blocks", "data.buffer=0"), "data.buffer: "),
        (("data.order=shards",), "data.order: must be 'random' or 'blocks'"),
        (("data={source: ifs, order: blocks, guide: clusters}",), "data.order: must be random with a guide"),
    ],
)
def test_what_is_no_order_is_refused(complaints, given, reason):
    assert any(reason in line for line in complaints(*given)), complaints(*given)
