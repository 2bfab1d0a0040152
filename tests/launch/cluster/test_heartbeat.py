"""The heartbeat between ranks, all in this process: a lost rank is named, one that leaves is not."""

import socket
import struct
import threading
import time

import pytest
from heartbeats import SILENCE, Verdicts, place

from wildfern.launch.cluster.authentication import Handshake, line_of, new_nonce, parse_hello
from wildfern.launch.cluster.connecting import connect
from wildfern.launch.cluster.heartbeat import FAILED, LOST, Heartbeat, ProcessLost


@pytest.fixture
def cluster():
    """`cluster(n)`: n connected ranks, and their verdicts."""
    made = []

    def build(world_size, silence=SILENCE, missing=()):
        verdicts = Verdicts()
        main = Heartbeat(0, world_size, silence, wanted=[["127.0.0.1"]] * (world_size - 1), end=verdicts.of(0))
        made.append(main)
        ranks = {0: main}
        for rank in set(range(1, world_size)) - set(missing):
            ranks[rank] = Heartbeat(
                rank,
                world_size,
                silence,
                places=place(main),
                secret=main.secret,
                main_host="first",
                end=verdicts.of(rank),
            )
            made.append(ranks[rank])
        deadline = time.monotonic() + 5
        while any(main._peers[rank].connection is None for rank in set(ranks) - {0}):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return ranks, verdicts

    yield build
    for heartbeat in made:
        heartbeat.leave()


def by_hand(main, rank, host="far"):
    """A connection as `rank` that sends no beats."""
    return connect(place(main), main.secret, rank, host, 5.0)[0]


def test_no_rank_is_lost_while_all_beat(cluster):
    ranks, verdicts = cluster(4)
    time.sleep(3 * SILENCE)
    for rank in (2, 0, 3, 1):  # in any order, rank 0 in the middle
        ranks[rank].leave()
    assert verdicts.found == []


def test_ranks_may_leave_at_different_times(cluster):
    ranks, verdicts = cluster(3)
    ranks[1].leave()
    time.sleep(2 * SILENCE)
    ranks[0].leave()
    time.sleep(2 * SILENCE)
    assert verdicts.found == []


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_closed_connection_is_reported_to_all_ranks_at_once(how, cluster):
    """The system resets the connection of a process killed with unread beats, and closes it otherwise."""
    ranks, verdicts = cluster(4, silence=60.0, missing=[3])
    connection = by_hand(ranks[0], 3)
    time.sleep(0.2)
    began = time.monotonic()
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    for rank, (found, text, exit_code) in enumerate(verdicts.wait(3)):
        assert (found, exit_code) == (rank, LOST)
        assert text.startswith("rank 3 on host far is gone: its connection closed (killed, or crashed). ")
        assert text.endswith("continue with the same command and --resume")
    assert time.monotonic() - began < 5


def test_silent_ranks_are_reported_together_by_host(cluster):
    ranks, verdicts = cluster(4, missing=[2, 3])
    connections = [by_hand(ranks[0], rank) for rank in (2, 3)]
    began = time.monotonic()
    found = verdicts.wait(2)
    assert time.monotonic() - began > 0.9 * SILENCE
    assert [rank for rank, _, _ in found] == [0, 1]
    assert all(text.startswith("rank 2, 3 on host far: no heartbeat for 1 s") for _, text, _ in found)
    connections[0].settimeout(5)
    assert "rank 2, 3 on host far" in connections[0].makefile().read()  # to the silent rank too, in case it wakes up


def test_a_rank_that_never_connects_is_named(cluster):
    _, verdicts = cluster(2, missing=[1])
    assert "rank 1 on host an unknown host: no heartbeat" in verdicts.wait(1)[0][1]


def answer(server, secret):
    """Accept one rank, as rank 0, and send nothing more."""
    connection, _ = server.accept()
    nonce = new_nonce()
    connection.sendall(line_of({"nonce": nonce}))
    hello = parse_hello(connection.makefile("rb").readline())
    handshake = Handshake(secret, nonce, hello.nonce, hello.rank, hello.host)
    connection.sendall(line_of({"proof": handshake.of_main}))
    return connection


