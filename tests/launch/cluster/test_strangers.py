"""A peer without the secret is dropped by the heartbeat, and disturbs no rank; a rank that sends nonsense is named."""

import errno
import json
import os
import socket
import time
from contextlib import suppress

import pytest
from heartbeats import SILENCE, Verdicts, place

from wildfern.launch.cluster import connecting, listener
from wildfern.launch.cluster.authentication import Handshake, line_of, new_nonce, parse_nonce, shortened
from wildfern.launch.cluster.connecting import connect
from wildfern.launch.cluster.heartbeat import LOST, Heartbeat, ProcessLost
from wildfern.launch.cluster.listener import addresses_of, listen


class Started:
    """Rank 0 of a run, and the ranks that join it; `verdicts` of all."""

    def __init__(self, world_size=2, silence=30.0):
        self.verdicts, self.world_size, self.silence = Verdicts(), world_size, silence
        wanted = [["127.0.0.1"]] * (world_size - 1)
        self.main = Heartbeat(0, world_size, silence, wanted=wanted, end=self.verdicts.of(0))
        self.all = [self.main]

    def join(self, rank=1, **changes):
        given = {"places": place(self.main), "secret": self.main.secret, "main_host": "first"} | changes
        self.all.append(Heartbeat(rank, self.world_size, self.silence, end=self.verdicts.of(rank), **given))
        return self.all[-1]

    def stranger(self):
        connection = socket.create_connection(place(self.main)[0], timeout=5)
        return connection


@pytest.fixture
def started():
    made = []

    def start(*arguments):
        made.append(Started(*arguments))
        return made[-1]

    yield start
    for run in made:
        for heartbeat in run.all:
            heartbeat.leave()
            assert heartbeat.ended is None


def dropped(connection):
    """Whether the other side closes the connection; what it sent first is read."""
    connection.settimeout(5)
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        pass
    connection.close()
    return True


def hello(secret, nonce, **changes):
    own = new_nonce()
    handshake = Handshake(secret, nonce, own, changes.get("rank", 1), changes.get("host", "x"))
    return {"rank": 1, "host": "x", "nonce": own, "proof": handshake.of_peer} | changes


RAW = [
    b"\n",
    b'{"token": "\\ud800"}\n',
    b"[" * 60_000 + b"\n",
    b"[" * 900 + b"\n",
    b"1" * 900 + b"\n",
    b"\xff\x00\n",
    b"NaN\n",
    b"[1]\n",
    b"{}\n",
    b"x" * 1025,
    b"GET / HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
def test_what_is_no_hello_is_dropped(raw, started):
    run = started()
    with run.stranger() as connection:
        with suppress(ConnectionError):  # dropped before the end
            connection.sendall(raw)
        assert dropped(connection)
    run.join()
    assert run.verdicts.found == []


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 0},
        {"rank": 2},
        {"rank": -1},
        {"rank": True},
        {"rank": "1"},
        {"rank": [1]},
        {"rank": 1.0},
        {"rank": None},
        {"rank": 10**30},
        {"host": ""},
        {"host": "a\nb"},
        {"host": "\x1b[2J"},
        {"host": "x" * 256},
        {"host": 7},
        {"proof": "0" * 64},
        {"proof": "ü" * 64},
        {"proof": None},
        {"nonce": "0" * 32},
        {"nonce": 5},
        {"more": 1},
    ],
    ids=str,
)
def test_a_hello_with_a_wrong_value_is_dropped(changes, started):
    run = started()
    with run.stranger() as connection:
        nonce = parse_nonce(connection.makefile("rb").readline().rstrip())
        try:
            given = hello(run.main.secret, nonce, **changes)
        except TypeError:
            given = hello(run.main.secret, nonce) | changes
        connection.sendall(line_of(given))
        assert dropped(connection)
    run.join()
    assert run.verdicts.found == []


def test_a_hello_with_another_secret_or_of_another_connection_is_dropped(started):
    run = started()
    with run.stranger() as one, run.stranger() as other:
        nonces = [parse_nonce(c.makefile("rb").readline().rstrip()) for c in (one, other)]
        one.sendall(line_of(hello(run.main.secret, nonces[1])))  # recorded and repeated
        other.sendall(line_of(hello(b"another", nonces[1])))
        assert dropped(one)
        assert dropped(other)


def test_the_secret_is_not_sent(started, monkeypatch):
    sent = []
    original = socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", lambda self, data: (sent.append(data), original(self, data))[1])
    run = started()
    run.join()
    assert len(sent) == 2  # the hello and the proof of rank 0
    assert all(run.main.secret.hex().encode() not in data and run.main.secret not in data for data in sent)


def test_a_rank_is_admitted_once_and_then_nobody_can_connect(started):
    run = started(3)
    run.join(1)
    with pytest.raises(OSError, match="closed the connection before it had proven"):
        connect(place(run.main), run.main.secret, 1, "x", 0.3)
    run.join(2)
    for _ in range(500):
        try:
            run.stranger().close()
        except ConnectionRefusedError:
            break
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        run.stranger()
    assert run.verdicts.found == []


def test_many_silent_strangers_do_not_keep_a_rank_out(started):
    run = started()
    strangers = [run.stranger() for _ in range(60)]
    began = time.monotonic()
    run.join()
    assert time.monotonic() - began < 5
    assert run.main._listener is not None
    assert all(dropped(connection) for connection in strangers)


def test_a_silent_stranger_is_dropped_in_time(started, monkeypatch):
    monkeypatch.setattr(listener, "HELLO_SECONDS", 0.2)
    run = started(2, 3.0)
    began = time.monotonic()
    assert dropped(run.stranger())
    assert time.monotonic() - began < 3


