"""Variables of launchers that are no numbers, or do not fit each other, are refused by name and value before anything starts."""

import pytest

from wildfern.launch import pretrain
from wildfern.launch.cluster import launcher_environment
from wildfern.launch.cluster.launcher_environment import check_complete, check_launcher_environment
from wildfern.launch.errors import RunError

RIGHT = {
    "RANK": "1",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


LEFT_OVER = [
    dict.fromkeys(RIGHT, ""),
    {"WORLD_SIZE": "", "MASTER_PORT": "29500"},
    {"MASTER_PORT": "tcp://10.0.0.1:80"},  # Kubernetes sets it in every pod beside a service of the name master
]


@pytest.mark.parametrize("environment", [{}, RIGHT, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}, *LEFT_OVER])
@pytest.mark.parametrize("threads", ["", "4", "4,2", " 8 ", "004"])
def test_valid_variables_pass(environment, threads):
    check_launcher_environment({**environment, "OMP_NUM_THREADS": threads})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize(
    "value", ["abc", "", "-1", "1.0", "1e3", "0x1", " 1", "1_0", "٣", "²", "9" * 5000, "70000000000"]
)
def test_what_is_no_number_is_named_with_its_value(name, value):
    with pytest.raises(RunError) as error:
        check_launcher_environment({**RIGHT, name: value})
    assert str(error.value).startswith(f"the environment variable {name} is {value!r}, but must be a whole number, ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', but must be a whole number, 1 or more"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE is '0'"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is '65536', but must be a whole number, 0 to 65535"),
        ({"RANK": "2"}, "RANK is 2, but must be less than WORLD_SIZE, which is 2"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK is 1, but must be less than LOCAL_WORLD_SIZE, which is 1"),
        ({"OMP_NUM_THREADS": "abc"}, "OMP_NUM_THREADS is 'abc', but must be a number of threads, 1 or more"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS is '0'"),
        ({"OMP_NUM_THREADS": "-2"}, "OMP_NUM_THREADS is '-2'"),
        ({"OMP_NUM_THREADS": "4,,2"}, "OMP_NUM_THREADS is '4,,2'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is '', but must be the name or address of rank 0's host"),
        ({"MASTER_ADDR": "-V"}, "MASTER_ADDR is '-V', but must be"),
        ({"MASTER_ADDR": "a\nb"}, r"MASTER_ADDR is 'a\\nb', but must be"),
        (
            {"MASTER_ADDR": "no-such-host.invalid"},
            "MASTER_ADDR is 'no-such-host.invalid', which the host .* cannot resolve",
        ),
        ({"MASTER_ADDR": "a" * 300}, "MASTER_ADDR is 'a+', which the host .* cannot resolve"),
        ({"MASTER_ADDR": "a..b"}, "MASTER_ADDR is 'a..b', which the host .* cannot resolve"),
    ],
)
def test_a_wrong_value_is_named(changes, message, monkeypatch):
    monkeypatch.setattr(launcher_environment, "RESOLVE_SECONDS", 0.0)
    with pytest.raises(RunError, match=f"the environment variable {message}"):
        check_launcher_environment({**RIGHT, **changes})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_that_is_not_set_is_named(name):
    environment = {key: value for key, value in RIGHT.items() if key != name}
    for check in (check_launcher_environment, check_complete):
        with pytest.raises(RunError, match=f"the environment variable {name} is not set"):
            check(environment)


def test_pretrain_checks_them_first(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "abc")
    with pytest.raises(RunError, match="the environment variable WORLD_SIZE is 'abc'"):
        pretrain("quickstart", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
