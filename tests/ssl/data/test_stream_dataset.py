"""The torch wrapper of a stream: the same batches in the same order for any number of workers."""

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from wildfern.generators import ImageBatch  # noqa: E402
from wildfern.ssl.data.stream_dataset import stream_dataset  # noqa: E402


class Indices:
    size, num_classes = 2, 5

    def batch(self, indices):
        images = np.repeat((indices % 256).astype(np.uint8), 12).reshape(-1, 2, 2, 3)
        return ImageBatch(images, indices)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers):
    loader = DataLoader(stream_dataset(Indices(), 4, start=3), batch_size=None, num_workers=workers)
    batches = list(islice(loader, 7))
    assert torch.stack([batch["labels"] for batch in batches]).tolist() == [
        [4 * number + row for row in range(4)] for number in range(3, 10)
    ]
    assert batches[0]["images"].dtype == torch.uint8
    assert "masks" not in batches[0]


def test_ranks_take_batches_in_turn_by_number():
    dataset = stream_dataset(Indices(), 2, start=1, stride=3)
    assert [batch["labels"].tolist() for batch in islice(dataset, 3)] == [[2, 3], [8, 9], [14, 15]]
    assert dataset[10]["labels"].tolist() == [20, 21]


def test_a_stream_on_a_gpu_yields_its_tensors_and_refuses_workers():
    class OnGPU(Indices):
        device = "cuda"

        def batch(self, indices):
            batch = super().batch(indices)
            return ImageBatch(torch.from_numpy(batch.images), batch.labels)

    dataset = stream_dataset(OnGPU(), 2)
    assert dataset[3]["images"][:, 0, 0, 0].tolist() == [6, 7]
    assert next(iter(DataLoader(dataset, batch_size=None)))["labels"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="a stream on 'cuda' draws in the training process: use num_workers=0"):
        next(iter(DataLoader(dataset, batch_size=None, num_workers=1)))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_size 0"):
        stream_dataset(Indices(), 0)
