"""Features of a split, in memory up to a limit and in a file beyond it; with a folder they are kept and found again."""

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
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

MOST_DESCRIPTION = 2**16  # bytes
ROWS, LABELS, ITEMS, DESCRIPTION = "rows", "labels.npy", "items.npy", "features.json"
PARTIAL = ".partial_"
ABANDONED = 24 * 3600  # s after which files of a process that was killed are removed
WELL_KNOWN = ("torch", "timm", "torchvision")  # packages whose version stands for their code


@dataclass(frozen=True)
class StoredFeatures:
    """Features and the items int64[N] of their source."""

    features: Features
    items: NDArray[np.int64]


class FeatureStore:
    """Features of evaluations. At most the bytes of `memory` are kept there; further ones are files, mapped into memory.

    With a `folder`, features that have a key are files there and are found by later evaluations; beyond `disk` bytes those
    that were not used for longest are removed. Without one, files are temporary and vanish with their features.
    `problem` says why the folder cannot be written to, if so; what is in it is still found.
    """

    def __init__(
        self, folder: Path | str | None = None, memory: MemoryBudget | None = None, disk: int = 20 * GIB
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.memory = MemoryBudget() if memory is None else memory
        self.disk = disk
        self.found = 0  # how often features were found
        self.problem: str | None = None

    def find(self, key: str | None) -> StoredFeatures | None:
        """What was stored under this key; None if there is none, or if it is damaged."""
        if self.folder is None or key is None:
            return None
        found = self.read(key)
        self.found += found is not None
        return found

    def read(self, key: str) -> StoredFeatures | None:
        """What was stored under this key in the folder; None if there is none, or if a file does not have its SHA-256."""
        assert self.folder is not None
        entry = self.folder / key
        try:
            described = parse_json(read_bytes(entry / DESCRIPTION, MOST_DESCRIPTION))
            rows, width = described["shape"]
            if any(_sha256(entry / name) != described["sha256"][name] for name in (ROWS, LABELS, ITEMS)):
                return None
            x = torch.from_numpy(mapped(entry / ROWS, np.float32, (rows, width)))
            y = torch.from_numpy(np.load(entry / LABELS, allow_pickle=False))
            found = StoredFeatures(Features(x, y), np.load(entry / ITEMS, allow_pickle=False))
            with suppress(OSError):  # a folder that cannot be written to
                os.utime(entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found

    def writer(self, key: str | None = None, device: torch.device | str = "cpu") -> "FeatureWriter":
        """Collects the features of one split; those in memory are on `device`."""
        folder = None
        if self.folder is not None and key is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            except OSError as error:
                self.problem = f"{self.folder}: {error.strerror or error}"
        return FeatureWriter(self, key, folder, torch.device(device))

    def make_room(self, keep: Path) -> None:
        """Remove the entries that were not used for longest, until the folder has at most `disk` bytes; `keep` stays.

        Unfinished entries of processes that ended a day ago are removed, too.
        """
        entries = []
        for entry in keep.parent.iterdir():
            with suppress(OSError):  # another process may remove it
                used = entry.stat().st_mtime
                if (entry / DESCRIPTION).exists():
                    entries.append((used, sum(file.stat().st_size for file in entry.iterdir()), entry))
                elif entry.name.startswith(PARTIAL) and time.time() - used > ABANDONED:
                    shutil.rmtree(entry, ignore_errors=True)
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total > self.disk and entry != keep:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


class FeatureWriter:
    """Takes features part by part. `finish` gives all of them, in memory or mapped from a file."""

    def __init__(self, store: FeatureStore, key: str | None, folder: Path | None, device: torch.device) -> None:
        self.store, self.key, self.device = store, key, device
        self._y: list[Tensor] = []
        self._width = 0
        self._finished = False
        self._kept = folder is not None
        self._rows = SpilledArray(store.memory, folder)

    def append(self, part: Features) -> None:
        """Add the features of more images of the split. Raises ValueError where the disk is full."""
        self._y.append(part.y.cpu())
        self._width = part.x.shape[1]
        try:
            self._rows.append(part.x.detach().float().cpu().numpy())
        except OSError as error:
            if self._kept:
                raise ValueError(
                    f"features cannot be kept in {self.store.folder}: {error.strerror or error}; another --cache DIR has more "
                    "room, and --cache none keeps none"
                ) from error
            raise

    def finish(self, items: NDArray[np.int64], keep: bool = True) -> Features:
        """All features; they are stored with their `items` int64[N] if `keep`. Raises ValueError if there are none."""
        if not self._y:
            raise ValueError("there are no images to extract features from")
        y = torch.cat(self._y)
        self._finished = True
        if self._kept:
            return Features(self._keep(y, items, keep), y, device=self.device)
        x = torch.from_numpy(self._rows.finish())
        if self._rows.path is None and self.device.type != "cpu":
            x, y = x.to(self.device), y.to(self.device)
        return Features(x, y, device=self.device)

    def discard(self) -> None:
        """Free the memory and remove the file, unless the features are finished."""
        if not self._finished:
            self._rows.discard()

    def _keep(self, y: Tensor, items: NDArray[np.int64], keep: bool) -> Tensor:
        """Rename the complete files to their key; if another process stored the same meanwhile, its files stay."""
        folder = self._rows.folder
        assert folder is not None
        assert self.store.folder is not None
        assert self.key is not None
        shape = (self._rows.rows, self._width)
        self._rows.close()
        x = torch.from_numpy(mapped(folder / ROWS, np.float32, shape))
        entry = self.store.folder / self.key
        try:
            if keep and self.store.read(self.key) is None:
                np.save(folder / LABELS, y.numpy())
                np.save(folder / ITEMS, items)
                sums = {name: _sha256(folder / name) for name in (ROWS, LABELS, ITEMS)}
                (folder / DESCRIPTION).write_text(json.dumps({"shape": shape, "sha256": sums}))
                shutil.rmtree(entry, ignore_errors=True)
                folder.rename(entry)
                self.store.make_room(entry)
        except OSError as error:
            self.store.problem = f"{self.store.folder}: {error.strerror or error}"
        shutil.rmtree(folder, ignore_errors=True)  # what is mapped stays readable
        return x


def feature_key(backbone: nn.Module, data: str, *settings: Any) -> str:
    """A name for the features of a data set: SHA-256 over the network, its weights, the data's fingerprint and the settings.

    The network counts by its `repr`, by all plain attributes of its modules (numbers of heads, kinds of pooling), by the source
    code of modules that are of no well-known package, and by the names, shapes, types and bytes of all parameters and buffers;
    the versions of torch, timm and torchvision count too.
    """
    import timm
    import torchvision

    versions = (str(torch.__version__), timm.__version__, torchvision.__version__)
    digest = hashlib.sha256(repr([versions, repr(backbone), data, *map(repr, settings)]).encode())
    for name, module in backbone.named_modules():
        plain = {key: value for key, value in vars(module).items() if key != "training" and _is_plain(value)}
        digest.update(f"{name} {_code(type(module))} {sorted(plain.items())}".encode("utf-8", "backslashreplace"))
    for name, value in backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _code(kind: type[nn.Module]) -> str:
    """The name of a class of modules, with its source code unless that is of a well-known package."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] in WELL_KNOWN:
        return name
    try:
        return f"{name}\n{inspect.getsource(kind)}"
    except (OSError, TypeError):  # made at run time
        return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
