"""`wildfern doctor --hosts FILE`: whether the hosts of a hostfile can train together."""

import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wildfern.launch.host_agent import PACKAGES
from wildfern.launch.run_folder import RunError

CLOCK_SECONDS = 2.0  # more between two hosts confuses whoever compares their logs, and the age of files
ANSWER_SECONDS = 60.0


def read_hostfile(path: Path) -> dict[str, int]:
    """Slots by host, in order, of a file of lines `name slots=8` as the deepspeed launcher reads it.

    Raises RunError with the number of the line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read the hostfile {path}: {error}") from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].strip()
        found = re.fullmatch(r"(\S+)\s+slots=(\d+)", words)
        if found and found[1] not in hosts:
            hosts[found[1]] = int(found[2])
        elif words:
            wrong = "names a host a second time" if found else "is not of the form: name slots=8"
            raise RunError(f"{path} line {number} {wrong}: {line.strip()}")
    if not hosts:
        raise RunError(f"{path} names no host: write lines such as: node1 slots=8")
    return hosts


class Conversation:
    """Questions to `host_agent` on one host, over a command that reaches it."""

    def __init__(self, host: str, reach: str) -> None:
        self.host, self.facts = host, {}
        remote = f"cd {shlex.quote(os.getcwd())} && exec {shlex.quote(sys.executable)} -m wildfern.launch.host_agent"
        try:
            words = [word.replace("{host}", host) for word in shlex.split(reach)]
        except ValueError as error:
            raise RunError(f"--reach: {error} in {reach!r}") from error
        if not words or shutil.which(words[0]) is None:
            raise RunError(
                f"--reach: there is no program {words[0] if words else 'named'} here; say how to run a command line on a host, "
                "for instance --reach 'srun --overlap -w {host} -N1 -n1 bash -c' inside a Slurm allocation"
            )
        self.process = subprocess.Popen(
            [*words, remote], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._complaints: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._complain)]
        for reader in self._readers:
            reader.start()

    def ask(self, question: str, seconds: float = ANSWER_SECONDS, **arguments: object) -> dict:
        """The agent's answer, {"error": text} where there is none within so many seconds."""
        try:
            self.process.stdin.write(json.dumps({"ask": question, **arguments}) + "\n")
            self.process.stdin.flush()
            until = time.monotonic() + seconds
            while line := self._answers.get(timeout=max(0.0, until - time.monotonic())):
                if line.startswith("{"):  # what a login prints besides is none
                    return json.loads(line)
        except queue.Empty:
            return {"error": f"no answer within {seconds:.0f} s"}
        except (BrokenPipeError, json.JSONDecodeError):
            pass
        for reader in self._readers:
            reader.join(5.0)
        said = self._complaints[-1] if self._complaints else f"exit code {self.process.wait()}, without a word"
        return {"error": said}

    def close(self) -> None:
        """End the conversation; the agent ends with its input."""
        try:
            self.process.stdin.close()
            self.process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _complain(self) -> None:
        self._complaints += [line.strip() for line in self.process.stderr if line.strip()]


@dataclass
class HostState:
    """What was found of one host: a word or two of each part, sentences of what is wrong, and of what may be."""

    words: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def note(self, part: str, words: str, wrong: str = "") -> None:
        self.words[part] = f"[red]{words}[/]" if wrong else words
        if wrong:
            self.broken.append(wrong)


PARTS = ("reached", "versions", "clock", "port", "folder", "own address")


