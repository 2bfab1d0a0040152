"""A generator stream as a source: endless, item i is sample i of the stream.

Labels (also multi-hot), masks, parameters and the second images of positive pairs are passed through.
"""

from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.data.base import Images, Source, Split

TEST_START = 2**40  # first sample of the test split; no training run gets this far
_NAMED_CLASSES = 100_000  # no list of class names beyond: a stream may have 2**62 classes


class Stream(Protocol):
    """What `wildfern.generators.make_stream` returns."""

    size: int
    num_classes: int | None

    def batch(self, indices: NDArray[np.int64]) -> Any: ...


class ParameterStream(Stream, Protocol):
    """A stream with `parameter_names`."""

    def parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float32]: ...


class SyntheticSource(Source):
    """Images drawn by a stream; the test split is the same stream at indices that training never reaches."""

    def __init__(self, stream: Stream, split: Split = "train") -> None:
        super().__init__()
        self.stream = stream
        self._start = TEST_START if split == "test" else 0
        if stream.num_classes is not None and stream.num_classes <= _NAMED_CLASSES:
            self.class_names = [str(label) for label in range(stream.num_classes)]
        self.parameter_names = getattr(stream, "parameter_names", ())

    @property
    def fixed_size(self) -> bool:
        return True

    @property
    def num_classes(self) -> int | None:
        return self.stream.num_classes

    def read(self, items: ArrayLike) -> Images:
        indices = np.asarray(items, np.int64) + self._start
        batch = self.stream.batch(indices)
        images = Images(batch.images, batch.labels, batch.paired_images, batch.masks)
        if self.reads_parameters and self.parameter_names:
            return replace(images, parameters=cast(ParameterStream, self.stream).parameters(indices))
        return images
