"""The processes of a run: which rank this is, its device and threads, and what all ranks do together."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from wildfern.launch.cluster.heartbeat import Heartbeat, join_heartbeat
from wildfern.launch.cluster.launcher_environment import check_complete, number_of, several_processes
from wildfern.launch.cluster.versions import check_same_versions
from wildfern.launch.device import choose_device
from wildfern.launch.errors import RunError
from wildfern.launch.threads import set_threads
from wildfern.recipes import Recipe
from wildfern.ssl.training.long_timeout_group import long_timeout_group

T = TypeVar("T")

ONE_ENGINE = "several processes were started, but engine.name is torch: set engine.name=deepspeed"


@dataclass(frozen=True)
class DistributedContext:
    """Rank, world size and device of this process."""

    rank: int
    world_size: int
    device: torch.device
    heartbeat: Heartbeat | None = None  # with several processes
    notes: Sequence[str] = ()  # about its threads

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files, evaluates and prints."""
        return self.rank == 0

    def leave(self) -> None:
        """Leave the heartbeat after the last collective; ranks may then exit at different times."""
        if self.heartbeat is not None:
            self.heartbeat.leave()

    def heartbeat_ended(self) -> bool:
        """Whether the heartbeat of this rank has failed: the run must stop before the others miss its beats."""
        return self.heartbeat is not None and self.heartbeat.ended is not None

    def ended_heartbeats(self) -> list[str]:
        """Which heartbeats have failed, and how; called by all ranks."""
        found = self.heartbeat and (self.rank, self.heartbeat.host, self.heartbeat.ended)
        return [
            f"the heartbeat of rank {rank} on host {host} ended: {why}"
            for rank, host, why in filter(None, self.all_gather(found))
            if why is not None
        ]

    def barrier(self) -> None:
        """Wait until every rank has called it, without the collective timeout."""
        if self.world_size > 1:
            torch.distributed.barrier(group=long_timeout_group())

    def broadcast_from_main(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0, broadcast the result, re-raise its ValueError or OSError on every rank. No collective timeout."""
        found, error = [None], None
        if self.is_main:
            try:
                found = [work()]
            except (ValueError, OSError) as caught:
                error = caught
        self.raise_on_all(error)
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0, group=long_timeout_group())
        return found[0]

    def raise_on_all(self, error: Exception | None) -> None:
        """Raise an error of any rank on every rank: where it is as it is, elsewhere as a RunError with its message.

        The message names the rank and its host, unless it is rank 0. Called by all ranks; no collective timeout.
        """
        if self.world_size > 1:
            messages = self.all_gather(None if error is None else said(error, self.rank))
            if error is None and (found := [message for message in messages if message is not None]):
                raise RunError(found[0])
        if error is not None:
            raise error

    def all_gather(self, value: T) -> list[T]:
        """Each rank's `value`, by rank. No collective timeout."""
        if self.world_size == 1:
            return [value]
        values: list = [None] * self.world_size
        torch.distributed.all_gather_object(values, value, group=long_timeout_group())
        return values

    def gather(self, value: T) -> list[T]:
        """Each rank's `value`, by rank, on rank 0; empty elsewhere. No collective timeout."""
        if self.world_size == 1:
            return [value]
        values: list | None = [None] * self.world_size if self.is_main else None
        torch.distributed.gather_object(value, values, dst=0, group=long_timeout_group())
        return values or []


def said(error: Exception, rank: int) -> str:
    """The message of an error for the other ranks, with rank and host unless it is of rank 0."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return text if rank == 0 else f"rank {rank} on host {socket.gethostname()}: {text}"


@contextmanager
def started(recipe: Recipe) -> Iterator[DistributedContext]:
    """The processes of a run, with a heartbeat between them where there are several."""
    context = start(recipe)
    with context.heartbeat or nullcontext():
        if context.world_size > 1:
            check_same_versions(context.all_gather)
        yield context


def start(recipe: Recipe) -> DistributedContext:
    """Join the process group if the engine has one, and set this process's device and threads."""
    device = choose_device(recipe.training.device)
    rank, world_size = 0, 1
    if recipe.engine.name == "deepspeed":
        from wildfern.ssl.training.deepspeed_engine import start_processes

        if os.environ.get("RANK"):
            check_complete(os.environ)
        rank, local_rank, world_size = start_processes(device.type, recipe.engine.arguments["timeout_minutes"])
        if device.type == "cuda":
            device = own_gpu(local_rank)
            torch.cuda.set_device(device)
    elif several_processes(os.environ):
        raise RunError(ONE_ENGINE)
    name = next((name for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE") if name in os.environ), None)
    local = world_size if name is None else number_of(os.environ, name, 1)
    notes = set_threads(recipe.training.threads, local if world_size > 1 else 1)
    if world_size == 1:
        return DistributedContext(rank, world_size, device, notes=notes)
    # Half of the collective timeout: a lost rank is named before the other ranks time out.
    silence = 30.0 * recipe.engine.arguments["timeout_minutes"]
    return DistributedContext(
        rank, world_size, device, join_heartbeat(rank, world_size, os.environ["MASTER_ADDR"], silence), notes
    )


def own_gpu(local_rank: int) -> torch.device:
    """The GPU of the local rank, or the only visible one where the batch system assigns one GPU to each process."""
    visible = torch.cuda.device_count()
    if visible > 1 and local_rank >= visible:
        raise RunError(f"at least {local_rank + 1} processes were started on this host, which has {visible} GPUs")
    return torch.device("cuda", local_rank if visible > 1 else 0)
