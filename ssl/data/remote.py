"""Files in object stores and on web servers, through fsspec: what is there, and their bytes."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.worker_threads import Dropped, check_wanted

# What fsspec needs for each scheme.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
TRIES = 3
PAUSE = 1.0  # s after the first failure, and twice as long after each further one
PIECE = 2**24  # bytes of a request
UNTOLD = 0  # instead of a number for the contents, of a server that tells nothing of them
_CONNECT, _SILENCE = 30.0, 60.0  # s that a web server may take to answer, and to go on
_PART = 2**20  # bytes that are taken at once from an answer without a range
_MOST_WORDS = 300  # characters of a foreign error
_CONTENTS = ("md5Hash", "ETag", "etag", "Content-MD5", "Digest")  # how back ends name what tells contents apart
_TIMES = ("LastModified", "Last-Modified", "updated", "mtime", "created")
_MISSING, _DENIED = (404, 410), (401, 403)  # of HTTP
_ADVICE = "check the address, the network and the server; a run that was stopped goes on with --resume"
_CREDENTIALS = "the credentials, which come from the environment and the files of the back ends"

T = TypeVar("T")


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether this is an address such as s3://bucket/x.tar. A file or folder of exactly this name comes first."""
    text = os.fspath(location)
    return text.partition("://")[0].lower() in PACKAGES and "://" in text and not os.path.lexists(text)


def check_address(address: str) -> None:
    """Raise DataError, without the secret, for an address that may have one: records of runs keep addresses as they are."""
    scheme, _, rest = address.partition("://")
    host, _, path = rest.partition("/")
    port = host.partition(":")[2]
    if "@" in host or ("@" in path and port and not port.isdecimal()):  # a secret key may have a slash
        raise DataError(
            f"{masked(address)} has a user or a password, which the records of runs would keep: leave out what is before @; "
            "credentials come from the environment and the files of the back ends (for web servers from ~/.netrc)"
        )
    if scheme.lower() in ("http", "https") and ("?" in rest or "#" in rest):
        raise DataError(
            f"{masked(address)}: an address with ? or # may be a signed one, whose signature the records of runs would keep; "
            "leave that part out, or use the address of the store, such as s3://… or gs://…"
        )


def masked(text: str) -> str:
    """The text without the users, passwords and queries of the addresses in it."""
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1?…", re.sub(r"://\S*@", "://…@", text))


class Missing(Exception):
    """There is no such file."""


class Denied(DataError):
    """The store does not let this user read it."""


class NoRanges(DataError):
    """The server sends whole files only."""


