"""Features of a split, in memory up to a limit and in a file beyond it; with a folder they are kept and found again."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.bounded_json import parse_json
from wildfern.files import read_bytes
from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.spilled_array import GIB, MemoryBudget, SpilledArray, mapped

MOST_DESCRIPTION = 2**24  # bytes
ROWS, LABELS, ITEMS, DESCRIPTION = "rows", "labels.npy", "items.npy", "features.json"
PARTIAL = ".partial_"


@dataclass(frozen=True)
class StoredFeatures:
    """Features, the items int64[N] of their source, and the notes that were stored with them, such as unreadable images."""

    features: Features
    items: NDArray[np.int64]
    notes: dict[str, Any] = field(default_factory=dict)


class FeatureStore:
    """Features of evaluations. At most the bytes of `memory` are kept there; further ones are files, mapped into memory.

    With a `folder`, features that have a key are files there and are found by later evaluations; beyond `disk` bytes those
    that were not used for longest are removed. Without one, files are temporary and vanish with their features.
    """

    def __init__(
        self, folder: Path | str | None = None, memory: MemoryBudget | None = None, disk: int = 20 * GIB
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.memory = MemoryBudget() if memory is None else memory
        self.disk = disk
        self.found = 0  # how often features were found

    def find(self, key: str | None) -> StoredFeatures | None:
        """What was stored under this key; None if there is none, or if it is incomplete."""
        if self.folder is None or key is None:
            return None
        found = self.read(key)
        self.found += found is not None
        return found

    def read(self, key: str) -> StoredFeatures | None:
        """What was stored under this key in the folder; None if there is none, or if it is incomplete."""
        assert self.folder is not None
        entry = self.folder / key
        try:
            described = parse_json(read_bytes(entry / DESCRIPTION, MOST_DESCRIPTION))
            rows, width = described["shape"]
            x = torch.from_numpy(mapped(entry / ROWS, np.float32, (rows, width)))
            y = torch.from_numpy(np.load(entry / LABELS, allow_pickle=False))
            items = np.load(entry / ITEMS, allow_pickle=False)
            found = StoredFeatures(Features(x, y), items, described["notes"])
            os.utime(entry)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def writer(self, key: str | None = None, device: torch.device | str = "cpu") -> "FeatureWriter":
        """Collects the features of one split; those in memory are on `device`."""
        return FeatureWriter(self, key, torch.device(device))

    def make_room(self, keep: Path) -> None:
        """Remove the entries that were not used for longest, until the folder has at most `disk` bytes; `keep` stays."""
        entries = []
        for entry in keep.parent.iterdir():
            with suppress(OSError):  # another process may remove it
                size = sum(file.stat().st_size for file in entry.iterdir())
                entries.append((entry.stat().st_mtime, size, entry))
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total > self.disk and entry != keep and (entry / DESCRIPTION).exists():
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


class FeatureWriter:
    """Takes features part by part. `finish` gives all of them, in memory or mapped from a file."""

    def __init__(self, store: FeatureStore, key: str | None, device: torch.device) -> None:
        self.store, self.key, self.device = store, key, device
        self._y: list[Tensor] = []
        self._width = 0
        self._finished = False
        folder = None
        if store.folder is not None and key is not None:
            store.folder.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=store.folder))
        self._kept = folder is not None
        self._rows = SpilledArray(store.memory, folder)

    def append(self, part: Features) -> None:
        """Add the features of more images of the split."""
        self._y.append(part.y.cpu())
        self._width = part.x.shape[1]
        self._rows.append(part.x.detach().float().cpu().numpy())

    def finish(self, items: NDArray[np.int64], notes: Mapping[str, Any] | None = None) -> Features:
        """All features; their `items` int64[N] and `notes` are stored with them. Raises ValueError if there are none."""
        if not self._y:
            raise ValueError("there are no images to extract features from")
        y = torch.cat(self._y)
        self._finished = True
        if self._kept:
            return Features(self._keep(y, items, dict(notes or {})), y, device=self.device)
        x = torch.from_numpy(self._rows.finish())
        if self._rows.path is None and self.device.type != "cpu":
            x, y = x.to(self.device), y.to(self.device)
        return Features(x, y, device=self.device)

    def discard(self) -> None:
        """Free the memory and remove the file, unless the features are finished."""
        if not self._finished:
            self._rows.discard()

    def _keep(self, y: Tensor, items: NDArray[np.int64], notes: dict[str, Any]) -> Tensor:
        """Rename the complete files to their key; if another process stored the same meanwhile, its files stay."""
        folder = self._rows.folder
        assert folder is not None
        assert self.store.folder is not None
        assert self.key is not None
        shape = (self._rows.rows, self._width)
        self._rows.close()
        np.save(folder / LABELS, y.numpy())
        np.save(folder / ITEMS, items)
        (folder / DESCRIPTION).write_text(json.dumps({"shape": shape, "notes": notes}))
        x = torch.from_numpy(mapped(folder / ROWS, np.float32, shape))
        entry = self.store.folder / self.key
        if self.store.read(self.key) is None:
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(OSError):
                folder.rename(entry)
        shutil.rmtree(folder, ignore_errors=True)  # what is mapped stays readable
        self.store.make_room(entry)
        return x


def feature_key(backbone: nn.Module, data: str, *settings: Any) -> str:
    """A name for the features of a data set: SHA-256 over the network, its weights, the data's fingerprint and the settings.

    The network counts by its `repr` and by the names, shapes, types and bytes of all parameters and buffers; the versions of
    torch and timm count too.
    """
    import timm

    versions = (str(torch.__version__), timm.__version__)
    digest = hashlib.sha256(repr([versions, repr(backbone), data, *map(repr, settings)]).encode())
    for name, value in backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
