"""Processes that listen to one another's heartbeat: one that dies, is stopped or cut off is named, and ends the run.

Rank 0 holds a TCP connection to each other rank, apart from those that gradients travel on. A thread in every process sends a
beat along it and listens for the other side's. A connection that closes without a farewell, or is silent for too long, gives
the verdict; rank 0 passes it on, and every process prints it and leaves, wherever its main thread may be waiting. A rank that
loses rank 0 itself gives the verdict alone.
"""

import hmac
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

LOST = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with the command, try again
FAILED = 1
GRACE_SECONDS = 5.0  # for the others of a process that failed: most meet the same error, and say it better themselves
LAST_WORDS_SECONDS = 2.0
CLOSED = "its connection closed (killed, or crashed)"
MOST_BYTES = 1 << 16  # of one message; whoever sends more is none of ours


class ProcessLost(RuntimeError):
    """A process of this run is gone, or cannot be reached; the run ends, and its checkpoints are whole."""

    exit_code = LOST


def end_process(text: str, exit_code: int) -> None:
    """Say it and leave, from whatever thread: the main thread may be inside an operation that does not return."""
    print(text, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(exit_code)


@dataclass
class Peer:
    """The other end of one connection."""

    connection: socket.socket | None
    rank: int
    host: str = "an unknown host"
    silent: float = 0.0  # seconds, of those in which this process was awake itself
    rest: bytes = field(default=b"", repr=False)  # of a message that has not come whole


class Heartbeat:
    """The beat of one process among `world_size`; a context around everything that the processes do together.

    Rank 0 gives `address=None` and listens; the others give rank 0's (host, port), its `token` and the name of its host.
    `silence`: seconds without a beat after which a process counts as lost. `end(text, exit_code)` ends this process, with
    exit code 75 when another is lost and 1 when another failed. `leave()` says farewell; after it nobody is missed.
    Leaving the `with` block by an error tells the others, and turns a broken collective into ProcessLost.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        silence: float,
        *,
        address: tuple[str, int] | None = None,
        token: str | None = None,
        lead_host: str = "",
        end: Callable[[str, int], None] = end_process,
    ) -> None:
        self.rank, self.silence, self.token = rank, silence, token or os.urandom(16).hex()
        self.host = socket.gethostname()
        self._interval = min(max(silence / 20, 0.05), 5.0)
        self._end = end
        self._farewell: dict | None = None
        self._sentence: tuple[float, str, int] | None = None  # when, text, exit code
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ)
        if address is None:
            self._peers = {other: Peer(None, other) for other in range(world_size) if other != rank}
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            self._door = socket.create_server(("", 0), family=family, backlog=world_size, dualstack_ipv6=dual)
            self._selector.register(self._door, selectors.EVENT_READ)
            self.port = self._door.getsockname()[1]
        else:
            self._door = None
            try:
                connection = socket.create_connection(address, timeout=min(silence, 30.0))
            except OSError as error:
                raise ProcessLost(
                    f"rank {rank} on host {self.host} cannot reach rank 0 on host {lead_host} at {address[0]} port "
                    f"{address[1]}: {error}. Processes connect to each other on any port: let a firewall between the hosts "
                    "pass them"
                ) from error
            self._peers = {0: Peer(connection, 0, lead_host)}
            connection.sendall(_line({"token": self.token, "rank": rank, "host": self.host}))
            self._listen_to(self._peers[0])
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self, farewell: dict | None = None) -> None:
        """Go in an orderly way: the others hear it and miss nobody. A second call does nothing."""
        if self._farewell is None:
            self._farewell = farewell or {"bye": True}
            with suppress(OSError):  # a thread that has ended listens no more
                self._wake.send(b"x")
            self._thread.join()
            self._wake.close()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._farewell is not None:
            self.leave()
        elif _broken_collective(error):  # who broke it may be heard of a little later than that it broke
            self._over.wait(self.silence)
            self.leave({"bye": True})
            first = str(error).strip().splitlines()[0]
            raise ProcessLost(
                f"rank {self.rank} on host {self.host} lost its connection to the others, which are still there: {first}. "
                "Go on with the same command and --resume"
            ) from error
        else:
            what = f"{kind.__name__}: {error}"[:2000]
            self.leave({"failed": f"rank {self.rank} on host {self.host} failed: {what}"})

    def _run(self) -> None:
        before = beat = time.monotonic()
        while self._farewell is None and not self._over.is_set():
            for ready, _ in self._selector.select(self._interval):
                if ready.fileobj is self._door:
                    self._open_door()
                elif ready.data is not None:
                    self._hear(ready.data)
            now = time.monotonic()
            # A process that was stopped itself, or held up, must not blame the others for the time.
            passed, before = min(now - before, 2 * self._interval), now
            for peer in self._peers.values():
                peer.silent += passed
            if now >= beat:
                beat = now + self._interval
                self._tell_all({"beat": True})
            self._judge(now)
        if self._farewell is not None and not self._over.is_set():
            self._last_words(self._farewell)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _judge(self, now: float) -> None:
        if self._sentence is not None and now >= self._sentence[0]:
            _, text, exit_code = self._sentence
            self._pronounce(text, exit_code)
        elif any(peer.silent > self.silence for peer in self._peers.values()):
            lost = [peer for peer in self._peers.values() if peer.silent > 0.8 * self.silence]
            hosts: dict[str, list[str]] = {}
            for peer in lost:
                hosts.setdefault(peer.host, []).append(str(peer.rank))
            who = "; ".join(f"rank {', '.join(ranks)} on host {host}" for host, ranks in hosts.items())
            self._gone(f"{who}: not heard from for {self.silence:.0f} s (stopped, or cut off from the network)")

    def _gone(self, what: str) -> None:
        self._pronounce(f"{what}. The run ends here; go on with the same command and --resume", LOST)

    def _pronounce(self, text: str, exit_code: int) -> None:
        if not self._over.is_set():
            self._over.set()
            self._last_words({"verdict": text, "code": exit_code})
            self._end(text, exit_code)

    def _open_door(self) -> None:
        connection, _ = self._door.accept()
        self._listen_to(Peer(connection, -1))

    def _listen_to(self, peer: Peer) -> None:
        peer.connection.setblocking(False)
        peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        self._peers.pop(peer.rank, None)

    def _hear(self, peer: Peer) -> None:
        try:
            arrived, why = peer.connection.recv(MOST_BYTES), CLOSED
        except ConnectionResetError:  # how a system closes for a process that ended with beats unread
            arrived, why = b"", CLOSED
        except OSError as error:
            arrived, why = b"", f"its connection broke ({error})"
        *lines, peer.rest = (peer.rest + arrived).split(b"\n")
        for line in lines:
            if not self._understand(peer, line):
                return
        if not arrived or len(peer.rest) > MOST_BYTES:
            known = peer.rank in self._peers
            self._drop(peer)
            if known and self._sentence is None:
                self._gone(f"rank {peer.rank} on host {peer.host} is gone: {why}")

    def _understand(self, peer: Peer, line: bytes) -> bool:
        """Act on one message; False when nothing more is to be heard from this peer."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if peer.rank == -1:
            return self._introduce(peer, message)
        peer.silent = 0.0
        if not isinstance(message, dict) or "bye" in message:
            self._drop(peer)
            return False
        if "verdict" in message:
            self._pronounce(str(message["verdict"]), int(message["code"]))
            return False
        if "failed" in message and self._sentence is None:
            text = str(message["failed"])
            self._sentence = (time.monotonic() + min(GRACE_SECONDS, self.silence), text, FAILED)
            self._tell_all({"failed": text})
        return True

    def _introduce(self, peer: Peer, message: object) -> bool:
        """Take a connection as that of the rank it names, if it knows the token and the rank is still awaited."""
        given = message if isinstance(message, dict) else {}
        awaited = self._peers.get(given["rank"]) if isinstance(given.get("rank"), int) else None
        known = hmac.compare_digest(str(given.get("token")).encode(), self.token.encode())
        if not known or awaited is None or awaited.connection is not None:
            self._drop(peer)
            return False
        peer.rank, peer.host = awaited.rank, str(given.get("host"))
        self._peers[peer.rank] = peer
        return True

    def _tell_all(self, message: dict) -> None:
        for peer in self._peers.values():
            if peer.connection is not None:
                with suppress(OSError):  # whether it is gone is for `_hear` and the silence to say
                    peer.connection.send(_line(message))

    def _last_words(self, message: dict) -> None:
        """Tell all, and wait until they have heard: to close a connection with beats unread in it would erase the message."""
        self._tell_all(message)
        listening = {p.connection for p in self._peers.values() if p.connection and p.silent < self.silence / 2}
        until = time.monotonic() + LAST_WORDS_SECONDS
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
    """The heartbeat of this process; called on every rank of an initialized process group.

    `address` is how the others reach rank 0's host. Raises ProcessLost where rank 0 cannot be reached.
    """
    from torch.distributed import broadcast_object_list

    if rank == 0:
        heartbeat = Heartbeat(0, world_size, silence)
        broadcast_object_list([(heartbeat.port, heartbeat.token, heartbeat.host)], src=0)
        return heartbeat
    told: list = [None]
    broadcast_object_list(told, src=0)
    port, token, lead_host = told[0]
    return Heartbeat(rank, world_size, silence, address=(address, port), token=token, lead_host=lead_host)


def _line(message: dict) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _broken_collective(error: BaseException) -> bool:
    """Whether an error is what torch raises in a process whose peers are gone or late."""
    import torch

    told = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in told for word in ("gloo", "nccl", "connection closed by peer"))
    )
