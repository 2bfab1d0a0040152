"""`key=value` arguments of the command line are read like recipes: YAML 1.2, plain values only."""

import pytest

from wildfern.launch.cli import parsed
from wildfern.launch.errors import RunError


def test_values_are_read_as_in_recipes():
    words = ["sigma=1e-1", "size=010", "mode=on", "time=12:30", "list=[1, 2]", "flag=true", "text='8'"]
    expected = {"sigma": 0.1, "size": 10, "mode": "on", "time": "12:30", "list": [1, 2], "flag": True, "text": "8"}
    assert parsed(words) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("size", "must be key=value"),
        ("size=[1", "size: not valid YAML"),
        ("x=!!python/name:os.system", "tag .* is not allowed"),
    ],
)
def test_invalid_values_are_refused(word, message):
    with pytest.raises(RunError, match=message):
        parsed([word])
