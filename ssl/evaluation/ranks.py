"""The processes that extract features together: each reads every W-th chunk of the images, and rank 0 gets all results."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Ranks(Protocol):
    """W processes, of which rank 0 evaluates. All methods are called by all of them, in the same order."""

    rank: int
    world_size: int

    def raise_on_all(self, error: Exception | None) -> None:
        """Raise an error of any rank on every rank."""

    def gather(self, value: Any) -> list[Any]:
        """The value of each rank, by rank; empty except on rank 0."""


class OneProcess:
    """A process alone."""

    rank, world_size = 0, 1

    def raise_on_all(self, error: Exception | None) -> None:
        if error is not None:
            raise error

    def gather(self, value: T) -> list[T]:
        return [value]


ALONE = OneProcess()


def hand_over(parts: Iterator[tuple[int, T]], chunks: int, ranks: Ranks, take: Callable[[T], None]) -> None:
    """Give `take` on rank 0 the parts of all ranks, by the number of their chunk.

    `parts` are those of this rank, each with the number of its chunk: of rank, rank + W, … below `chunks`, some of which may
    have none. The ranks compute one part each at the same time, then hand them over, so that each holds one. A ValueError or
    OSError of one, or of `take`, is raised on all.
    """
    if ranks.world_size == 1:
        for _, part in parts:
            take(part)
        return
    ahead: tuple[int, T] | None = None
    error: Exception | None = None
    for first in range(0, chunks, ranks.world_size):
        try:
            ahead = next(parts, None) if ahead is None else ahead
        except (ValueError, OSError) as caught:
            error = caught
        ranks.raise_on_all(error)
        mine = None
        if ahead is not None and ahead[0] == first + ranks.rank:
            mine, ahead = ahead[1], None
        try:
            for part in ranks.gather(mine):
                if part is not None:
                    take(part)
        except (ValueError, OSError) as caught:
            error = caught
    ranks.raise_on_all(error)
