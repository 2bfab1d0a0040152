"""Mutated messages of the heartbeat: a stranger is dropped whatever it sends, and a rank's message is known or refused."""

import json
import selectors
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import changed_documents, json_values, near
from time_limit import at_most

from wildfern.launch.cluster.authentication import Channel, Handshake, parse_hello, parse_nonce, parse_proof
from wildfern.launch.cluster.listener import Listener, listen
from wildfern.launch.cluster.peer import checked

SECONDS = 10
SECRET = b"secret"
HELLO = {"rank": 1, "host": "a", "nonce": "0" * 32, "proof": "0" * 64}
LINES = [json.dumps(line).encode() + b"\n" for line in (HELLO, {"nonce": "0" * 32}, {"proof": "0" * 64})]


@given(near(LINES))
def test_handshakes(line):
    with at_most(SECONDS):
        for parse in (parse_hello, parse_nonce, parse_proof):
            try:
                parse(line)
            except ValueError as error:
                assert str(error)


@pytest.fixture(scope="module")
def listener():
    """Rank 0 that waits for rank 1; `heard` are the ranks that it admits."""
    heard = []
    selector = selectors.DefaultSelector()
    servers, ports = listen([["127.0.0.1"]])
    found = Listener(servers, selector, SECRET, lambda rank: rank == 1, lambda *rank: heard.append(rank))
    yield found, selector, ports, heard
    found.close()
    selector.close()


def ended(connection):
    """Whether the other side has closed the connection."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


@given(st.lists(near(LINES), max_size=2))
def test_strangers(listener, sent):
    found, selector, ports, heard = listener
    with at_most(SECONDS), socket.create_connection(next(iter(ports.items())), timeout=5) as stranger:
        stranger.sendall(b"".join(sent))
        stranger.shutdown(socket.SHUT_WR)
        while selector.select(0) or not found._strangers:
            for key, _ in selector.select(0):
                key.data()
            if not found._strangers and ended(stranger):
                break
    assert heard == []
    assert found._servers


@given(st.lists(changed_documents({"verdict": "text", "code": 75}), max_size=3), near([b"\n"], most=2))
def test_messages_of_a_rank(messages, noise):
    main, peer = (Handshake(SECRET, "0" * 32, "1" * 32, 1, "a").channel(main=side) for side in (True, False))
    for message in messages:
        try:
            line = peer.sealed(message)
        except UnicodeEncodeError:
            continue
        try:
            assert checked(main.opened(line.rstrip(b"\n")), {75, 1})["code"] in (75, 1)
        except ValueError:
            return
    with pytest.raises(ValueError):  # noqa: PT011
        main.opened(noise)


@given(json_values())
def test_values_that_no_rank_sends(value):
    try:
        assert isinstance(checked(value, {75}), dict)
    except ValueError as error:
        assert str(error)


def test_the_channel_opens_what_a_rank_sends():
    one, other = Channel(b"a", b"b"), Channel(b"b", b"a")
    assert other.opened(one.sealed({"beat": True}).rstrip(b"\n")) == {"beat": True}
