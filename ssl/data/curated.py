"""`curated:DIR`: the images that a curation kept, read where they are."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, ImageArray, SourceFile, Split, UnreadableImage
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.paths import existing_folder
from wildfern.ssl.data.resize import resize, within
from wildfern.ssl.data.splits import empty_share, name_in_test, share_words

MOST_LICENSES = 50  # that a run records by name


@register("source", "curated")
class CuratedSource(ImageSource):
    """The images whose decision is `keep` in the manifest of the folder `path`, in its order; without labels.

    max_side: shrink images to this longer side. test_fraction: this share, chosen by a hash of the content, is the test split.
    images: where the images are, if their folder was moved; for a manifest of one source alone.
    manifest: the first digits of the SHA-256 of a former manifest; None: the present one. A run keeps the one it started with.

    Each image is compared with its SHA-256 as it is read: a file that was changed is unreadable, and replaced like any other.
    So is an image that was taken down since the manifest was written: it keeps its number, so that a run resumes with the same
    images otherwise. The next scan leaves it out.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        max_side: int | None = None,
        test_fraction: float = 0.0,
        images: str | None = None,
        manifest: str | None = None,
    ) -> None:
        from wildfern.ssl.curation.blur_boxes import Blurring
        from wildfern.ssl.curation.manifest import KEEP, Manifest
        from wildfern.ssl.curation.takedowns import read_takedowns

        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        if split == "test" and not test_fraction:
            raise DataError(f"curated:{path} has no test split; set test_fraction, for example 0.1")
        folder = existing_folder(path)
        found = Manifest(folder, manifest)
        self.manifest_sha256, self.licenses = found.sha256, Counter[str]()
        if manifest is not None and not self.manifest_sha256.startswith(manifest):
            raise DataError(f"{found.path} is not the manifest {manifest} any more: restore it")
        self._moved = None if images is None else str(existing_folder(images).absolute())
        self._paths, self._digests = PathStore(), bytearray()
        self._containers: list[tuple[str, str]] = []
        numbers: dict[tuple[str, str], int] = {}
        containers, places, sizes, boxes = [], [], [], dict[int, list[list[float]]]()
        blurring = Blurring.of_policy(found.info.policy)
        left_out = 0
        self.takedowns = read_takedowns(folder)
        taken: dict[str, int] = {}  # digest of file or pixels -> number of the takedown
        for number, one in enumerate(self.takedowns):
            for known in filter(None, (one.sha256, one.pixels_sha256)):
                taken.setdefault(known, number)
        self._taken: dict[int, int] = {}
        columns = ["kind", "container", "path", "place", "bytes", "sha256", "pixels_sha256", "decision", "license"]
        for batch in found.batches([*columns, *(["people_boxes"] if blurring.on else [])]):
            for row in batch.to_pylist():
                if row["decision"] != KEEP or row["sha256"] is None:
                    continue
                if test_fraction and name_in_test(row["sha256"], test_fraction) != (split == "test"):
                    left_out += 1
                    continue
                item = len(places)
                if faces := blurring.boxes(row.get("people_boxes")):
                    boxes[item] = faces
                self._paths.append(row["path"])
                sizes.append(row["bytes"])
                places.append(row["place"])
                containers.append(numbers.setdefault((row["kind"], row["container"]), len(numbers)))
                if gone := [taken[known] for known in (row["sha256"], row["pixels_sha256"]) if known in taken]:
                    self._taken[item] = min(gone)
                self.licenses[row["license"] or "unknown"] += 1
                self._digests += bytes.fromhex(row["sha256"])
        found.close()
        self._containers = list(numbers)
        self._container = np.array(containers, np.int32)
        self._places, self._sizes, self._boxes = np.array(places, np.int64), np.array(sizes, np.int64), boxes
        if not len(self._paths):
            if left_out:
                raise DataError(empty_share(path, split, test_fraction, left_out, "images of"))
            raise DataError(f"curated:{path} kept no image; {folder}/review.html says why")
        if self._moved is not None and len(self._containers) > 1:
            raise DataError(
                f"images moves one folder, but curated:{path} has images of {len(self._containers)} folders and files"
            )
        super().__init__(len(self._paths), decoding=Decoding(max_side))
        self.split_words = (
            share_words(split, test_fraction, "images, by a hash of their content") if test_fraction else ""
        )
        self.folder = str(folder.absolute())
        self.taken_down = [self.item_name(item) for item in self._taken]
        if count := len(self._taken):
            self.note(
                f"curated:{path}: {count:,} image{'s' * (count > 1)} taken down since the manifest was written, not read: "
                f"{', '.join(self.taken_down[:3])}{' …' * (count > 3)}"
            )

    def item_name(self, item: int) -> str:
        _, container = self._containers[self._container[item]]
        return f"{self._moved or container}/{self._paths[item]}"

    def files(self) -> Iterator[SourceFile]:
        """The images as the manifest lists them, also those taken down."""
        for item in range(len(self._paths)):
            yield SourceFile(
                f"{self._digest(item).hex()[:16]} {self._paths[item]}", int(self._sizes[item]), self.item_name(item)
            )

    def encoded(self, item: int) -> bytes:
        from wildfern.ssl.curation.manifest import path_on_disk
        from wildfern.ssl.curation.places import Place

        if item in self._taken:
            raise UnreadableImage(f"taken down on {self.takedowns[self._taken[item]].time[:10]}")
        kind, name = self._containers[self._container[item]]
        place, size = int(self._places[item]), int(self._sizes[item])
        where = self._moved or path_on_disk(name)
        return Place(self._digest(item).hex(), kind, where, path_on_disk(self._paths[item]), place, size).read_checked()

    def decode(self, item: int) -> ImageArray:
        """One image, with the faces blurred that the people detector found, if the policy says so."""
        if item not in self._boxes:
            return super().decode(item)
        from wildfern.ssl.curation.blur_boxes import blur_boxes

        whole = blur_boxes(Decoding().decode(self.encoded(item)), self._boxes[item])
        height, width = whole.shape[:2]
        target = within((width, height), self._decoding.max_side)
        return whole if target == (width, height) else resize(whole, target, reducing_gap=2.0)

    @property
    def containers(self) -> list[str]:
        """Full paths of the folders, shards and parquet files that the images are in."""
        return [name for _, name in self._containers]

    def items_of(self, digests: set[str]) -> list[int]:
        """The items with these SHA-256."""
        return [item for item in range(len(self._paths)) if self._digest(item).hex() in digests]

    def record(self) -> dict[str, Any]:
        """What a run records of this source: its folder and manifest, licenses, and how many takedowns there were."""
        counts = sorted(self.licenses.items(), key=lambda pair: (-pair[1], pair[0]))
        licenses = {name[:100]: count for name, count in counts[:MOST_LICENSES]}
        if rest := sum(count for _, count in counts[MOST_LICENSES:]):
            licenses["others"] = rest
        return {
            "folder": self.folder,
            "manifest": self.manifest_sha256,
            "licenses": licenses,
            "takedowns": len(self.takedowns),
            "taken_down": len(self._taken),
        }

    def taken_down_since(self, takedowns: int) -> list[str]:
        """The images that were taken down after the first `takedowns` of the list."""
        return [self.item_name(item) for item, place in self._taken.items() if place >= takedowns]

    def _digest(self, item: int) -> bytes:
        return bytes(self._digests[32 * item : 32 * item + 32])
