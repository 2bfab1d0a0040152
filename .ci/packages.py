"""The packages of this repository as they are installed, as links: for tools that read files and know no `package_dir`.

`setup.py` maps `wildfern.ssl.losses` to `ssl/losses`, `wildfern` to `package`, and so on. mypy and mkdocs look for
`wildfern/ssl/losses`; they find it in `build/packages`, or in the folder that WILDFERN_LINKS names.
"""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TREE = Path(os.environ.get("WILDFERN_LINKS", ROOT / "build" / "packages"))


def package_dir() -> dict[str, str]:
    """Package name to folder, as `setup.py` hands it to setuptools."""
    given: dict[str, Any] = {}
    original = sys.modules.get("setuptools")
    sys.modules["setuptools"] = SimpleNamespace(setup=given.update)  # type: ignore[assignment]
    try:
        path = ROOT / "setup.py"
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__file__": str(path)})
    finally:
        sys.modules.pop("setuptools")
        if original is not None:
            sys.modules["setuptools"] = original
    return given["package_dir"]


def link_packages(tree: Path = TREE) -> Path:
    """Fill `tree`, emptied first, with a link to every source file."""
    shutil.rmtree(tree, ignore_errors=True)
    for package, folder in package_dir().items():
        target = tree.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for path in [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("py.typed")]:
            (target / path.name).symlink_to(path)
    return tree
