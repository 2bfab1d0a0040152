"""How two ranks prove to each other over a connection that both belong to this run, and that later messages come from them.

Both know a secret that rank 0 drew and sent through the process group; it never goes over the connection. Rank 0 sends a nonce.
The peer answers with its rank, host, a nonce of its own, and an HMAC-SHA256 of all four; rank 0 proves itself by one of the same
text under another label. Each later message carries an HMAC of its number and its text, with a key for this connection and
direction: a message that was altered, repeated, left out or moved is detected.

This excludes attackers who can connect to the port or listen to the network, but do not know the secret. It does not encrypt:
hosts, ranks and error messages can be read on the network. An attacker who can alter packets can still cut connections, which
ends the run. The process group itself, through which the secret comes, is torch's, and has no authentication.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.printable import printable_lines

MOST_HELLO_BYTES = 1024
MOST_BYTES = 1 << 16  # of one message
MOST_HOST = 255  # characters of a host name
MOST_TEXT = 8000  # characters of a verdict or an error
_HEX = 64  # characters of an HMAC


@dataclass(frozen=True)
class Hello:
    """What a peer says of itself; `proven` by its HMAC."""

    rank: int
    host: str
    nonce: str
    proof: str


@dataclass
class Channel:
    """Messages of one authenticated connection as lines of bytes, with an HMAC each."""

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    sent: int = 0
    received: int = 0

    def sealed(self, message: dict[str, Any]) -> bytes:
        """The line for the next message to the other side."""
        text = json.dumps(message, ensure_ascii=False).encode()
        self.sent += 1
        return _mac(self.sending, self.sent - 1, text) + b" " + text + b"\n"

    def opened(self, line: bytes) -> Any:
        """The message of the next line from the other side, without its line end; ValueError if it did not send that."""
        mac, text = line[:_HEX], line[_HEX + 1 :]
        if not hmac.compare_digest(mac, _mac(self.receiving, self.received, text)):
            raise ValueError("its HMAC is wrong")
        self.received += 1
        return parse_json(text)


def new_nonce() -> str:
    """32 random hexadecimal digits."""
    return secrets.token_hex(16)


def line_of(message: dict[str, Any]) -> bytes:
    """A message of the handshake, as a line."""
    return json.dumps(message).encode() + b"\n"


def parse_nonce(line: bytes) -> str:
    """The nonce that rank 0 sends first. Raises ValueError."""
    return _hexadecimal(_mapping(line, {"nonce"})["nonce"], 32)


def parse_hello(line: bytes) -> Hello:
    """What a peer answers. Raises ValueError for anything that a rank does not send."""
    given = _mapping(line, {"rank", "host", "nonce", "proof"})
    if type(given["rank"]) is not int or given["rank"] < 0:
        raise ValueError("not a rank")
    host = given["host"]
    if not isinstance(host, str) or not host.isprintable() or not 0 < len(host) <= MOST_HOST:
        raise ValueError("not a host name")
    return Hello(given["rank"], host, _hexadecimal(given["nonce"], 32), _hexadecimal(given["proof"], _HEX))


def parse_proof(line: bytes) -> str:
    """What rank 0 sends last. Raises ValueError."""
    return _hexadecimal(_mapping(line, {"proof"})["proof"], _HEX)


class Handshake:
    """The proofs and keys of one connection, which follow from the secret, both nonces, and the peer's rank and host."""

    def __init__(self, secret: bytes, nonce: str, peer_nonce: str, rank: int, host: str) -> None:
        def derived(label: str) -> bytes:
            text = json.dumps([f"wildfern heartbeat: {label}", nonce, peer_nonce, rank, host]).encode()
            return hmac.digest(secret, text, "sha256")

        self.of_main, self.of_peer = derived("rank 0").hex(), derived("peer").hex()
        self._from_main, self._from_peer = derived("messages of rank 0"), derived("messages of the peer")

    def channel(self, main: bool) -> Channel:
        """The messages that follow, for rank 0 (`main`) or for its peer."""
        keys = (self._from_main, self._from_peer) if main else (self._from_peer, self._from_main)
        return Channel(*keys)


def proven(given: str, expected: str) -> bool:
    """Whether a proof is right, in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def shortened(text: str, most: int = MOST_TEXT) -> str:
    """The text within `most` characters, with escapes for all that could change a terminal or is no Unicode."""
    return printable_lines(text[:most])[:most]


def _mac(key: bytes, number: int, text: bytes) -> bytes:
    return hmac.new(key, b"%d " % number + text, hashlib.sha256).hexdigest().encode()


def _mapping(line: bytes, keys: set[str]) -> dict[str, Any]:
    given = parse_json(line)
    if not isinstance(given, dict) or given.keys() != keys:
        raise ValueError(f"not a message with {', '.join(sorted(keys))}")
    return given


def _hexadecimal(value: object, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not set(value) <= set("0123456789abcdef"):
        raise ValueError(f"not {digits} hexadecimal digits")
    return value
