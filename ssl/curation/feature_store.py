"""Features of images by SHA-256, kept in parts as they are extracted, so that none is extracted twice."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from wildfern.files import replacing
from wildfern.printable import printable
from wildfern.ssl.curation.feature_rules import ImageFeatures
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.places import Place, PlacedImages
from wildfern.ssl.curation.similar_pairs import unit_rows
from wildfern.ssl.data.base import Source

FEATURES = "features"
AT_ONCE = 4096  # images of a part
# Gets a source and items int64[n] of it; returns those that can be read, and their features float[m, D].
Extract = Callable[[Source, NDArray[np.int64]], tuple[NDArray[np.int64], Tensor]]


class FeatureStore:
    """The features of one network in `folder`/features. `network` identifies it: its name, and a digest of its weights.

    They are kept at unit length, as float16 has no large and no small numbers.
    """

    def __init__(self, folder: Path, network: str) -> None:
        self._folder, self._network = folder / FEATURES, network
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, tuple[int, int]] = {}
        self._parts: list[NDArray[np.float16]] = []
        names = sorted(self._folder.glob(f"part-{6 * '[0-9]'}.safetensors"))
        self._number = max((int(path.stem.removeprefix("part-")) for path in names), default=-1) + 1
        for path in names:
            try:
                with safe_open(path, "numpy") as found:
                    if (found.metadata() or {}).get("network") != network:
                        continue
                    digests, values = found.get_tensor("sha256"), found.get_tensor("features")
            except (OSError, SafetensorError):  # damaged: extracted again
                continue
            if digests.shape == (len(values), 32) and digests.dtype == np.uint8 and values.ndim == 2:
                self._take(digests, values)

    def __len__(self) -> int:
        return len(self._rows)

    def extract(self, places: Iterator[Place], total: int, extract: Extract, count: Callable[[int, int], None]) -> None:
        """Extract the features of those images that have none yet; `count` is told how many of `total` are done.

        Raises CurationError for features that are NaN or infinite.
        """
        done, waiting = 0, dict[str, Place]()
        for done, place in enumerate(places, 1):
            if place.sha256 not in self._rows:
                waiting.setdefault(place.sha256, place)
            if len(waiting) == AT_ONCE:
                self._extract(list(waiting.values()), extract)
                waiting = {}
                count(done, total)
        if waiting:
            self._extract(list(waiting.values()), extract)
            count(done, total)

    def of(self, digests: Sequence[str | None]) -> ImageFeatures:
        """Those of the images with these SHA-256, float32."""
        images = [n for n, digest in enumerate(digests) if digest in self._rows]
        rows = [self._rows[digests[n] or ""] for n in images]
        values = np.stack([self._parts[part][row] for part, row in rows]) if rows else np.zeros((0, 1), np.float16)
        return ImageFeatures(np.array(images, np.int64), torch.from_numpy(values.astype(np.float32)))

    def _extract(self, places: list[Place], extract: Extract) -> None:
        items, features = extract(PlacedImages(places), np.arange(len(places)))
        if not len(items):
            return
        bad = ~torch.isfinite(features).all(1)
        if bad.any():
            first = places[int(items[int(bad.long().argmax())])]
            raise CurationError(
                f"{self._network}: the features of {printable(first.path)} contain NaN or infinity; use other weights"
            )
        digests = np.frombuffer(b"".join(bytes.fromhex(places[item].sha256) for item in items.tolist()), np.uint8)
        rows = digests.reshape(-1, 32).copy()
        values = np.ascontiguousarray(unit_rows(features).numpy(force=True).astype(np.float16))
        with replacing(self._folder / f"part-{self._number:06d}.safetensors") as path:
            path.write_bytes(
                save({"sha256": rows, "features": values}, {"network": self._network, "format": json.dumps(1)})
            )
        self._number += 1
        self._take(rows, values)

    def _take(self, digests: NDArray[np.uint8], values: NDArray[np.float16]) -> None:
        for row, digest in enumerate(digests):
            self._rows.setdefault(digest.tobytes().hex(), (len(self._parts), row))
        self._parts.append(values)
