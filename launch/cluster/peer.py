"""The other end of a heartbeat connection, and the messages that ranks send over it."""

import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wildfern.launch.cluster.authentication import MOST_TEXT, Channel


@dataclass
class Peer:
    """The other end of one connection."""

    rank: int
    host: str = "an unknown host"
    connection: socket.socket | None = None
    channel: Channel | None = None
    silent: float = 0.0  # seconds without a beat, not counting those in which this process was stopped itself
    rest: bytes = field(default=b"", repr=False)  # of a message that has not arrived completely
    unsent: bytes = field(default=b"", repr=False)  # of messages that the system has not taken

    def send(self, message: dict) -> None:
        """Send a message, or as much as the system takes; no beat while others wait."""
        if self.connection is None or self.channel is None:
            return
        if not (self.unsent and "beat" in message):
            self.unsent += self.channel.sealed(message)
        with suppress(OSError):  # what arrives, or the silence, tells of a lost peer
            self.unsent = self.unsent[self.connection.send(self.unsent) :]


def checked(message: object, codes: Collection[int]) -> dict[str, Any]:
    """A message with the keys and values that ranks send; `codes` are exit codes. Raises ValueError."""
    if message == {"beat": True} or message == {"bye": True}:
        return message
    if isinstance(message, dict):
        text = message.get("failed", message.get("verdict"))
        right = isinstance(text, str) and len(text) <= MOST_TEXT
        code = message.get("code")
        known = type(code) is int and code in codes
        if message.keys() in ({"verdict", "code"}, {"failed", "code"}) and right and known:
            return message
    raise ValueError("its content is unknown")