def examine_hosts(hostfile: Path, reach: str, folder: Path, port: int, console: Console) -> int:
    """Print one line a host; returns 0 when they can train together, else 1.

    `reach` is a command that runs the command line given to it last on `{host}`. `folder` (one that all share, for runs) and
    the working folder are taken to have the same path everywhere; `port` is tried on the first host.
    """
    hosts = read_hostfile(hostfile)
    states = {host: HostState() for host in hosts}
    conversations = {host: Conversation(host, reach) for host in hosts}
    try:
        reached = [c for c in conversations.values() if _reached(c, states[c.host])]
        if reached:
            _compare_versions(states, reached)
            _compare_clocks(states, reached)
            _try_port(states, conversations[next(iter(hosts))], reached, port)
            _try_folder(states, reached, folder.absolute())
    finally:
        for conversation in conversations.values():
            conversation.close()
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "slots", *PARTS):
        table.add_column(heading)
    for host, slots in hosts.items():
        table.add_row(host, str(slots), *(states[host].words.get(part, "–") for part in PARTS))
    console.print(table)
    broken = [f"{host}: {what}" for host, state in states.items() for what in state.broken]
    advice = [f"{host}: {what}" for host, state in states.items() for what in state.advice]
    for line in broken + advice:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(broken)} thing(s) to mend" if broken else f"ready to train on {len(hosts)} host(s)")
    return 1 if broken else 0


def _reached(conversation: Conversation, state: HostState) -> bool:
    conversation.facts = answer = conversation.ask("facts")
    if "error" in answer:
        state.note("reached", "no", f"cannot be reached, or has no wildfern there: {answer['error']}")
        return False
    state.note("reached", f"as {answer['host']}")
    state.note("own address", answer["address"] or "none")
    if answer["loopback"]:
        state.advice.append(
            f"its own name stands for {answer['address']}, where no other host finds it: set GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME to the network between the hosts"
        )
    return True


def _compare_versions(states: dict[str, HostState], reached: Sequence[Conversation]) -> None:
    """Against those of the first host that was reached."""
    first = reached[0].facts
    for conversation in reached:
        facts = conversation.facts
        wrong = [f"no {package}" for package in PACKAGES if facts[package] is None]
        wrong += [
            f"{name} {facts[name]}, but {first[name]} on {reached[0].host}"
            for name in ("python", *PACKAGES)
            if facts[name] not in (None, first[name])
        ]
        states[conversation.host].note("versions", "differ" if wrong else "equal", "; ".join(wrong))


def _compare_clocks(states: dict[str, HostState], reached: Sequence[Conversation]) -> None:
    """Against this machine's, to about half of the time that a question takes there and back."""
    for conversation in reached:
        asked = time.time()
        answer = conversation.ask("time")
        between = (asked + time.time()) / 2
        if "error" in answer:
            states[conversation.host].note("clock", "–", f"did not say the time: {answer['error']}")
            continue
        off = answer["time"] - between
        wrong = f"its clock is {off:+.1f} s off this machine's: set it by NTP" if abs(off) > CLOCK_SECONDS else ""
        states[conversation.host].note("clock", f"{off:+.2f} s", wrong)


def _try_port(states: dict[str, HostState], first: Conversation, reached: Sequence[Conversation], port: int) -> None:
    """Taken on the first host, reached from the others."""
    if first not in reached:
        return
    error = first.ask("listen", port=port).get("error")
    wrong = f"port {port} cannot be listened on: {error}; choose another with --port and --master_port" if error else ""
    states[first.host].note("port", "taken" if error else "free", wrong)
    if error:
        return
    for conversation in reached:
        if conversation is not first:
            error = conversation.ask("connect", address=first.host, port=port).get("error")
            wrong = f"does not reach {first.host} port {port}: {error}" if error else ""
            states[conversation.host].note("port", "not reached" if error else "reached", wrong)


def _try_folder(states: dict[str, HostState], reached: Sequence[Conversation], folder: Path) -> None:
    """Written on one host, read on the others."""
    writer, token = reached[0], os.urandom(8).hex()
    file = str(folder / f".wildfern-doctor-{token}")
    error = writer.ask("write", path=file, text=token).get("error")
    states[writer.host].note("folder", "no" if error else "written", f"cannot write {folder}: {error}" if error else "")
    if error:
        return
    for conversation in reached[1:]:
        seen = conversation.ask("read", path=file).get("text") == token
        wrong = (
            f"does not see in {folder} what {writer.host} wrote there: choose with --folder one that all hosts share"
        )
        states[conversation.host].note("folder", "the same" if seen else "another", "" if seen else wrong)
    writer.ask("remove", path=file)
