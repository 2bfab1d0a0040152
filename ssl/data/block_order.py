"""An order of items for storage that reads in long pieces: a few blocks at a time, shuffled together.

As for the random order (`permutation`), there is no state: an index gives its item alone, on any number of ranks.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.permutation import permuted, permuted_each

_LAYOUTS = 4  # epochs whose order of blocks is kept: threads that read ahead are in two at most

Index = NDArray[np.int64]


class BlockOrder:
    """Maps indices to items of blocks: `blocks` int64[B + 1] are the first items of B blocks, ascending, and the number of items.

    In each epoch the blocks follow each other in an order of its own, and every `buffer` consecutive items of this sequence (at
    its end those that are left) are shuffled: a window. Both are seeded permutations. Every item comes once in an epoch. A window
    has items of at most ceil(buffer / b) + 1 blocks, if these are of b items each.

    An order of blocks takes 16 bytes a block. Raises DataError for a buffer of less than 1, and for blocks that are none.
    """

    def __init__(self, blocks: ArrayLike, buffer: int, seed: int) -> None:
        self.blocks = np.asarray(blocks, np.int64)
        if buffer < 1:
            raise DataError(f"buffer must be 1 or more images, got {buffer}")
        if len(self.blocks) < 2 or self.blocks[0] or (np.diff(self.blocks) < 0).any() or not self.blocks[-1]:
            raise DataError("blocks must start with item 0, ascend, and end with the number of items")
        self.buffer, self.num_items = buffer, int(self.blocks[-1])
        self._block_seed, self._window_key = key("order of blocks", seed), np.uint64(key("order in windows", seed))
        self._layouts: dict[int, tuple[Index, Index]] = {}

    def locate(self, indices: ArrayLike) -> tuple[Index, Index]:
        """Epoch and item of each index: `indices` int64[N] >= 0 in any order, int64[N] each. For calls from several threads."""
        indices = np.asarray(indices, np.int64)
        if indices.size and indices.min() < 0:
            raise ValueError(f"indices must be 0 or more, got {indices.min()}")
        epochs, places = np.divmod(indices, self.num_items)
        windows, within = np.divmod(places, self.buffer)
        first = windows * self.buffer
        keys = fold(fold(self._window_key, epochs), windows)
        places = first + permuted_each(within, np.minimum(self.buffer, self.num_items - first), keys)[1]
        items = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            order, starts = self._layout(epoch)
            turn = np.searchsorted(starts, places[mine], side="right") - 1
            items[mine] = self.blocks[order[turn]] + places[mine] - starts[turn]
        return epochs, items

    def upcoming(self, indices: ArrayLike) -> Index:
        """The first items of the blocks of the last window of these indices and of the window after it, as they come: int64[K].

        For sources that fetch blocks before they are read; a block may come twice.
        """
        indices = np.asarray(indices, np.int64)
        if not indices.size:
            return np.empty(0, np.int64)
        epoch, place = divmod(int(indices.max()), self.num_items)
        first, found = place // self.buffer * self.buffer, []
        for _ in range(2):
            if first >= self.num_items:
                epoch, first = epoch + 1, 0
            order, starts = self._layout(epoch)
            begin = int(np.searchsorted(starts, first, side="right")) - 1
            first += self.buffer
            found.append(order[begin : int(np.searchsorted(starts, first, side="left"))])
        blocks = np.concatenate(found)
        return self.blocks[blocks[np.diff(self.blocks)[blocks] > 0]]

    def _layout(self, epoch: int) -> tuple[Index, Index]:
        """The blocks in the order of an epoch, and the place in the epoch of the first item of each: int64[B] each."""
        layouts = self._layouts  # replaced as a whole, never changed: no lock is needed
        if epoch not in layouts:
            count = len(self.blocks) - 1
            order = permuted(epoch * count + np.arange(count), count, self._block_seed)[1]
            ends = np.cumsum(np.diff(self.blocks)[order])
            starts = np.concatenate([[0], ends[:-1]])
            self._layouts = layouts = dict([*layouts.items(), (epoch, (order, starts))][-_LAYOUTS:])
        return layouts[epoch]
