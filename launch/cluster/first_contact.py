"""Before the process group exists: all ranks have read the same recipe, or all end with one message.

An error of one rank alone (a recipe file or a folder that one host lacks) would otherwise leave the others waiting for it. The
ranks meet in the store of the launcher's address and port, in which torch's process group meets afterwards.
"""

import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from wildfern.bounded_json import parse_json
from wildfern.launch.cluster.distributed import ONE_ENGINE, said
from wildfern.launch.cluster.launcher_environment import several_processes
from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.registry import loaded_plugin

FAILED_SECONDS = 30.0  # for which a rank that has failed waits for the others to learn of it
SHOWN = 8
UNUSED = {"plugins", "tracking"}  # plugins are compared by content; only rank 0 tracks
WEIGHTS = "model.weights"  # their content is compared when they are read


@contextmanager
def read_by_all(read: Callable[[], Recipe]) -> Iterator[Recipe]:
    """The recipe that `read` returns, after every rank has read the same one; the process group is to be made inside the block.

    Alone, it calls `read` and nothing else. Otherwise raises its error where it is, and RunError on the other ranks; RunError on
    every rank for other recipes than that of rank 0, naming the keys.
    """
    if not several_processes(os.environ):
        yield read()
        return
    recipe, error = None, None
    try:
        recipe = read()
        if recipe.engine.name != "deepspeed":
            raise RunError(ONE_ENGINE)
    except (ValueError, OSError) as caught:
        error = caught
    seconds = FAILED_SECONDS if recipe is None else 60.0 * recipe.engine.arguments.get("timeout_minutes", 1.0)
    try:
        contact = _Contact(seconds)
        problem = contact.verdict(recipe, error)
    except RuntimeError as caught:
        if error is not None:
            raise error from None
        from wildfern.ssl.training.deepspeed_engine import not_all_connected

        raise RunError(not_all_connected(seconds / 60, caught)) from caught
    if error is not None:
        raise error
    if problem is not None:
        raise RunError(problem)
    assert recipe is not None
    yield recipe


class _Contact:
    """The store, in which rank 0 collects what each rank has read, and answers with a problem or none.

    A launcher that starts the processes again after a failure may give them the same store, with what the failed ones wrote.
    """

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        found = torch.distributed.rendezvous("env://", timeout=timedelta(seconds=seconds))
        store, self.rank, self.world_size = next(iter(found))
        self.shared = torch.distributed.PrefixStore("wildfern", store)
        self.start = secrets.token_hex(8)
        if self.rank:  # under a name of its own, which no earlier start of the processes has answered
            self.shared.set(f"start of {self.rank}", self.start)
            self.shared.wait([self.start], self._left())
            self.start = self.shared.get(self.start).decode()
        self.store = torch.distributed.PrefixStore(self.start, self.shared)

    def verdict(self, recipe: Recipe | None, error: Exception | None) -> str | None:
        """The problem of any rank, None if there is none; called by all ranks. Raises RuntimeError if it is not known in time."""
        own = {"host": socket.gethostname()}
        own |= {"error": said(error, self.rank)} if recipe is None or error is not None else {"keys": described(recipe)}
        self.store.set(f"read by {self.rank}", json.dumps(own))
        if self.rank == 0:
            found = []
            for rank in range(self.world_size):
                self._answer(rank)
                found.append(parse_json(self.store.get(f"read by {rank}")))
            problem = difference(found)
            self.store.set("problem", problem or "")
            if problem is not None:  # the store ends with this process
                until = time.monotonic() + FAILED_SECONDS
                while self.store.add("known", 0) < self.world_size - 1 and time.monotonic() < until:
                    time.sleep(0.02)
            return problem
        self.store.wait(["problem"], self._left())
        problem = self.store.get("problem").decode() or None
        self.store.add("known", 1)
        return problem

    def _answer(self, rank: int) -> None:
        """Tell a rank under which name the ranks of this start meet, until it has written there what it has read."""
        named, wanted = f"start of {rank}", f"read by {rank}"
        while not self.store.check([wanted]):
            if self.shared.check([named]):  # perhaps by an earlier start, until the rank writes its own
                self.shared.set(self.shared.get(named).decode(), self.start)
            if time.monotonic() >= self.until:
                self.store.wait([wanted], self._left())
            time.sleep(0.01)

    def _left(self) -> timedelta:
        return timedelta(seconds=max(0.01, self.until - time.monotonic()))


def described(recipe: Recipe) -> dict[str, str]:
    """What must be the same on every rank: values by recipe key, and the content of plugin files by name.

    Where data and weights are may differ (a disk of each host): the files are compared, not their path.
    """
    keys: dict[str, str] = {}
    for section, value in recipe.as_dict().items():
        if section not in UNUSED:
            keys |= _flat(section, value)
    keys.pop(WEIGHTS, None)
    for path in recipe.plugins:
        if (plugin := loaded_plugin(path)) is not None:
            keys[f"the plugin {plugin.path.name}"] = f"SHA-256 {plugin.sha256[:12]}"
    return keys


def difference(found: list[dict[str, Any]]) -> str | None:
    """The first error, or in which keys a rank's recipe is another than that of rank 0; None if there is none."""
    if errors := [one["error"] for one in found if "error" in one]:
        return str(errors[0])
    main = found[0]
    for rank, one in enumerate(found):
        if one["keys"] != main["keys"]:
            names = [key for key in main["keys"] | one["keys"] if main["keys"].get(key) != one["keys"].get(key)]
            shown = [
                f"{key} is {one['keys'].get(key, 'not set')} there and {main['keys'].get(key, 'not set')} on rank 0"
                for key in names[:SHOWN]
            ]
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            where = f"rank {rank} on host {one['host']} has another recipe than rank 0 on host {main['host']}"
            return f"{where}: {', '.join(shown)}{more}. Every host needs the same recipe and plugin files and the same command"
    return None


def _flat(key: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {name: text for part, inner in value.items() for name, text in _flat(f"{key}.{part}", inner).items()}
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return {name: text for n, inner in enumerate(value) for name, text in _flat(f"{key}.{n}", inner).items()}
    text = json.dumps(value, default=str)
    if key.rpartition(".")[2] == "source" or key.startswith("evaluation.on"):
        text = text.partition(":")[0].strip('"')
    return {
        key: text if len(text) <= 80 else f"{text[:60]}… (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
    }
