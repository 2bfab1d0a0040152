"""Images of evaluation sets, to find which images of a curation are also in them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.duplicates import QUALITY
from wildfern.ssl.curation.hash_pairs import hash_pairs, same_small
from wildfern.ssl.curation.manifest import SMALL, CurationError
from wildfern.ssl.curation.measure import pixels_sha256
from wildfern.ssl.curation.policy import Duplicates
from wildfern.ssl.curation.values import values_of
from wildfern.ssl.data.base import Source
from wildfern.ssl.tracking.current_progress import current_progress

_AT_ONCE = 256
_PAIRS = 1 << 14


@dataclass(frozen=True)
class EvaluationImages:
    """n images: a name of each, and as in the manifest hashes uint64[n], small uint8[n, 16, 16, 3] and digests of the pixels.

    `featured` bool[n]: those whose hashes say something.
    """

    names: list[str]
    hashes: NDArray[np.uint64]
    small: NDArray[np.uint8]
    digests: dict[str, int]
    featured: NDArray[np.bool_]

    @classmethod
    def of(cls, sources: Iterable[tuple[str, Source]]) -> "EvaluationImages":
        """All images of these sources, by their names. Raises CurationError for an endless one."""
        names, hashes, small, featured = list[str](), list[int](), list[NDArray[np.uint8]](), list[bool]()
        digests: dict[str, int] = {}
        progress = current_progress()
        for name, source in sources:
            if source.num_items is None:
                raise CurationError(f"leak.against: {name} is endless; name a finite evaluation set")
            for start in range(0, source.num_items, _AT_ONCE):
                items = np.arange(start, min(start + _AT_ONCE, source.num_items))
                for item, pixels in zip(items.tolist(), source.read(items).as_lists().pixels, strict=True):
                    rgb = _rgb(np.asarray(pixels))
                    values = values_of(rgb)
                    digests.setdefault(pixels_sha256(rgb), len(names))
                    names.append(f"{name} image {item}")
                    hashes.append(values.phash)
                    small.append(np.frombuffer(values.small, np.uint8))
                    featured.append(values.phash_quality >= QUALITY)
                progress.count(start + len(items), source.num_items, "images", f"reading {name}")
        progress.detail("")
        stacked = np.stack(small) if small else np.zeros((0, 3 * SMALL * SMALL), np.uint8)
        return cls(
            names, np.array(hashes, np.uint64), stacked.reshape(-1, SMALL, SMALL, 3), digests, np.array(featured, bool)
        )

    def matches(
        self, hashes: NDArray[np.uint64], small: NDArray[np.uint8], rule: Duplicates
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Which of n images uint64[n], uint8[n, 16, 16, 3] are copies of which of these: places, numbers, and the difference."""
        there = np.flatnonzero(self.featured)
        pairs = hash_pairs(hashes, rule.bits, self.hashes[there])
        differences = np.concatenate(
            [np.zeros(0, np.float32)]
            + [
                same_small(small[some[:, 0]], self.small[there[some[:, 1]]])
                for some in (pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS))
            ]
        )
        near = differences <= rule.difference
        return pairs[near, 0], there[pairs[near, 1]], differences[near]


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[H, W, 3] of an image uint8[H, W, C]: its first three channels, or the first as gray."""
    return np.ascontiguousarray(pixels[..., :3]) if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
