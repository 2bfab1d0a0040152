"""The house keeps its shape: imports point one way, nothing shadows the standard library, nothing hidden draws or loads."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ("ssl", "generators", "recipes", "launch", "benchmarks")
SHIPPED = ("ssl", "generators", "launch")

MAY_IMPORT = {
    "generators": {"wildfern.generators"},
    "recipes": {"wildfern.recipes"},
    "ssl": {"wildfern.ssl", "wildfern.generators"},
    "benchmarks": {"wildfern.benchmarks", "wildfern.ssl", "wildfern.generators", "wildfern.recipes"},
    "launch": {f"wildfern.{folder}" for folder in HOUSE},
}
THIRD_PARTIES = {
    "generators": {"numpy", "numba"},
    "generators/triton_renderer": {"numpy", "torch", "triton"},
    "recipes": {"pydantic", "pydantic_core", "yaml"},
}

# What may be used of numpy.random: generators that are made from a key or a seed, never numpy's one hidden state.
SEEDED = {"Generator", "BitGenerator", "SeedSequence", "Philox", "PCG64", "PCG64DXSM", "SFC64", "default_rng"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each_file(*folders: str):
    return pytest.mark.parametrize("path", python_files(*folders), ids=name_of)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def package_of(path: Path) -> str:
    return ".".join(("wildfern", *path.relative_to(ROOT).parts[:-1]))


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of every import in `tree`, inside functions too, relative ones resolved against `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; empty for anything else."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    return ((dotted(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.fixture(scope="module")
def packaging() -> dict:
    """The arguments that setup.py hands to setuptools."""
    given = {}
    setup_py = ROOT / "setup.py"
    original = sys.modules.get("setuptools")
    sys.modules["setuptools"] = SimpleNamespace(setup=given.update)
    try:
        exec(compile(setup_py.read_text(encoding="utf-8"), str(setup_py), "exec"), {"__file__": str(setup_py)})
    finally:
        sys.modules.pop("setuptools")
        if original:
            sys.modules["setuptools"] = original
    return given


def test_the_folder_ssl_is_no_package_and_holds_only_packages():
    assert not (ROOT / "ssl" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "ssl").iterdir() if path.is_file()] == []


@pytest.mark.parametrize(
    "command", [["-c", "import ssl; print(ssl.__file__); ssl.SSLWantReadError"], ["-m", "pip", "-V"]]
)
def test_the_standard_library_is_found_from_the_root_of_the_repository(command):
    if command[1] == "pip":
        pytest.importorskip("pip")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as a multi-node launcher sets it
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert str(ROOT / "ssl") not in run.stdout


def test_every_folder_with_code_is_a_package_that_setup_py_maps(packaging):
    folders = {path.parent for path in python_files(*HOUSE)}
    mapped = {ROOT / folder for folder in packaging["package_dir"].values()}
    assert {name_of(folder) for folder in folders} == {name_of(folder) for folder in mapped}
    assert [name_of(folder) for folder in mapped if not (folder / "__init__.py").is_file()] == []
    assert set(packaging["packages"]) == set(packaging["package_dir"])


def test_mapped_names_are_the_paths(packaging):
    for package, folder in packaging["package_dir"].items():
        assert package == ".".join(("wildfern", *Path(folder).parts))


@each_file(*HOUSE)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    ours = {name for name in imports(tree_of(path), package_of(path)) if is_within(name, "wildfern")}
    wrong = sorted(name for name in ours if not any(is_within(name, package) for package in MAY_IMPORT[room]))
    assert not wrong, f"{room} must not import {wrong}"


@each_file(*HOUSE)
def test_nothing_is_imported_by_its_folder_name(path):
    own = {"generators", "recipes", "launch", "benchmarks", "tests"}
    tops = {name.split(".")[0] for name in imports(tree_of(path), package_of(path))}
    assert not tops & own, f"write wildfern.{next(iter(tops & own))}"


@each_file("generators", "recipes")
def test_the_light_rooms_stay_light(path):
    room = max((room for room in THIRD_PARTIES if path.is_relative_to(ROOT / room)), key=len)
    tops = {name.split(".")[0] for name in imports(tree_of(path), package_of(path))}
    assert tops - {"wildfern"} - set(sys.stdlib_module_names) <= THIRD_PARTIES[room]


def test_drawing_on_the_processor_needs_neither_torch_nor_triton(packaging):
    """Where they are missing, streams draw, and device="cuda" says what it lacks."""
    program = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "from wildfern.generators import STREAMS, make_stream\n"
        "assert make_stream('ifs', size=8, points=10).batch([0]).images.any()\n"
        "try:\n"
        "    make_stream('ifs', device='cuda')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "device='cuda' needs the packages torch and triton, and torch cannot be imported" in run.stdout


@each_file("ssl")
def test_heavy_packages_are_imported_in_one_place_only(path):
    names = {name.split(".")[0] for name in imports(tree_of(path), package_of(path))}
    if "deepspeed" in names:
        assert path.parent.name == "training"
    if "wandb" in names:
        assert name_of(path) == "ssl/tracking/wandb_run.py"


def test_importing_all_rooms_does_not_load_deepspeed(packaging):
    code = f"import sys, {', '.join(packaging['packages'])}; assert 'deepspeed' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


@each_file(*HOUSE)
def test_nothing_that_is_loaded_can_run_code(path):
    tree = tree_of(path)
    assert not {"torch.load", "yaml.load"} & set(imports(tree, package_of(path))), "call them by their full names"
    for name, call in calls(tree):
        where = f"{name_of(path)}:{call.lineno}"
        if name == "torch.load":
            safe = [word.value for word in call.keywords if word.arg == "weights_only"]
            assert safe, f"{where}: torch.load without weights_only=True"
            assert isinstance(safe[0], ast.Constant), where
            assert safe[0].value is True, where
        assert name not in ("yaml.load", "yaml.full_load", "yaml.unsafe_load"), f"{where}: yaml.safe_load reads recipes"


def hidden_draws(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of whatever draws from, or seeds, a state that the numbers of a sample do not determine."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            yield node.lineno, "import random"
        elif isinstance(node, ast.ImportFrom) and node.module == "random" and not node.level:
            yield node.lineno, "from random import"
        elif isinstance(node, ast.ImportFrom) and node.module == "numpy.random":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name not in SEEDED)
        elif isinstance(node, ast.Attribute) and dotted(node.value) in ("np.random", "numpy.random"):
            if node.attr not in SEEDED:
                yield node.lineno, dotted(node)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "default_rng" and not node.args:
            yield node.lineno, "default_rng()"
        elif isinstance(node, ast.Call) and dotted(node.func) in ("torch.seed", "torch.initial_seed"):
            yield node.lineno, dotted(node.func)


@each_file(*SHIPPED)
def test_no_hidden_randomness(path):
    assert list(hidden_draws(tree_of(path))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("np.random.seed(0)", ["np.random.seed"]),
        ("x = numpy.random.rand(3)", ["numpy.random.rand"]),
        ("import random", ["import random"]),
        ("from random import choice", ["from random import"]),
        ("from numpy.random import rand, Philox", ["rand"]),
        ("rng = np.random.default_rng()", ["default_rng()"]),
        ("rng = np.random.default_rng(7)", []),
        ("rng = np.random.Generator(np.random.Philox(key=1))", []),
        ("from .random import mix", []),
    ],
)
def test_the_guard_sees_hidden_randomness(code, found):
    assert [name for _, name in hidden_draws(ast.parse(code))] == found


def test_the_guard_resolves_relative_imports():
    code = "from . import a\nfrom .b import c\nfrom ..data.base import Source\nimport torch.nn\ndef f():\n    from wandb import x"
    names = set(imports(ast.parse(code), "wildfern.ssl.models"))
    expected = {
        "wildfern.ssl.models.a",
        "wildfern.ssl.models.b.c",
        "wildfern.ssl.data.base.Source",
        "torch.nn",
        "wandb.x",
    }
    assert names == expected
