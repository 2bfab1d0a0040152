"""A heartbeat between the processes of a run: a rank that dies, is stopped or cut off is named, and the run ends.

Rank 0 holds a TCP connection to each other rank, separate from those of the collectives. A thread in every process sends beats
and reads those of the other side. If a connection closes without a "bye" message, or is silent for too long, rank 0 sends every
rank a verdict, and each prints it and exits, even while its main thread waits in a collective. A rank that loses rank 0 reaches
the verdict by itself.
"""

import hmac
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from wildfern.launch import interrupts
from wildfern.printable import printable

LOST = 75  # EX_TEMPFAIL of sysexits.h: the command is fine, try again
FAILED = 1
GRACE_SECONDS = 5.0  # before other ranks exit after a failure: most raise the same error themselves
CLOSE_SECONDS = 2.0
CLOSED = "its connection closed (killed, or crashed)"
MOST_BYTES = 1 << 16  # of one message; a peer that sends more is not a rank of this run


class ProcessLost(RuntimeError):
    """Another process of this run is gone or unreachable; finished checkpoints are intact."""

    exit_code = LOST


def end_process(text: str, exit_code: int) -> None:
    """Print and exit, from any thread: the main thread may be inside an operation that does not return."""
    with suppress(OSError, ValueError, AttributeError):  # standard streams may be closed
        print(printable(text), file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(exit_code)


@dataclass
class Peer:
    """The other end of one connection."""

    connection: socket.socket | None
    rank: int
    host: str = "an unknown host"
    silent: float = 0.0  # seconds without a beat, not counting those in which this process was stopped itself
    rest: bytes = field(default=b"", repr=False)  # of a message that has not arrived completely


class Heartbeat:
    """The heartbeat of one of `world_size` processes; a context around all collectives.

    Rank 0 passes `address=None` and listens; the others pass rank 0's (host, port), `token` and host name.
    `silence`: seconds without a beat after which a process is lost. `end(text, exit_code)` ends this process, with
    exit code 75 if another is lost and 1 if another failed. `leave()` ends the heartbeat of this rank without a verdict.
    An error that leaves the `with` block is sent to the other ranks; that of a broken collective becomes ProcessLost.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        silence: float,
        *,
        address: tuple[str, int] | None = None,
        token: str | None = None,
        main_host: str = "",
        end: Callable[[str, int], None] = end_process,
    ) -> None:
        self.rank, self.silence, self.token = rank, silence, token or os.urandom(16).hex()
        self.host = socket.gethostname()
        self._interval = min(max(silence / 20, 0.05), 5.0)
        self._end = end
        self._last_message: dict | None = None
        self._pending: tuple[float, str, int] | None = None  # when to end, message, exit code
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ)
        if address is None:
            self._peers = {other: Peer(None, other) for other in range(world_size) if other != rank}
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            self._server = socket.create_server(("", 0), family=family, backlog=world_size, dualstack_ipv6=dual)
            self._selector.register(self._server, selectors.EVENT_READ)
            self.port = self._server.getsockname()[1]
        else:
            self._server = None
            try:
                connection = socket.create_connection(address, timeout=min(silence, 30.0))
            except OSError as error:
                raise ProcessLost(
                    f"rank {rank} on host {self.host} cannot reach rank 0 on host {main_host} at {address[0]} port "
                    f"{address[1]}: {error}. Processes connect to each other on any port: open all ports between the "
                    "hosts in their firewalls"
                ) from error
            self._peers = {0: Peer(connection, 0, main_host)}
            connection.sendall(_line({"token": self.token, "rank": rank, "host": self.host}))
            self._register(self._peers[0])
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self, message: dict | None = None) -> None:
        """Leave the heartbeat: the other ranks stop expecting beats. A second call does nothing."""
        if self._last_message is None:
            self._last_message = message or {"bye": True}
            with suppress(OSError):  # the thread may have ended
                self._wake.send(b"x")
            self._thread.join()
            self._wake.close()

    def __enter__(self) -> "Heartbeat":
        interrupts.at_end.append(self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupts.at_end.remove(self._interrupted)
        if error is None or self._last_message is not None:
            self.leave()
        elif isinstance(error, KeyboardInterrupt):
            self._interrupted(interrupts.exit_code())
        elif _broken_collective(error):  # the name of the lost rank may arrive after the error
            self._over.wait(self.silence)
            self.leave({"bye": True})
            first = str(error).strip().splitlines()[0]
            raise ProcessLost(
                f"rank {self.rank} on host {self.host} lost its connection to the other ranks, which still run: {first}. "
                "Continue with the same command and --resume"
            ) from error
        else:
            what = f"{kind.__name__}: {error}"[:2000]
            self.leave({"failed": f"rank {self.rank} on host {self.host} failed: {what}"})

    def _interrupted(self, exit_code: int) -> None:
        """Leave, and end the other ranks with the same exit code: a signal to one process stops the run."""
        signal_name = signal.Signals(exit_code - 128).name
        self.leave({"failed": f"stopped by {signal_name} on rank {self.rank} (host {self.host})", "code": exit_code})

    def _run(self) -> None:
        before = beat = time.monotonic()
        while self._last_message is None and not self._over.is_set():
            for ready, _ in self._selector.select(self._interval):
                if ready.fileobj is self._server:
                    self._accept()
                elif ready.data is not None:
                    self._receive(ready.data)
            now = time.monotonic()
            # Time in which this process itself was stopped does not count against the others.
            passed, before = min(now - before, 2 * self._interval), now
            for peer in self._peers.values():
                peer.silent += passed
            if now >= beat:
                beat = now + self._interval
                self._send_all({"beat": True})
            self._check_peers(now)
        if self._last_message is not None and not self._over.is_set():
            self._send_and_close(self._last_message)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _check_peers(self, now: float) -> None:
        if self._pending is not None and now >= self._pending[0]:
            _, text, exit_code = self._pending
            self._end_run(text, exit_code)
        elif any(peer.silent > self.silence for peer in self._peers.values()):
            lost = [peer for peer in self._peers.values() if peer.silent > 0.8 * self.silence]
            hosts: dict[str, list[str]] = {}
            for peer in lost:
                hosts.setdefault(peer.host, []).append(str(peer.rank))
            who = "; ".join(f"rank {', '.join(ranks)} on host {host}" for host, ranks in hosts.items())
            self._lost(f"{who}: no heartbeat for {self.silence:.0f} s (stopped, or cut off from the network)")

    def _lost(self, what: str) -> None:
        self._end_run(f"{what}. The run stops; continue with the same command and --resume", LOST)

    def _end_run(self, text: str, exit_code: int) -> None:
        if not self._over.is_set():
            self._over.set()
            self._send_and_close({"verdict": text, "code": exit_code})
            self._end(text, exit_code)

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        self._register(Peer(connection, -1))

    def _register(self, peer: Peer) -> None:
        peer.connection.setblocking(False)
        peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        self._peers.pop(peer.rank, None)

    def _receive(self, peer: Peer) -> None:
        try:
            arrived, why = peer.connection.recv(MOST_BYTES), CLOSED
        except ConnectionResetError:  # the system resets the connection of a process that died with unread beats
            arrived, why = b"", CLOSED
        except OSError as error:
            arrived, why = b"", f"its connection broke ({error})"
        *lines, peer.rest = (peer.rest + arrived).split(b"\n")
        for line in lines:
            if not self._handle(peer, line):
                return
        if not arrived or len(peer.rest) > MOST_BYTES:
            known = peer.rank in self._peers
            self._drop(peer)
            if known and self._pending is None:
                self._lost(f"rank {peer.rank} on host {peer.host} is gone: {why}")

    def _handle(self, peer: Peer, line: bytes) -> bool:
        """Handle one message; False if the peer sends no more."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if peer.rank == -1:
            return self._admit(peer, message)
        peer.silent = 0.0
        if not isinstance(message, dict) or "bye" in message:
            self._drop(peer)
            return False
        if "verdict" in message:
            self._end_run(str(message["verdict"]), int(message["code"]))
            return False
        if "failed" in message and self._pending is None:
            text, code = str(message["failed"]), int(message.get("code", FAILED))
            self._pending = (time.monotonic() + min(GRACE_SECONDS, self.silence), text, code)
            self._send_all({"failed": text, "code": code})
        return True

    def _admit(self, peer: Peer, message: object) -> bool:
        """Accept a connection as the rank it names, if its token is right and that rank is not connected yet."""
        given = message if isinstance(message, dict) else {}
        expected = self._peers.get(given["rank"]) if isinstance(given.get("rank"), int) else None
        known = hmac.compare_digest(str(given.get("token")).encode(), self.token.encode())
        if not known or expected is None or expected.connection is not None:
            self._drop(peer)
            return False
        peer.rank, peer.host = expected.rank, str(given.get("host"))
        self._peers[peer.rank] = peer
        return True

    def _send_all(self, message: dict) -> None:
        for peer in self._peers.values():
            if peer.connection is not None:
                with suppress(OSError):  # `_receive` and the silence detect a lost peer
                    peer.connection.send(_line(message))

    def _send_and_close(self, message: dict) -> None:
        """Send to all and wait until they have read it: closing a connection with unread beats would drop the message."""
        self._send_all(message)
        listening = {p.connection for p in self._peers.values() if p.connection and p.silent < self.silence / 2}
        until = time.monotonic() + CLOSE_SECONDS
        with selectors.DefaultSelector() as heard, suppress(OSError):
            for connection in listening:
                heard.register(connection, selectors.EVENT_READ)
                connection.shutdown(socket.SHUT_WR)
            while heard.get_map() and time.monotonic() < until:
                for ready, _ in heard.select(until - time.monotonic()):
                    try:
                        closed = not ready.fileobj.recv(MOST_BYTES)
                    except OSError:
                        closed = True
                    if closed:
                        heard.unregister(ready.fileobj)


def join_heartbeat(rank: int, world_size: int, address: str, silence: float) -> Heartbeat:
    """Start the heartbeat of this process; called on every rank of an initialized process group.

    `address` is that of rank 0's host. Raises ProcessLost if rank 0 cannot be reached.
    """
    from torch.distributed import broadcast_object_list

    if rank == 0:
        heartbeat = Heartbeat(0, world_size, silence)
        broadcast_object_list([(heartbeat.port, heartbeat.token, heartbeat.host)], src=0)
        return heartbeat
    received: list = [None]
    broadcast_object_list(received, src=0)
    port, token, main_host = received[0]
    return Heartbeat(rank, world_size, silence, address=(address, port), token=token, main_host=main_host)


def _line(message: dict) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _broken_collective(error: BaseException) -> bool:
    """Whether torch raised this error because a peer is gone or late."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "connection closed by peer"))
    )