def test_a_rank_that_is_dropped_tries_again(started, monkeypatch):
    monkeypatch.setattr(connecting, "FIRST_WAIT", 0.01)
    run = started()
    dropping = [True, True, False]
    original = listener.Listener._authenticated

    def authenticated(self, stranger):
        if dropping.pop(0):
            raise OSError("no")
        return original(self, stranger)

    monkeypatch.setattr(listener.Listener, "_authenticated", authenticated)
    run.join()
    assert dropping == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED])
def test_an_error_of_accept_is_no_end_and_no_busy_loop(number, started, monkeypatch):
    """As at the limit of file descriptors (ulimit -n): the connection stays in the queue of the system."""
    run = started(2, 3.0)
    refused = []

    class Server(socket.socket):
        def accept(self):
            if len(refused) < 3:
                refused.append(time.monotonic())
                raise OSError(number, os.strerror(number))
            return super().accept()

    own = run.main._listener._servers[0]
    other = Server(fileno=os.dup(own.fileno()))
    run.main._selector.register(other, 1, lambda: run.main._listener._accept(other))
    run.main._selector.unregister(own)
    run.main._listener._servers[0] = other
    own.close()
    run.join()
    if number != errno.ECONNABORTED:
        assert refused[2] - refused[0] >= 2 * 0.9 * listener.PAUSE_SECONDS
    assert run.verdicts.found == []


def test_what_listens_there_may_be_something_else():
    expected = pytest.raises(ProcessLost, match=r"cannot reach rank 0 on host first at 127\.0\.0\.1 port")
    with socket.create_server(("127.0.0.1", 0)) as server, expected:
        Heartbeat(1, 2, 0.3, places=[server.getsockname()], secret=b"s", main_host="first")


def test_a_process_without_the_secret_is_not_taken_for_rank_0(started):
    run = started(2, 0.5)
    with pytest.raises(ProcessLost, match="it closed the connection before it had proven to be rank 0"):
        run.join(secret=b"another")


MESSAGES = [
    {},
    {"beat": 1.5},
    {"verdict": "x", "code": 0},
    {"verdict": "x", "code": "75"},
    {"verdict": "x", "code": True},
    {"verdict": 7, "code": LOST},
    {"verdict": "x" * 8001, "code": LOST},
    {"failed": None},
    {"failed": "x"},
    {"bye": [1]},
    [],
    7,
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_rank_that_sends_another_message_is_lost_by_name(message, started):
    run = started()
    connection, channel = connect(place(run.main), run.main.secret, 1, "far", 5.0)
    connection.sendall(channel.sealed(message))
    ((_, text, exit_code),) = run.verdicts.wait(1)
    assert exit_code == LOST
    assert text.startswith("rank 1 on host far is gone: it sent a message that no rank of this run sends")
    connection.close()


@pytest.mark.parametrize("how", ["repeated", "altered", "without", "nested", "half a surrogate", "endless"])
def test_a_message_that_is_not_the_next_of_the_rank_ends_it_by_name(how, started):
    run = started()
    connection, channel = connect(place(run.main), run.main.secret, 1, "far", 5.0)
    line = channel.sealed({"beat": True})
    lines = {
        "repeated": line + line,
        "altered": line.replace(b"beat", b"feat"),
        "without": b'{"beat": true}\n',
        "nested": b"[" * 60_000 + b"\n",
        "half a surrogate": b'{"failed": "\\ud800"}\n',
        "endless": b"x" * 70_000,
    }
    connection.sendall(lines[how])
    assert run.verdicts.wait(1)[0][1].startswith("rank 1 on host far is gone: it sent a message")
    connection.close()


def test_text_is_printable():
    assert shortened("a\nb\x1b[2J\ud800ü") == "a\nb\\x1b[2J\\ud800ü"
    json.dumps(shortened("\udcff")).encode()
    assert len(shortened("\x00" * 9000)) == 8000


def test_rank_0_listens_only_where_the_others_look_for_it():
    servers, ports = listen([["127.0.0.1"], ["127.0.0.1", "192.0.2.7"]])
    try:
        assert [server.getsockname()[0] for server in servers] == ["127.0.0.1"]
        assert ports == {"127.0.0.1": servers[0].getsockname()[1]}
    finally:
        for server in servers:
            server.close()


def test_an_address_that_no_interface_has_is_reached_through_all():
    servers, ports = listen([["127.0.0.1"], ["192.0.2.7"]])
    try:
        assert servers[0].getsockname()[0] == "127.0.0.1"
        assert servers[1].getsockname()[0] in ("::", "0.0.0.0")
        assert ports["192.0.2.7"] == servers[1].getsockname()[1]
    finally:
        for server in servers:
            server.close()


def test_a_name_may_stand_for_several_addresses(monkeypatch):
    found = [(socket.AF_INET6, 0, 0, "", ("::1", 0, 0, 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: found)
    assert addresses_of("localhost") == ["::1", "127.0.0.1"]


def test_a_thread_that_fails_says_so_and_leaves_the_connections_open(started, monkeypatch):
    run = Started(2, SILENCE * 4)
    member = run.join()
    monkeypatch.setattr(run.main, "_check_peers", lambda now: 1 / 0)
    deadline = time.monotonic() + 5
    while run.main.ended is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.main.ended == "ZeroDivisionError: division by zero"
    time.sleep(0.2)
    assert run.verdicts.found == []  # rank 1 sees no closed connection
    run.main.leave()  # says good bye all the same
    time.sleep(SILENCE * 4)
    assert run.verdicts.found == []
    member.leave()