class Store:
    """The store or server of an address. Any number of threads may use it; errors name the address of the file."""

    def __init__(self, address: str) -> None:
        self._scheme = address.partition("://")[0]
        self._files = _file_system(self._scheme, os.getpid())

    @property
    def lists(self) -> bool:
        """Whether a folder can be listed with sizes and times."""
        return not self._scheme.startswith("http")

    def facts(self, address: str) -> tuple[int, int]:
        """Bytes of a file, and a number that changes with its contents as the store tells, or UNTOLD.

        Raises Missing and DataError.
        """
        return self._facts(address, attempt(address, lambda: self._files.info(address)))

    def listed(self, folder: str) -> dict[str, tuple[int, int]]:
        """Facts of the files in a folder by name; empty for a missing one. Raises DataError."""
        try:
            entries = attempt(folder, lambda: self._files.ls(folder, detail=True))
        except Missing:
            return {}
        files = [(info["name"].rpartition("/")[2], info) for info in entries if info.get("type") == "file"]
        return {name: self._facts(f"{folder}/{name}", info) for name, info in files}

    def matching(self, pattern: str) -> list[str]:
        """The addresses of the files that a glob matches, in order. Raises DataError."""
        try:
            found = attempt(pattern, lambda: self._files.glob(pattern, detail=True))
        except Missing:
            return []
        names = (info["name"] for info in found.values() if info.get("type") == "file")
        return sorted(name if "://" in name else f"{self._scheme}://{name.lstrip('/')}" for name in names)

    def piece(self, address: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a file. Raises Missing, NoRanges and DataError, also if there are fewer."""

        def read() -> bytes:
            with self._files.open(address, "rb", block_size=PIECE, cache_type="none", size=stop) as file:
                file.seek(start)
                try:
                    return bytes(file.read(stop - start))
                except ValueError as error:  # fsspec, for an answer that is not the range
                    if self.lists:
                        raise
                    raise NoRanges("the server does not answer range requests, for a part of a file") from error

        content = attempt(address, read)
        if len(content) != stop - start:
            raise DataError(f"{address}: {len(content):,} bytes came instead of the {stop - start:,} at byte {start:,}")
        return content

    def stream(self, address: str, size: int) -> Iterator[bytes]:
        """The content of a file of `size` bytes on a web server in parts, by one request without a range, not tried again.

        Raises Missing and DataError.
        """
        options = {"block_size": 0, "size": size, "headers": {"Accept-Encoding": "identity"}}
        with attempt(address, lambda: self._files.open(address, "rb", **options), tries=1) as file:
            while content := attempt(address, lambda: bytes(file.read(_PART)), tries=1):
                yield content

    def _facts(self, address: str, info: dict[str, Any]) -> tuple[int, int]:
        if info.get("type") != "file":
            raise DataError(f"{address} is a folder; name its files, for example {address.rstrip('/')}/*.tar")
        if not isinstance(info.get("size"), int):
            raise DataError(f"{address}: the server does not tell how many bytes the file has")
        told = next((info[key] for key in (*_CONTENTS, *_TIMES) if info.get(key)), None)
        return info["size"], UNTOLD if told is None else number_of(told)


def attempt(address: str, action: Callable[[], T], tries: int = TRIES) -> T:
    """What `action` returns, after up to `tries` tries. Raises Missing, and DataError naming the address for other failures."""
    for tried in range(1, tries + 1):
        check_wanted()
        try:
            return action()
        except Dropped:
            raise
        except Exception as error:  # back ends raise many kinds
            failure = _failure(error)
            status = getattr(failure, "status", None)
            if isinstance(failure, FileNotFoundError) or status in _MISSING:
                raise Missing from error
            if isinstance(failure, PermissionError) or status in _DENIED:
                raise Denied(f"{address}: access is denied: {_words(failure)}; check {_CREDENTIALS}") from error
            if tried == tries:
                kind = NoRanges if isinstance(failure, NoRanges) else DataError
                raise kind(f"{address} cannot be read, after {TRIES} tries: {_words(failure)}; {_ADVICE}") from error
        pause(tried)
    raise AssertionError


def pause(tried: int) -> None:
    """Wait after the failure number `tried`."""
    time.sleep(PAUSE * 2 ** (tried - 1))


def _failure(error: Exception) -> BaseException:
    """The failure itself: fsspec says of whatever a web server answers that the file is not found."""
    cause = error.__cause__
    hidden = isinstance(cause, OSError) or type(cause).__module__.partition(".")[0] == "aiohttp"
    return cause if cause is not None and isinstance(error, FileNotFoundError) and hidden else error


def _words(error: BaseException) -> str:
    """What an error says, in one line."""
    text = masked(" ".join(str(error).split()))[:_MOST_WORDS]
    if isinstance(error, DataError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def number_of(told: Any) -> int:
    """A number of 60 bits for an ETag or a time; as a time in ns it would be long ago."""
    text = str(told.timestamp() if hasattr(told, "timestamp") else told).removeprefix("W/").strip('"')
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 4


@lru_cache
def _file_system(scheme: str, process: int) -> Any:
    """The back end of a scheme, for one process: connections do not outlast a fork."""
    options: dict[str, Any] = {}
    try:
        import fsspec

        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}  # proxies, ~/.netrc
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        raise DataError(
            f'{scheme}://… is read with the packages fsspec and {PACKAGES[scheme]}: pip install "wildfern[remote]" '
            f"({error})"
        ) from error
