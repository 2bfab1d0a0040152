"""What every test may lean on: the folder of reference figures and real images, when it is there."""

import os
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
