"""Paths of data as the user writes them: ~ is expanded, and addresses of other machines are refused."""

import os
import re
from pathlib import Path

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.remote import check_address, is_remote, masked

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: C:/ is a drive


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ~ and ~USER replaced by the home folder.

    Raises DataError where there is no such home folder, and for an address such as s3://bucket/images.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return Path(text)
    check_local(text)
    full = os.path.expanduser(text)
    if not full.startswith("~"):
        return Path(full)
    home = text.partition("/")[0]
    if home == "~":
        raise DataError(
            f"{text}: ~ has no meaning here, since HOME is not set and the user has no entry: write the full path"
        )
    raise DataError(
        f"{text}: there is no user {home[1:]} on this machine; write the full path, or ./{text} for that name"
    )


def check_local(location: str) -> None:
    """Raise DataError for what webdataset and others read by other programs: pipe: commands and addresses."""
    if location.startswith("pipe:"):
        raise DataError(f"{location}: commands are not run; store their output as files and give the path of these")
    match = _SCHEME.match(location)
    if match is None or os.path.lexists(location):
        return
    scheme = match[1].lower()
    if scheme == "hf":
        name = re.sub(r"^hf:/+(datasets/)?", "", location)
        advice = f"write hf:{'/'.join(name.split('/')[:2])}, which downloads the data set"
    elif scheme == "file":
        advice = f"write {re.sub(r'^[^/]*/+(localhost/)?', '/', location)}"
    elif scheme in ("http", "https", "ftp"):
        advice = "download it first, and give the path of the files"
    else:
        advice = "download it first, or mount it as a folder, and give the path of the files"
    if is_remote(location):
        check_address(location)
        advice += (
            "; for training, tar shards and parquet files are read from there: webdataset:ADDRESS, parquet:ADDRESS"
        )
    raise DataError(f"{masked(location)} is an address, and only files on this machine are read: {advice}")


def existing_folder(path: str | os.PathLike[str]) -> Path:
    """The folder at `path` (~ expanded), or a DataError that names the deepest folder on the path that exists."""
    folder = expanded(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{folder} is a file; a folder is needed")
    parent = next(p for p in folder.absolute().parents if p.is_dir())
    inside = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))[:5]
    raise DataError(f"folder {folder} does not exist; {parent} exists and has {', '.join(inside) or 'no folders'}")
