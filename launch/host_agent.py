"""What `wildfern doctor --hosts` runs on every host: answers questions, a JSON object a line, until its input ends.

Imports nothing heavy, so that it answers at once.
"""

import importlib.metadata
import ipaddress
import json
import platform
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

PACKAGES = ("wildfern", "torch", "deepspeed")


def facts() -> dict[str, object]:
    """Names and versions: `host`, `python`, `address` of the own name (None where it has none), and of each package."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = None
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    loopback = address is not None and ipaddress.ip_address(address).is_loopback
    return {"host": name, "address": address, "loopback": loopback, "python": platform.python_version(), **versions}


class Agent:
    """One conversation; a port that it was asked to listen on stays open until the end of it."""

    def __init__(self) -> None:
        self._door: socket.socket | None = None

    def answer(self, question: dict) -> dict[str, object]:
        """The answer to {"ask": name, …}: the fields asked for, or {"error": text}."""
        asked: dict[str, Callable[..., dict[str, object]]] = {
            "facts": facts,
            "time": lambda: {"time": time.time()},
            "listen": self.listen,
            "connect": self.connect,
            "write": self.write,
            "read": self.read,
            "remove": self.remove,
        }
        arguments = {name: value for name, value in question.items() if name != "ask"}
        try:
            return asked[question["ask"]](**arguments)
        except OSError as error:
            return {"error": error.strerror or str(error)}

    def listen(self, port: int) -> dict[str, object]:
        """Take the port, as the first process of a run would."""
        self._door = socket.create_server(("", port))
        return {}

    def connect(self, address: str, port: int) -> dict[str, object]:
        socket.create_connection((address, port), timeout=10.0).close()
        return {}

    def write(self, path: str, text: str) -> dict[str, object]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
        return {}

    def read(self, path: str) -> dict[str, object]:
        return {"text": Path(path).read_text(encoding="utf-8")}

    def remove(self, path: str) -> dict[str, object]:
        Path(path).unlink()
        return {}


def converse(questions: TextIO, answers: TextIO) -> None:
    """Answer line by line until the questions end."""
    agent = Agent()
    for line in questions:
        print(json.dumps(agent.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    converse(sys.stdin, sys.stdout)
