"""The order of the files, and the folder of reference figures and real images."""

import os
from collections import Counter
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes beside each other, a thread of torch for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # of the terminal; tests that care about it set their own

SHARED = Path(os.environ.get("WILDFERN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference figures and real images (`WILDFERN_SHARED`, default `../shared`)."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no reference folder at {SHARED} (set WILDFERN_SHARED)")
    return SHARED.resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first: what starts last must be short for two processes to end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: within a file and among equals the order stays
