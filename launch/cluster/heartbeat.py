"""A heartbeat between the processes of a run: a rank that dies, is stopped or cut off is named, and the run ends.

Rank 0 holds a TCP connection to each other rank, separate from those of the collectives. A thread in every process sends beats
and reads those of the other side. If a connection closes without a "bye" message, or is silent for too long, rank 0 sends every
rank a verdict, and each prints it and exits, even while its main thread waits in a collective. A rank that loses rank 0 reaches
the verdict by itself. `authentication` says what protects the connections, `listener` where rank 0 listens.

If the thread itself fails, `ended` says how; its connections stay open, so that the run can be stopped with a checkpoint before
the other ranks miss its beats.
"""

import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

from wildfern.launch import interrupts
from wildfern.launch.cluster.authentication import MOST_BYTES, MOST_HOST, Channel, Hello, shortened
from wildfern.launch.cluster.connecting import CannotConnect, connect
from wildfern.launch.cluster.listener import Listener, addresses_of, listen
from wildfern.launch.cluster.peer import Peer, checked
from wildfern.launch.errors import RunError

LOST = 75  # EX_TEMPFAIL of sysexits.h: the command is fine, try again
FAILED = 1
CODES = {LOST, FAILED, *(128 + number for number in interrupts.SIGNALS)}  # with which a rank may end the others
GRACE_SECONDS = 5.0  # before other ranks exit after a failure: most raise the same error themselves
CLOSE_SECONDS = 2.0
CLOSED = "its connection closed (killed, or crashed)"


class ProcessLost(RuntimeError):
    """Another process of this run is gone or unreachable; finished checkpoints are intact."""

    exit_code = LOST


