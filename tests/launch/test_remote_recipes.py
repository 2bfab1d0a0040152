"""Addresses in recipes: passed on to the sources, and refused before a run where they have a password."""

import pytest

from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors


@pytest.mark.parametrize("source", ["webdataset:https://h/{0..9}.tar", "parquet:s3://bucket/train-*.parquet"])
def test_addresses_are_no_paths(source):
    recipe = read_recipe("quickstart", [f"data={source}"])
    assert recipe.data[0].source == source


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "folder"])
def test_passwords_are_refused_and_not_repeated(kind):
    with pytest.raises(RecipeErrors, match="leave out what is before @") as caught:
        read_recipe("quickstart", [f"data={kind}:https://me:hunter2@host/x.tar"])
    assert "hunter2" not in str(caught.value)


def test_folders_say_what_is_read():
    with pytest.raises(RecipeErrors, match="webdataset:ADDRESS"):
        read_recipe("quickstart", ["data=folder:s3://bucket/images"])
