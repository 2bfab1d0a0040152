"""Whole downloads of remote files, in pieces or, from servers that answer no ranges, in one request."""

from pathlib import Path

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.checked_copy import Checksums
from wildfern.ssl.data.remote import PIECE, TRIES, UNTOLD, Denied, Missing, NoRanges, Store, number_of, pause
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.worker_threads import check_wanted
from wildfern.ssl.tracking.current_progress import current_progress

OF_CONTENTS = 2**60  # added to a number for the contents that is computed from them, and not told by the server
WITHOUT_RANGES: set[str] = set()  # servers


def server_of(file: SteadyFile) -> str:
    """The host and port, or the bucket."""
    return file.path.split("/", 3)[2]


def of_contents(sums: Checksums) -> int:
    """The number for contents with this digest."""
    return OF_CONTENTS + number_of(sums.digest.hex())


def download_into(path: Path, file: SteadyFile) -> Checksums:
    """Download a file into the existing one at `path`. Raises DataError if it is not the file that was noted."""
    current_progress().detail(f"downloading {file.path}")
    try:
        sums = _write_once(path, file) if server_of(file) in WITHOUT_RANGES else _write_ranges(path, file)
    except NoRanges:
        WITHOUT_RANGES.add(server_of(file))
        sums = _write_once(path, file)
    check_unchanged(file)
    if file.changed >= OF_CONTENTS and file.changed != of_contents(sums):
        raise file.other(file.size)
    return sums


def _sums_for(file: SteadyFile) -> Checksums:
    return Checksums(contents=file.changed == UNTOLD or file.changed >= OF_CONTENTS)


def _write_ranges(path: Path, file: SteadyFile) -> Checksums:
    """Piece by piece, each of which is tried several times."""
    store, sums = Store(file.path), _sums_for(file)
    with open(path, "r+b") as written:
        for start in range(0, file.size, PIECE):
            check_wanted()
            try:
                content = store.piece(file.path, start, min(start + PIECE, file.size))
            except Missing:
                raise file.gone() from None
            except NoRanges:
                raise
            except DataError:
                check_unchanged(file)
                raise
            written.write(content)
            sums.add(content)
    return sums


def _write_once(path: Path, file: SteadyFile) -> Checksums:
    """In one request, from a server that sends whole files only; all of it is tried several times."""
    for tried in range(1, TRIES + 1):
        sums, left = _sums_for(file), file.size
        try:
            with open(path, "r+b") as written:
                for content in Store(file.path).stream(file.path, file.size):
                    check_wanted()
                    if (left := left - len(content)) < 0:
                        break
                    written.write(content)
                    sums.add(content)
            if not left:
                return sums
            check_unchanged(file)
            raise DataError(f"{file.path}: the server sent {'more' if left < 0 else 'fewer'} than {file.size:,} bytes")
        except Missing:
            raise file.gone() from None
        except DataError as error:
            if tried == TRIES or isinstance(error, Denied):
                check_unchanged(file)
                raise
        pause(tried)
    raise AssertionError


def check_unchanged(file: SteadyFile) -> None:
    """Raise DataError if the store has another file now, or none, as far as it tells."""
    try:
        size, changed = Store(file.path).facts(file.path)
    except Missing:
        raise file.gone() from None
    if (size, changed) != (file.size, UNTOLD if file.changed >= OF_CONTENTS else file.changed):
        raise file.other(size)
