"""`wildfern doctor --hosts`, with shells on this machine in place of other hosts."""

import io
import json
import socket
import stat
import sys
import time

import pytest
from rich.console import Console

from wildfern.launch.host_agent import Agent, converse, facts
from wildfern.launch.hosts import examine_hosts, read_hostfile
from wildfern.launch.run_folder import RunError


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def examine(tmp_path, port, monkeypatch):
    """Runs the examination with `script`, a shell script called with the host and the command line, as --reach."""
    monkeypatch.chdir(tmp_path)

    def run(hosts, script='exec bash -c "$2"', folder="shared"):
        (tmp_path / "hosts").write_text("".join(f"{host} slots=2\n" for host in hosts))
        program = tmp_path / "reach"
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        told = io.StringIO()
        console = Console(file=told, width=200)
        code = examine_hosts(tmp_path / "hosts", f"{program} {{host}}", tmp_path / folder, port, console)
        return code, told.getvalue()

    return run


def test_hosts_that_agree_are_ready(examine, tmp_path, port):
    code, told = examine(["localhost", "127.0.0.1"])
    assert code == 0, told
    rows = {line.split()[0]: line for line in told.splitlines() if "slots" not in line and line.strip()}
    for word in ("2", socket.gethostname(), "equal", "free", "written"):
        assert word in rows["localhost"], told
    for word in ("equal", "reached", "the same"):
        assert word in rows["127.0.0.1"], told
    assert "ready to train on 2 host(s)" in told
    assert list((tmp_path / "shared").iterdir()) == []  # the token is gone
    with socket.create_server(("", port)):  # and so is whoever listened
        pass


def test_a_host_out_of_reach_is_named_with_what_the_command_said(examine):
    script = '[[ $1 == far ]] && { echo "ssh: connect to host far port 22: No route to host" >&2; exit 255; }\nexec bash -c "$2"'
    code, told = examine(["localhost", "far"], script)
    assert code == 1
    assert (
        "far: cannot be reached, or has no wildfern there: ssh: connect to host far port 22: No route to host" in told
    )
    assert "1 thing(s) to mend" in told


def test_other_versions_clocks_and_folders_are_told(examine, tmp_path):
    """A host that answers as an agent does, but from another place: another torch, an hour ahead, nothing in the folder."""
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text(
        "import json, sys, time\n"
        f"facts = {facts()!r} | {{'torch': '1.0', 'deepspeed': None}}\n"
        "for line in sys.stdin:\n"
        "    clock = {'time': time.time() + 3600}\n"
        "    answers = {'facts': facts, 'time': clock, 'connect': {'error': 'No route to host'}}\n"
        "    print(json.dumps(answers.get(json.loads(line)['ask'], {'error': 'No such file'})), flush=True)\n"
    )
    script = f'echo "Welcome to $1"\n[[ $1 == far ]] && exec {sys.executable} {elsewhere}\nexec bash -c "$2"'
    code, told = examine(["localhost", "far"], script)
    assert code == 1
    for line in (
        f"far: no deepspeed; torch 1.0, but {facts()['torch']} on localhost",
        "far: its clock is +3600.0 s off this machine's",
        "No route to host",
        f"far: does not see in {tmp_path / 'shared'} what localhost wrote there",
    ):
        assert line in told
    assert "4 thing(s) to mend" in told


def test_a_port_in_use_is_told(examine, port):
    with socket.create_server(("", port)):
        code, told = examine(["localhost", "127.0.0.1"])
    assert code == 1
    assert f"localhost: port {port} cannot be listened on: " in told
    assert "--master_port" in told


def test_a_reaching_command_that_is_not_there_is_told(tmp_path):
    (tmp_path / "hosts").write_text("a slots=1\n")
    with pytest.raises(RunError, match="there is no program no-such-ssh here"):
        examine_hosts(tmp_path / "hosts", "no-such-ssh {host}", tmp_path, 29500, Console(file=io.StringIO()))


def test_a_reaching_command_whose_quotes_are_open_is_told(tmp_path):
    (tmp_path / "hosts").write_text("a slots=1\n")
    with pytest.raises(RunError, match="--reach: No closing quotation"):
        examine_hosts(tmp_path / "hosts", "'unclosed {host}", tmp_path, 29500, Console(file=io.StringIO()))


def test_hostfiles_are_read_as_the_launcher_reads_them(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# ours\nb slots=2\n\na   slots=16 # large\n")
    assert list(read_hostfile(file).items()) == [("b", 2), ("a", 16)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a slots=1\nb\n", "line 2 is not of the form: name slots=8: b"),
        ("a slots=x\n", "line 1 is not of the form"),
        ("a slots=1\na slots=1\n", "line 2 names a host a second time"),
        ("# nothing\n", "names no host"),
    ],
)
def test_errors_in_hostfiles_name_the_line(text, message, tmp_path):
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(RunError, match=message):
        read_hostfile(tmp_path / "hosts")
    with pytest.raises(RunError, match="cannot read the hostfile"):
        read_hostfile(tmp_path / "none")


def test_the_agent_answers_line_by_line(tmp_path, port):
    file = str(tmp_path / "a" / "token")
    questions = [
        {"ask": "write", "path": file, "text": "x"},
        {"ask": "read", "path": file},
        {"ask": "remove", "path": file},
        {"ask": "read", "path": file},
        {"ask": "connect", "address": "127.0.0.1", "port": port},
        {"ask": "listen", "port": port},
        {"ask": "connect", "address": "127.0.0.1", "port": port},
        {"ask": "time"},
    ]
    answers = io.StringIO()
    converse(io.StringIO("".join(json.dumps(question) + "\n" for question in questions)), answers)
    *found, clock = map(json.loads, answers.getvalue().splitlines())
    refused = {"error": "Connection refused"}
    assert found == [{}, {"text": "x"}, {}, {"error": "No such file or directory"}, refused, {}, {}]
    assert abs(clock["time"] - time.time()) < 60
    assert Agent().answer({"ask": "facts"})["host"] == socket.gethostname()


def test_the_command_line_takes_a_shell_in_place_of_ssh(wildfern, tmp_path, port):
    (tmp_path / "hosts").write_text("localhost slots=1\n")
    process = wildfern("doctor", "--hosts", "hosts", "--reach", "bash -c", "--port", str(port), process=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ready to train on 1 host(s)" in process.stdout
