"""A generator stream as a torch dataset, for other training loops."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from wildfern.ssl.data.synthetic import Stream


class StreamDataset(IterableDataset):
    """Endless batches of a stream: batch b has the samples [b·B, (b+1)·B), in any process and any order.

    Use with `DataLoader(dataset, batch_size=None, num_workers=W)`: worker w makes batches start + w, start + w + W, …, so the
    loader yields start, start + 1, … for any W. On rank r of R give each rank its own `start` and `stride` (r and R).
    A stream on a GPU yields its images there and needs no workers: it raises ValueError in a worker.
    """

    def __init__(self, stream: Stream, batch_size: int, start: int = 0, stride: int = 1) -> None:
        super().__init__()
        if batch_size < 1 or start < 0 or stride < 1:
            raise ValueError(
                f"batch_size {batch_size} and stride {stride} must be at least 1, and start {start} at least 0"
            )
        self.stream, self.batch_size, self.start, self.stride = stream, batch_size, start, stride

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Batch `number`: "images" uint8[B, S, S, 3], and "labels", "masks" … if the stream has them; see `ImageBatch`."""
        first = number * self.batch_size
        batch = self.stream.batch(np.arange(first, first + self.batch_size, dtype=np.int64))
        return {name: torch.as_tensor(array) for name, array in batch.arrays().items()}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        device = getattr(self.stream, "device", "cpu")
        if worker is not None and device != "cpu":
            raise ValueError(
                f"a stream on {device!r} draws in the training process: use num_workers=0, or device='cpu'"
            )
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        batch = self.start + number * self.stride
        while True:
            yield self[batch]
            batch += workers * self.stride


def stream_dataset(stream: Stream, batch_size: int, start: int = 0, stride: int = 1) -> StreamDataset:
    """A stream of `wildfern.generators.make_stream` for a torch DataLoader; see StreamDataset."""
    return StreamDataset(stream, batch_size, start, stride)