def end_process(text: str, exit_code: int) -> None:
    """Print and exit, from any thread: the main thread may be inside an operation that does not return."""
    with suppress(OSError, ValueError, AttributeError):  # standard streams may be closed
        print(shortened(text), file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(exit_code)


class HeartbeatEnded(ProcessLost):
    """The thread of a heartbeat failed, on whichever rank; training stopped after a checkpoint."""


class Heartbeat:
    """The heartbeat of one of `world_size` processes; a context around all collectives.

    Rank 0 listens where the others will look for it: `wanted` are the addresses that each of them has for rank 0's host, and
    `ports` what they connect to. The others pass these addresses and ports of rank 0 as `places`, its `secret` and host name.
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
        wanted: Sequence[Sequence[str]] = (),
        places: Sequence[tuple[str, int]] = (),
        secret: bytes | None = None,
        main_host: str = "",
        end: Callable[[str, int], None] = end_process,
    ) -> None:
        self.rank, self.silence, self.secret = rank, silence, secret or secrets.token_bytes(32)
        self.host = own_host()
        self.ports: dict[str, int] = {}
        self.ended: str | None = None
        self._interval = min(max(silence / 20, 0.05), 5.0)
        self._end = end
        self._last_message: dict | None = None
        self._pending: tuple[float, str, int] | None = None  # when to end, message, exit code
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ, lambda: None)  # `leave` ends the loop
        self._listener: Listener | None = None
        if rank == 0:
            self._peers = {other: Peer(other) for other in range(1, world_size)}
            servers, self.ports = listen(wanted)
            self._listener = Listener(servers, self._selector, self.secret, self._expects, self._admit)
        else:
            try:
                connection, channel = connect(places, self.secret, rank, self.host, silence)
            except CannotConnect as error:
                raise ProcessLost(
                    f"rank {rank} on host {self.host} cannot reach rank 0 on host {main_host} at {error.place[0]} port "
                    f"{error.place[1]}: {error}. Processes connect to each other on any port: open all ports between the "
                    "hosts in their firewalls"
                ) from error
            self._peers = {0: Peer(0, main_host)}
            self._connect(self._peers[0], connection, channel)
        self._before = self._next_beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self, message: dict | None = None) -> None:
        """Leave the heartbeat: the other ranks stop expecting beats. A second call does nothing."""
        if self._last_message is None:
            self._last_message = message or {"bye": True}
            with suppress(OSError):  # the thread may have ended
                self._wake.send(b"x")
            self._thread.join()
            if self.ended is not None:  # the thread has left the connections open
                with suppress(Exception):  # it may fail at the same point again
                    self._close()
            self._wake.close()

    def __enter__(self) -> "Heartbeat":
        interrupts.at_end.append(self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupts.at_end.remove(self._interrupted)
        if error is None or self._last_message is not None or isinstance(error, HeartbeatEnded):
            self.leave()
        elif isinstance(error, KeyboardInterrupt):
            self._interrupted(interrupts.exit_code())
        elif _broken_collective(error):  # the name of the lost rank may arrive after the error
            if self.ended is None:
                self._over.wait(self.silence)
            self.leave({"bye": True})
            first = str(error).strip().splitlines()[0]
            raise ProcessLost(
                f"rank {self.rank} on host {self.host} lost its connection to the other ranks, which still run: {first}. "
                "Continue with the same command and --resume"
            ) from error
        else:
            what = shortened(f"{kind.__name__}: {error}", 2000)
            self.leave({"failed": f"rank {self.rank} on host {self.host} failed: {what}", "code": FAILED})

    def _interrupted(self, exit_code: int) -> None:
        """Leave, and end the other ranks with the same exit code: a signal to one process stops the run."""
        signal_name = signal.Signals(exit_code - 128).name
        self.leave({"failed": f"stopped by {signal_name} on rank {self.rank} (host {self.host})", "code": exit_code})

    def _run(self) -> None:
        try:
            while self._last_message is None and not self._over.is_set():
                self._turn()
            self._close()
        except BaseException as error:  # of whatever kind: the run has to learn of it
            self.ended = shortened(f"{type(error).__name__}: {error}", 500)

    def _turn(self) -> None:
        for ready, _ in self._selector.select(self._interval):
            ready.data()
        now = time.monotonic()
        # Time in which this process itself was stopped does not count against the others.
        passed, self._before = min(now - self._before, 2 * self._interval), now
        for peer in self._peers.values():
            peer.silent += passed
        if now >= self._next_beat:
            self._next_beat = now + self._interval
            self._send_all({"beat": True})
        if self._listener is not None:
            self._listener.check(now, sum(peer.connection is None for peer in self._peers.values()))
        self._check_peers(now)

    def _close(self) -> None:
        """Send the last message, unless a verdict was, and close everything."""
        if self._last_message is not None and not self._over.is_set():
            self._send_and_close(self._last_message)
        if self._listener is not None:
            self._listener.close()
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
            self._send_and_close({"verdict": shortened(text), "code": exit_code})
            self._end(text, exit_code)

    def _expects(self, rank: int) -> bool:
        return rank in self._peers and self._peers[rank].connection is None

    def _admit(self, connection: socket.socket, hello: Hello, channel: Channel) -> None:
        peer = self._peers[hello.rank]
        peer.host, peer.silent = hello.host, 0.0
        self._connect(peer, connection, channel)

    def _connect(self, peer: Peer, connection: socket.socket, channel: Channel) -> None:
        peer.connection, peer.channel = connection, channel
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._receive, peer))

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        del self._peers[peer.rank]

    def _receive(self, peer: Peer) -> None:
        if self._peers.get(peer.rank) is not peer:
            return  # dropped by a call for another socket that was ready at the same time
        try:
            arrived, why = peer.connection.recv(MOST_BYTES), CLOSED
        except BlockingIOError:
            return
        except ConnectionResetError:  # the system resets the connection of a process that died with unread beats
            arrived, why = b"", CLOSED
        except OSError as error:
            arrived, why = b"", f"its connection broke ({error})"
        *lines, peer.rest = (peer.rest + arrived).split(b"\n")
        try:
            for line in lines:
                if not self._handle(peer, checked(peer.channel.opened(line), CODES)):
                    return
            if len(peer.rest) > MOST_BYTES:
                raise ValueError("it is too long")
        except ValueError as error:
            arrived, why = b"", f"it sent a message that no rank of this run sends ({error})"
        if not arrived:
            self._drop(peer)
            if self._pending is None:
                self._lost(f"rank {peer.rank} on host {peer.host} is gone: {why}")

    def _handle(self, peer: Peer, message: dict) -> bool:
        """Handle one message; False if the peer sends no more."""
        peer.silent = 0.0
        if "bye" in message:
            self._drop(peer)
            return False
        if "verdict" in message:
            self._end_run(message["verdict"], message["code"])
            return False
        if "failed" in message and self._pending is None:
            text, code = message["failed"], message["code"]
            self._pending = (time.monotonic() + min(GRACE_SECONDS, self.silence), text, code)
            self._send_all({"failed": text, "code": code})
        return True

    def _send_all(self, message: dict) -> None:
        for peer in self._peers.values():
            peer.send(message)

    def _send_and_close(self, message: dict) -> None:
        """Send to all and wait until they have read it: closing a connection with unread beats would drop the message."""
        self._send_all(message)
        listening = {p.connection for p in self._peers.values() if p.connection and p.silent < self.silence / 2}
        until = time.monotonic() + CLOSE_SECONDS
        with selectors.DefaultSelector() as heard:
            for connection in listening:
                with suppress(OSError):  # it is closed already
                    connection.shutdown(socket.SHUT_WR)
                    heard.register(connection, selectors.EVENT_READ)
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

    `address` is that of rank 0's host. The secret and the ports of rank 0 come through the process group. Raises ProcessLost if
    rank 0 cannot be reached, RunError where a rank cannot resolve `address` or rank 0 cannot listen.
    """
    from torch.distributed import all_gather_object, broadcast_object_list

    own, problem = [], None
    try:
        own = addresses_of(address)
    except OSError as error:
        problem = (
            f"rank {rank} on host {own_host()} cannot resolve the address of rank 0, MASTER_ADDR={address}: {error}"
        )
    gathered: list = [None] * world_size
    all_gather_object(gathered, (own, problem))
    if problems := [text for _, text in gathered if text]:
        raise RunError(problems[0])
    received: list = [None]
    if rank == 0:
        try:
            heartbeat = Heartbeat(0, world_size, silence, wanted=[found for found, _ in gathered[1:]])
            received = [(heartbeat.ports, heartbeat.secret, heartbeat.host, None)]
        except OSError as error:
            received = [({}, b"", "", f"rank 0 on host {own_host()} cannot listen for the other ranks: {error}")]
    broadcast_object_list(received, src=0)
    ports, secret, main_host, problem = received[0]
    if problem is not None:
        raise RunError(problem)
    if rank == 0:
        return heartbeat
    places = [(found, ports[found]) for found in own if found in ports]
    return Heartbeat(rank, world_size, silence, places=places, secret=secret, main_host=main_host)


def own_host() -> str:
    """The name of this host, as other ranks accept it."""
    return shortened(socket.gethostname(), MOST_HOST).replace("\n", "") or "localhost"


def _broken_collective(error: BaseException) -> bool:
    """Whether torch raised this error because a peer is gone or late."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "connection closed by peer"))
    )