@pytest.mark.parametrize("how", ["silent", "closed"])
def test_the_other_ranks_detect_the_loss_of_rank_0(how):
    verdicts = Verdicts()
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = threading.Thread(target=lambda: connections.append(answer(server, b"secret")))
        connections: list = []
        accepted.start()
        member = Heartbeat(
            1, 2, SILENCE, places=[server.getsockname()], secret=b"secret", main_host="first", end=verdicts.of(1)
        )
        accepted.join()
        if how == "closed":
            connections[0].close()
        ((_, text, exit_code),) = verdicts.wait(1)
        assert exit_code == LOST
        assert text.startswith(
            "rank 0 on host first is gone" if how == "closed" else "rank 0 on host first: no heartbeat"
        )
        member.leave()
        connections[0].close()


def test_time_in_which_a_process_was_stopped_itself_does_not_count(cluster, monkeypatch):
    """A stopped process sees its clock jump."""
    ranks, verdicts = cluster(2)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 100.0)
    time.sleep(SILENCE)
    monkeypatch.undo()
    assert verdicts.found == []
    assert ranks[0]._thread.is_alive()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_rank_ends_the_others_with_its_message(failing, cluster, monkeypatch):
    monkeypatch.setattr("wildfern.launch.cluster.heartbeat.GRACE_SECONDS", 0.2)
    ranks, verdicts = cluster(3, silence=30.0)
    with pytest.raises(OSError, match="no such image"), ranks[failing]:
        raise OSError("no such image")
    others = [rank for rank in range(3) if rank != failing]
    host = socket.gethostname()
    expected = f"rank {failing} on host {host} failed: OSError: no such image"
    assert verdicts.wait(2) == [(rank, expected, FAILED) for rank in others]


@pytest.mark.parametrize("stopped", [0, 1])
def test_an_interrupt_of_one_rank_ends_the_others_with_its_exit_code_and_blames_none(stopped, cluster, monkeypatch):
    monkeypatch.setattr("wildfern.launch.cluster.heartbeat.GRACE_SECONDS", 0.2)
    ranks, verdicts = cluster(3, silence=30.0)
    with pytest.raises(KeyboardInterrupt), ranks[stopped]:
        raise KeyboardInterrupt
    expected = f"stopped by SIGINT on rank {stopped} (host {socket.gethostname()})"
    assert verdicts.wait(2) == [(rank, expected, 130) for rank in range(3) if rank != stopped]


def test_a_rank_that_fails_soon_after_reports_its_own_error(cluster, monkeypatch):
    monkeypatch.setattr("wildfern.launch.cluster.heartbeat.GRACE_SECONDS", 0.5)
    ranks, verdicts = cluster(2, silence=30.0)
    for rank in (1, 0):
        with pytest.raises(ValueError, match="does not divide"), ranks[rank]:
            raise ValueError("does not divide")
    time.sleep(1.0)
    assert verdicts.found == []


def test_a_broken_collective_waits_for_the_name_of_the_lost_rank(cluster):
    ranks, verdicts = cluster(3, silence=30.0, missing=[2])
    connection = by_hand(ranks[0], 2)
    threading.Timer(0.3, connection.close).start()
    with pytest.raises(ProcessLost), ranks[1]:  # in a real run `end` exits before this is raised
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    assert [rank for rank, text, _ in verdicts.wait(2) if "rank 2 on host far is gone" in text] == [0, 1]


def test_a_broken_collective_between_living_ranks_says_so(cluster):
    ranks, _ = cluster(2)
    with pytest.raises(ProcessLost, match=r"rank 1 on host .* which still run: gloo says timed out"), ranks[1]:
        raise RuntimeError("gloo says timed out\nand more")


def test_a_rank_that_cannot_reach_rank_0_names_address_and_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(
        ProcessLost, match=rf"rank 3 on host \S+ cannot reach rank 0 on host first at 127.0.0.1 port {address[1]}"
    ):
        Heartbeat(3, 4, SILENCE, places=[address], secret=b"secret", main_host="first")
