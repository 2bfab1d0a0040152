"""From the variables of `srun` to those of torch and DeepSpeed."""

import re

import pytest

from wildfern.launch.cluster.slurm import first_host, launcher_variables, tasks_on_node
from wildfern.launch.errors import RunError

TASK = {
    "SLURM_JOB_ID": "10321",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "12",
    "SLURM_STEP_TASKS_PER_NODE": "8,4",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_NTASKS": "16",
}


def test_a_task_of_srun_is_a_rank():
    assert launcher_variables(TASK) == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "12",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "15321",
    }


def test_variables_that_are_set_are_kept():
    given = {**TASK, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "7"}
    found = launcher_variables(given)
    assert "MASTER_ADDR" not in found
    assert "MASTER_PORT" not in found
    assert found["RANK"] == "9"


BATCH_SCRIPT = {name: value for name, value in TASK.items() if "STEP" not in name}
ONE_TASK = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}


@pytest.mark.parametrize("environment", [{}, {**TASK, "RANK": "0"}, BATCH_SCRIPT, ONE_TASK])
def test_a_launcher_below_srun_and_a_batch_script_are_not_tasks(environment):
    assert launcher_variables(environment) == {}


@pytest.mark.parametrize("name", ["SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"])
def test_a_missing_variable_is_named(name):
    with pytest.raises(RunError, match=name):
        launcher_variables({k: v for k, v in TASK.items() if k != name})


def test_a_node_beyond_the_list_is_refused():
    with pytest.raises(RunError, match="SLURM_STEP_TASKS_PER_NODE is a list of 2 nodes, but SLURM_NODEID is 2: '8,4'"):
        launcher_variables({**TASK, "SLURM_NODEID": "2"})


@pytest.mark.parametrize(
    "name", ["SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS"]
)
@pytest.mark.parametrize("value", ["", "abc", "-1", "1.5", "9" * 5000])
def test_what_is_no_number_is_named_with_its_value(name, value):
    with pytest.raises(RunError, match=f"the environment variable {name} is '{value}', but must be a whole number"):
        launcher_variables({**TASK, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_STEP_TASKS_PER_NODE", "8(x"),
        ("SLURM_STEP_TASKS_PER_NODE", ""),
        ("SLURM_STEP_TASKS_PER_NODE", "8(x99999999999)"),
        ("SLURM_STEP_NODELIST", ""),
        ("SLURM_STEP_NODELIST", "-V"),
        ("SLURM_STEP_NODELIST", "a b"),
    ],
)
def test_an_invalid_list_is_named_with_its_value(name, value):
    with pytest.raises(
        RunError, match=rf"the environment variable {name} is not a list of .*: {re.escape(repr(value))}"
    ):
        launcher_variables({**TASK, name: value})


def test_a_rank_beyond_the_number_of_tasks_is_refused():
    with pytest.raises(RunError, match="SLURM_PROCID is 12, but SLURM_STEP_NUM_TASKS is 12"):
        launcher_variables({**TASK, "SLURM_PROCID": "12"})


def test_a_long_list_takes_no_memory():
    assert tasks_on_node("8(x999999999),4", 999_999_999) == 4


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login1", "login1"),
        ("gpu003,gpu9", "gpu003"),
        ("gpu[003-007,9]", "gpu003"),
        ("gpu[9,003-007],cpu[1-2]", "gpu9"),
        ("rack-2-gpu[10-12]-ib.example.org,x", "rack-2-gpu10-ib.example.org"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["", "[1-2]", ",a"])
def test_an_invalid_list_of_hosts(nodes):
    with pytest.raises(ValueError, match="not a list of hosts"):
        first_host(nodes)


@pytest.mark.parametrize(("counts", "expected"), [("8", [8]), ("8(x3),4", [8, 8, 8, 4]), ("2,3(x2)", [2, 3, 3])])
def test_tasks_of_each_node(counts, expected):
    assert [tasks_on_node(counts, node) for node in range(len(expected))] == expected
