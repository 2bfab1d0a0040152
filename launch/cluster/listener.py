"""Where rank 0 listens for the heartbeat, and how it tells the ranks of this run from strangers.

A stranger may connect, send anything, or nothing: it is dropped, and the ranks are admitted. When every rank is, the ports close.
"""

import errno
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from wildfern.launch.cluster.authentication import (
    MOST_HELLO_BYTES,
    Channel,
    Handshake,
    Hello,
    line_of,
    new_nonce,
    parse_hello,
    proven,
)

HELLO_SECONDS = 10.0  # from a connection to its proof
MOST_STRANGERS = 16  # unauthenticated connections at a time, besides one for each rank that is expected
PAUSE_SECONDS = 0.2  # without accepting, where the system has no file descriptor or memory left
# What accept(2) may report of a connection that is gone; other errors are of the listening socket.
GONE = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPROTO", "EPERM", "EINTR", "EAGAIN", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT", "ECONNRESET"),
    )
    if hasattr(errno, name)
}
FAMILIES = (socket.AF_INET, socket.AF_INET6)
FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


def addresses_of(host: str) -> list[str]:
    """The addresses that a host name stands for on this host, the preferred first, without duplicates. Raises OSError."""
    found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for family, *_, place in found if family in FAMILIES))


def listen(wanted: Sequence[Sequence[str]]) -> tuple[list[socket.socket], dict[str, int]]:
    """Listening sockets, and the port by address, for peers that connect to the addresses in `wanted`, one list for each peer.

    Rank 0 listens on those of these addresses that it has, at ports of the system's choice. Where it has none of a peer's
    (address translation, a virtual address), it listens on all interfaces too, and that port is for the other addresses.
    """
    servers: list[socket.socket] = []
    ports: dict[str, int] = {}
    backlog = max(128, len(wanted))  # room for ranks beside strangers
    for address in dict.fromkeys(address for addresses in wanted for address in addresses):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with suppress(OSError):  # not an address of this host
            servers.append(socket.create_server((address, 0), family=family, backlog=backlog))
            ports[address] = servers[-1].getsockname()[1]
    if any(not ports.keys() & set(addresses) for addresses in wanted):
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        servers.append(socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=dual))
        port = servers[-1].getsockname()[1]
        ports = {address: ports.get(address, port) for addresses in wanted for address in addresses}
    for server in servers:
        server.setblocking(False)
    return servers, ports


@dataclass(eq=False)
class Stranger:
    """A connection that has not proven to be a rank of this run."""

    connection: socket.socket
    nonce: str
    until: float  # on time.monotonic
    received: bytes = field(default=b"", repr=False)


class Listener:
    """The listening sockets of rank 0 and the connections that are not authenticated, on the selector of its heartbeat.

    The data of every key of the selector is a function to call when its socket is ready. `expected(rank)`: whether a rank is not
    connected yet. `admit(connection, hello, channel)` gets each that is; its socket is registered no more. No error of a
    stranger is raised.
    """

    def __init__(
        self,
        servers: Sequence[socket.socket],
        selector: selectors.BaseSelector,
        secret: bytes,
        expected: Callable[[int], bool],
        admit: Callable[[socket.socket, Hello, Channel], None],
    ) -> None:
        self._servers, self._selector, self._secret = list(servers), selector, secret
        self._expected, self._admit = expected, admit
        self._strangers: list[Stranger] = []  # by age
        self._paused_until: float | None = None
        self._watch(True)

    def check(self, now: float, missing: int) -> None:
        """Called every now and then: drop strangers that are late or too many; close the ports when no rank is missing."""
        if missing == 0:
            self.close()
        most = MOST_STRANGERS + missing
        for stranger in list(self._strangers):
            if now > stranger.until or len(self._strangers) > most:
                self._drop(stranger)
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._watch(True)

    def close(self) -> None:
        """Stop listening, and drop all strangers."""
        if self._paused_until is None:
            self._watch(False)
        self._paused_until = None
        for stranger in list(self._strangers):
            self._drop(stranger)
        for server in self._servers:
            server.close()
        self._servers = []

    def _watch(self, watching: bool) -> None:
        for server in self._servers:
            if watching:
                self._selector.register(server, selectors.EVENT_READ, partial(self._accept, server))
            else:
                self._selector.unregister(server)

    def _accept(self, server: socket.socket) -> None:
        if server not in self._servers or self._paused_until is not None:
            return  # closed or paused by a call for another socket that was ready at the same time
        try:
            connection, _ = server.accept()
        except OSError as error:
            if error.errno in FULL:
                if self._strangers:
                    self._drop(self._strangers[0])
                self._watch(False)
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            elif error.errno not in GONE:
                raise
            return
        stranger = Stranger(connection, new_nonce(), time.monotonic() + HELLO_SECONDS)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(line_of({"nonce": stranger.nonce}))
            self._selector.register(connection, selectors.EVENT_READ, partial(self._hear, stranger))
        except OSError:
            connection.close()
            return
        self._strangers.append(stranger)

    def _hear(self, stranger: Stranger) -> None:
        if stranger not in self._strangers:
            return  # dropped by a call for another socket that was ready at the same time
        try:
            admitted = self._authenticated(stranger)
        except BlockingIOError:
            return
        except Exception:  # of whatever kind: it is a stranger's
            self._drop(stranger)
            return
        if admitted is not None:
            self._strangers.remove(stranger)
            self._selector.unregister(stranger.connection)
            self._admit(stranger.connection, *admitted)

    def _authenticated(self, stranger: Stranger) -> tuple[Hello, Channel] | None:
        """The rank that a stranger has proven to be; None if its hello is not complete. Raises ValueError or OSError."""
        arrived = stranger.connection.recv(MOST_HELLO_BYTES + 1 - len(stranger.received))
        stranger.received += arrived
        if not arrived or len(stranger.received) > MOST_HELLO_BYTES:
            raise ValueError("no message of a rank")
        line, end, more = stranger.received.partition(b"\n")
        if not end:
            return None
        hello = parse_hello(line)
        handshake = Handshake(self._secret, stranger.nonce, hello.nonce, hello.rank, hello.host)
        if not proven(hello.proof, handshake.of_peer) or more or not self._expected(hello.rank):
            raise ValueError("not a rank that is expected")
        stranger.connection.sendall(line_of({"proof": handshake.of_main}))
        return hello, handshake.channel(main=True)

    def _drop(self, stranger: Stranger) -> None:
        if stranger in self._strangers:
            self._strangers.remove(stranger)
            self._selector.unregister(stranger.connection)
            stranger.connection.close()
