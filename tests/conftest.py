"""The order of test files, and the folder of reference values and real images."""

import os
from collections import Counter
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes in parallel, with one thread of torch each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # of the terminal; tests that care about it set their own

SHARED = Path(os.environ.get("WILDFERN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real images (`WILDFERN_SHARED`, default `../shared`)."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no reference folder at {SHARED} (set WILDFERN_SHARED)")
    return SHARED.resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first, so that two processes end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable
