"""The order of test files, and the folder of reference values and real images."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes in parallel, with one thread of torch each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # of the terminal; tests that care about it set their own

TESTS = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("WILDFERN_SHARED", TESTS.parents[1] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real images (`WILDFERN_SHARED`, default `../shared`)."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no reference folder at {SHARED} (set WILDFERN_SHARED)")
    return SHARED.resolve()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features of evaluations are kept in a temporary folder, not in the user's; also by commands in other processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WILDFERN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Generators first, one file of each folder after the other: they compile different kernels, which all other tests then find
    in the cache. Next files with many slow tests, so that the processes end at about the same time.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    turn: dict[Path, int] = {}
    for path in dict.fromkeys(item.path for item in items):
        turn[path] = sum(other.parent == path.parent for other in turn)

    def place(item: pytest.Item) -> tuple[int, ...]:
        folders = item.path.relative_to(TESTS).parts[:-1]
        return (0, -len(folders), turn[item.path]) if folders[:1] == ("generators",) else (1, -slow[item.path])

    items.sort(key=place)  # stable
