"""The same software on every host: other versions of a package would train to other numbers without an error."""

import importlib.metadata
import socket
from collections.abc import Callable

from wildfern.launch.errors import RunError

PACKAGES = ("wildfern", "torch", "deepspeed", "timm", "kornia", "numpy", "numba")


def installed_versions() -> dict[str, str]:
    """Version by package; "missing" for one that is not installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def check_same_versions(all_gather: Callable[[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]]) -> None:
    """Raise RunError on every rank where the versions on some host differ from those on rank 0's; called by all ranks.

    `all_gather` returns each rank's (host name, versions), by rank.
    """
    (main_host, expected), *others = all_gather((socket.gethostname(), installed_versions()))
    different = {
        f"{host} has {package} {versions[package]}, {main_host} has {expected[package]}": None
        for host, versions in others
        for package in PACKAGES
        if versions[package] != expected[package]
    }
    if different:
        raise RunError(f"install the same versions on every host: {'; '.join(different)}")
