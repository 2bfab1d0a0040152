"""How a rank connects to the heartbeat of rank 0: again and again, if it is dropped before both have proven who they are."""

import socket
import time
from collections.abc import Sequence

from wildfern.launch.cluster.authentication import (
    MOST_HELLO_BYTES,
    Channel,
    Handshake,
    line_of,
    new_nonce,
    parse_nonce,
    parse_proof,
    proven,
)

CONNECT_SECONDS = 30.0  # for a host that does not answer at all
NONCE_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # between two attempts


class CannotConnect(OSError):
    """Rank 0 was not reached; `place` is the last address and port that was tried."""

    def __init__(self, place: tuple[str, int], reason: object) -> None:
        super().__init__(str(reason))
        self.place = place


def connect(
    places: Sequence[tuple[str, int]], secret: bytes, rank: int, host: str, seconds: float
) -> tuple[socket.socket, Channel]:
    """A connection to rank 0 at one of these addresses and ports, tried in this order, and its authenticated messages.

    An attempt that ends before the proof of rank 0 is repeated for `seconds`: rank 0 drops connections where strangers take all
    places. Without any answer it ends after 30 s. Raises CannotConnect.
    """
    began, wait, answered = time.monotonic(), FIRST_WAIT, False
    while True:
        for place in places:
            left = seconds - (time.monotonic() - began)
            connection = None
            try:
                connection = socket.create_connection(place, timeout=max(0.01, min(left, CONNECT_SECONDS)))
                answered = True
                return connection, _introduced(connection, secret, rank, host, began + seconds)
            except (OSError, ValueError) as error:
                if connection is not None:
                    connection.close()
                failed = CannotConnect(place, error)
        passed = time.monotonic() - began
        if passed + wait >= (seconds if answered else min(seconds, CONNECT_SECONDS)):
            raise failed
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def _introduced(connection: socket.socket, secret: bytes, rank: int, host: str, until: float) -> Channel:
    """The messages of a connection after both sides have proven who they are. Raises OSError or ValueError."""
    nonce = parse_nonce(_line(connection, min(until, time.monotonic() + NONCE_SECONDS)))
    own = new_nonce()
    handshake = Handshake(secret, nonce, own, rank, host)
    connection.sendall(line_of({"rank": rank, "host": host, "nonce": own, "proof": handshake.of_peer}))
    if not proven(parse_proof(_line(connection, until)), handshake.of_main):
        raise ValueError("what listens there is not rank 0 of this run")
    return handshake.channel(main=False)


def _line(connection: socket.socket, until: float) -> bytes:
    """One line; byte by byte, since what follows it is not part of the handshake."""
    line = b""
    while len(line) <= MOST_HELLO_BYTES:
        connection.settimeout(max(0.01, until - time.monotonic()))
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("it closed the connection before it had proven to be rank 0")
        if byte == b"\n":
            return line
        line += byte
    raise ValueError("what listens there is not rank 0 of this run")
