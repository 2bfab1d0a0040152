"""The folder of an export, with a list of what exports wrote into it: the next export removes that, and nothing else."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from wildfern.files import is_regular, open_appending, read_lines, remove_partial_files, replacing
from wildfern.ssl.curation.manifest import CurationError

MARK = ".wildfern_export"  # of a folder that an export made, and may change; it has the list
_WORDS = "Written by wildfern curate export: files here are replaced and removed by the next export.\n"
_LIST = "What exports wrote, images in folders by their SHA-256:\n"  # marks of earlier versions have no list
_IMAGE = re.compile(r"[0-9a-f]{64}\.(jpg|png|webp)")
_FILE = re.compile(r"images-\d{6,}\.(tar|parquet)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST = 200  # bytes of a line
_PASSING = ".partial_"  # how names of files begin that `replacing` was writing


class ExportFolder:
    """A folder that exports write to: images, as XX/NAME with the SHA-256 of their source as the name, or other files.

    Use: `begin`, then a `path_of_*` for each file before it is written, then `finish`. After a kill or a power cut in between,
    the list has all that was written. Only names that exports give are read from it: a list of a stranger removes no other files.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises CurationError for a file, and for a folder with files that no export wrote."""
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise CurationError(f"{self.path} is a file; name a folder")
        if self.path.is_dir() and not is_regular(self.path / MARK) and any(map(_is_of_the_user, self.path.iterdir())):
            raise CurationError(f"{self.path} has files that no export wrote; name a new or empty folder")
        self._former_images, self._images = set[bytes](), set[bytes]()  # SHA-256
        self._former_files = set[str]()

    @property
    def was_used(self) -> bool:
        """Whether an earlier export may have left something, known after `begin`."""
        return bool(self._former_images or self._former_files)

    def begin(self, images: Iterable[bytes] = ()) -> None:
        """Read the list of earlier exports, and add the images that will be written, by their SHA-256.

        Raises CurationError for a file with the name of one of these that no export wrote.
        """
        remove_partial_files(self.path)
        for entry in self._listed() if is_regular(self.path / MARK) else ():
            if _DIGEST.fullmatch(entry):
                self._former_images.add(bytes.fromhex(entry))
            elif _FILE.fullmatch(entry):
                self._former_files.add(entry)
        self._images = set(images)
        for folder in self._folders():
            for name in _images_in(folder):
                image = bytes.fromhex(name[:64])
                if image in self._images and image not in self._former_images:
                    raise _in_the_way(folder / name)
        self._write_list(self._former_images | self._images, self._former_files)

    def path_of_image(self, name: str, content: bytes) -> Path | None:
        """Where an image with this content is to be written; None if it is there."""
        path = self.path / name[:2] / name
        try:
            path.parent.mkdir(exist_ok=True)
        except FileExistsError:  # no folder
            raise _in_the_way(path.parent) from None
        return None if is_regular(path) and path.read_bytes() == content else path

    def path_of_file(self, name: str) -> Path:
        """Where another file is to be written. Raises CurationError for a file of this name that no export wrote."""
        path = self.path / name
        if name not in self._former_files:
            if os.path.lexists(path):
                raise _in_the_way(path)
            with open_appending(self.path / MARK) as mark:
                mark.write(f"{name}\n".encode())
                os.fsync(mark.fileno())
        return path

    def finish(self, names: set[str]) -> None:
        """Remove what exports wrote, in any format, but for images and files with these names; and list these alone."""
        for name in self._former_files - names:
            (self.path / name).unlink(missing_ok=True)
        for first in {image[:1] for images in (self._former_images, self._images) for image in images}:
            self._remove_images(self.path / first.hex(), names)
        images = {bytes.fromhex(name[:64]) for name in names if _IMAGE.fullmatch(name)}
        self._write_list(images, {name for name in names if _FILE.fullmatch(name)})

    def _remove_images(self, folder: Path, but: set[str]) -> None:
        if not folder.is_dir():
            return
        remove_partial_files(folder)
        for name in _images_in(folder):
            image = bytes.fromhex(name[:64])
            if name not in but and (image in self._former_images or image in self._images):
                (folder / name).unlink()
        with suppress(OSError):  # it has other files
            folder.rmdir()

    def _listed(self) -> Iterator[str]:
        """The lines of the mark; of one without a list, entries for all files that are named as exports name them."""
        lines = read_lines(self.path / MARK, _LONGEST)
        if any(line == _LIST.encode() for line in (next(lines, None), next(lines, None))):
            yield from (line.decode(errors="replace").rstrip("\n") for line in lines if line is not None)
            return
        for folder in self._folders():
            yield from (name[:64] for name in _images_in(folder))
        yield from (name for name in os.listdir(self.path) if _FILE.fullmatch(name))

    def _folders(self) -> list[Path]:
        return [folder for folder in self.path.glob("[0-9a-f][0-9a-f]") if folder.is_dir()]

    def _write_list(self, images: set[bytes], files: set[str]) -> None:
        with replacing(self.path / MARK) as beside, beside.open("w", newline="\n") as mark:
            mark.write(f"{_WORDS}{_LIST}")
            mark.writelines(f"{image.hex()}\n" for image in sorted(images))
            mark.writelines(f"{name}\n" for name in sorted(files))


def _is_of_the_user(path: Path) -> bool:
    """Not so what an export leaves that was killed before the folder had its mark."""
    return path.name != ".lock" and not path.name.startswith(_PASSING)


def _images_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(folder.name) and _IMAGE.fullmatch(name)]


def _in_the_way(path: Path) -> CurationError:
    return CurationError(f"{path} is in the way, and no export wrote it: move it, or name another folder")
