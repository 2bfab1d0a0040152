"""Structure of the code: direction of imports, no shadowed standard library, no hidden random state, no unsafe loading.

Each rule is one test over all files. It lists every place that breaks the rule.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("package", "ssl", "generators", "recipes", "launch", "benchmarks")
SHIPPED = ("package", "ssl", "generators", "launch")

# What each folder may import of wildfern, besides these, which all may.
SHARED = {
    *("wildfern.registry", "wildfern.files", "wildfern.printable", "wildfern.bounded_json", "wildfern.bounded_yaml"),
    "wildfern.cache_folder",
}
MAY_IMPORT = {
    "generators": {"wildfern.generators"},
    "recipes": {"wildfern.recipes"},
    "ssl": {"wildfern.ssl", "wildfern.generators"},
    "benchmarks": {"wildfern.benchmarks", "wildfern.ssl", "wildfern.generators", "wildfern.recipes"},
    "launch": {f"wildfern.{folder}" for folder in CODE},
    "package": {"wildfern.plugins"},
}
THIRD_PARTIES = {
    "package": {"yaml"},
    "generators": {"numpy", "numba"},
    "generators/triton_renderer": {"numpy", "torch", "triton"},
    "recipes": {"pydantic", "pydantic_core", "yaml"},
}

# What may be used of numpy.random: generators that are made from a key or a seed, never numpy's global state.
SEEDED = {"Generator", "BitGenerator", "SeedSequence", "Philox", "PCG64", "PCG64DXSM", "SFC64", "default_rng"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def package_of(path: Path) -> str:
    """The package that a file of this repository belongs to: `package/` is `wildfern`, `ssl/losses/` `wildfern.ssl.losses`."""
    folders = path.relative_to(ROOT).parts[:-1]
    return ".".join(("wildfern", *(folders[1:] if folders[0] == "package" else folders)))


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and dotted(node.test).split(".")[-1] == "TYPE_CHECKING"


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in `tree`, inside functions too, relative ones resolved against `package`.

    Imports for type checkers alone (`if TYPE_CHECKING:`) are left out: they never run.
    """
    for node in ast.iter_child_nodes(tree):
        if typing_only(node):
            yield from imports(ast.Module(node.orelse, []), package)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        else:
            yield from imports(node, package)


def imported(*folders: str) -> Iterator[tuple[Path, str, str]]:
    """File, `file:line` and name of every import below `folders`."""
    for path in python_files(*folders):
        for line, name in imports(tree_of(path), package_of(path)):
            yield path, f"{name_of(path)}:{line}", name


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


def test_the_folder_ssl_is_not_a_package_and_contains_only_packages():
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
    folders = {path.parent for path in python_files(*CODE)}
    mapped = {ROOT / folder for folder in packaging["package_dir"].values()}
    assert {name_of(folder) for folder in folders} == {name_of(folder) for folder in mapped}
    assert [name_of(folder) for folder in mapped if not (folder / "__init__.py").is_file()] == []
    assert set(packaging["packages"]) == set(packaging["package_dir"])


def test_mapped_names_are_the_paths(packaging):
    mapped = packaging["package_dir"]
    assert mapped == {package_of(ROOT / folder / "__init__.py"): folder for folder in mapped.values()}


def test_imports_point_one_way():
    wrong = []
    for path, where, name in imported(*CODE):
        folders = path.relative_to(ROOT).parts
        # Studies train whole runs, as a user does; nothing else in benchmarks may.
        folder = "launch" if folders[:2] == ("benchmarks", "studies") else folders[0]
        allowed = MAY_IMPORT[folder] | SHARED
        if is_within(name, "wildfern") and not any(is_within(name, package) for package in allowed):
            wrong.append(f"{where} imports {name}")
    assert wrong == []


def test_nothing_is_imported_by_its_folder_name():
    own = {"package", "generators", "recipes", "launch", "benchmarks", "tests"}
    wrong = [f"{where}: write wildfern.{name}" for _, where, name in imported(*CODE) if name.split(".")[0] in own]
    assert wrong == []


def test_light_packages_import_only_light_dependencies():
    wrong = []
    for path, where, name in imported("package", "generators", "recipes"):
        folder = max((folder for folder in THIRD_PARTIES if path.is_relative_to(ROOT / folder)), key=len)
        if name.split(".")[0] not in THIRD_PARTIES[folder] | {"wildfern", *sys.stdlib_module_names}:
            wrong.append(f"{where} imports {name}")
    assert wrong == []


def test_rendering_on_the_cpu_needs_neither_torch_nor_triton(packaging):
    """Without them streams render, and device="cuda" is an error that names what is missing."""
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


def test_heavy_packages_are_imported_in_one_place_only():
    wrong = []
    for path, where, name in imported("ssl"):
        package = name.split(".")[0]
        if (package == "deepspeed" and path.parent.name != "training") or (
            package == "wandb" and name_of(path) != "ssl/tracking/wandb_run.py"
        ):
            wrong.append(f"{where} imports {name}")
    assert wrong == []


def test_importing_all_packages_does_not_load_deepspeed(packaging):
    code = f"import sys, {', '.join(packaging['packages'])}; assert 'deepspeed' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


def unsafe_loads(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and reason of every call that reads a file in a way that can run code."""
    for line, name in imports(tree, package):
        if name in ("torch.load", "yaml.load"):
            yield line, f"call {name} by its full name, so that this test sees it"
    for name, call in calls(tree):
        if name == "torch.load":
            safe = [word.value for word in call.keywords if word.arg == "weights_only"]
            if not (safe and isinstance(safe[0], ast.Constant) and safe[0].value is True):
                yield call.lineno, "torch.load without weights_only=True"
        elif name in ("yaml.load", "yaml.full_load", "yaml.unsafe_load"):
            yield call.lineno, f"{name}: use yaml.safe_load"


def test_no_file_is_loaded_in_a_way_that_can_run_code():
    wrong = [
        f"{name_of(path)}:{line}: {reason}"
        for path in python_files(*CODE)
        for line, reason in unsafe_loads(tree_of(path), package_of(path))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        ("torch.load(path)", ["torch.load without weights_only=True"]),
        ("torch.load(path, weights_only=False)", ["torch.load without weights_only=True"]),
        ("torch.load(path, weights_only=True)", []),
        ("from torch import load", ["call torch.load by its full name, so that this test sees it"]),
        ("yaml.unsafe_load(text)", ["yaml.unsafe_load: use yaml.safe_load"]),
        ("yaml.safe_load(text)", []),
    ],
)
def test_unsafe_loads_are_detected(code, reasons):
    assert [reason for _, reason in unsafe_loads(ast.parse(code), "wildfern.ssl")] == reasons


# What else may be used of the two modules that read texts of others: writing.
WRITING = {"json": {"dump", "dumps"}, "yaml": {"dump", "Node", "SafeDumper", "SequenceNode"}}
BOUNDED = {"json": "package/bounded_json.py", "yaml": "package/bounded_yaml.py"}


def unbounded_readers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything of json and yaml but what writes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in WRITING:
            if node.attr not in WRITING[node.value.id]:
                yield node.lineno, dotted(node)
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, f"import {alias.name} as {alias.asname}")
                for alias in node.names
                if alias.asname and alias.name.split(".")[0] in WRITING
            )
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in WRITING:
            yield node.lineno, f"from {node.module} import"


def test_json_and_yaml_are_read_within_limits_only():
    """By wildfern.bounded_json and wildfern.bounded_yaml."""
    wrong = [
        f"{name_of(path)}:{line}: {reader}"
        for path in python_files("package", "ssl", "generators", "recipes", "launch")
        for line, reader in unbounded_readers(tree_of(path))
        if name_of(path) != BOUNDED.get(re.search("json|yaml", reader)[0])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("json.loads(text)", ["json.loads"]),
        ("json.load(file)", ["json.load"]),
        ("json.JSONDecoder().decode(text)", ["json.JSONDecoder"]),
        ("from json import loads", ["from json import"]),
        ("import json as j", ["import json as j"]),
        ("yaml.safe_load(text)", ["yaml.safe_load"]),
        ("list(yaml.scan(text))", ["yaml.scan"]),
        ("class Mine(yaml.SafeLoader): ...", ["yaml.SafeLoader"]),
        ("from yaml import safe_load", ["from yaml import"]),
        ("import json\njson.dumps(1)\nyaml.dump(1, Dumper=yaml.SafeDumper)", []),
    ],
)
def test_unbounded_readers_are_detected(code, found):
    assert [reader for _, reader in unbounded_readers(ast.parse(code))] == found


# Calls that open a file for writing, or give it another name.
WRITE_METHODS = {"write_text", "write_bytes", "touch", "rename", "save", "symlink_to", "hardlink_to"}
WRITE_FUNCTIONS = {
    *("os.open", "os.replace", "os.rename", "os.link", "os.symlink", "os.mkfifo", "shutil.copy", "shutil.copy2"),
    *("shutil.copyfile", "shutil.copytree", "shutil.move", "torch.save", "torch.onnx.export", "save_file", "np.save"),
}
# Each with the reason why it need not go through wildfern.files.
WRITES_ALLOWED = {
    "launch/exporting.py: torch.save": "to a file opened at a path from `writing`",
    "launch/exporting.py: torch.export.save": "to a file opened at a path from `writing`",
    "launch/export_onnx.py: torch.onnx.export": "makes a program in memory; writes no file",
    "launch/export_folder.py: os.rename": "gives a folder that was just made its name",
    "launch/streams.py: os.open": "the null device, in place of a closed standard stream",
    "launch/recorded_plugins.py: copy.replace": "renames a copy that was opened as a regular file",
    "ssl/training/checkpoints.py: os.replace": "renames checkpoints, in a folder that is not a link",
    "ssl/training/checksums.py: os.open": "syncs files that were just written",
    "ssl/training/sharded_state.py: save_file": "in a folder that was just made",
    "ssl/training/whole_state.py: save_file": "in a folder that was just made",
}


def writes(tree: ast.AST, safe: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
    """Line and name of every call that writes a file, other than to a path from `files.replacing` or `output_paths.writing`.

    `safe`: names of such paths in the function around.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield from writes(node)
            continue
        here = safe
        if isinstance(node, ast.With):
            here |= {
                item.optional_vars.id
                for item in node.items
                if isinstance(item.optional_vars, ast.Name)
                and isinstance(item.context_expr, ast.Call)
                and dotted(item.context_expr.func).split(".")[-1] in ("replacing", "writing")
            }
        yield from writes(node, here)
        if isinstance(node, ast.Call) and (name := written_by(node, safe)):
            yield node.lineno, name


def written_by(call: ast.Call, safe: frozenset[str]) -> str | None:
    """The name of this call, if it writes a file."""
    name = dotted(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = [*call.args, *(word.value for word in call.keywords)]
    if (name in ("open", "io.open", "gzip.open") or method == "open") and name != "os.open":
        texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        found = any(set("wax+") & set(text) for text in texts if set(text) <= set("rwaxbt+"))
    else:
        found = name in WRITE_FUNCTIONS or method in WRITE_METHODS or (method == "replace" and len(given) == 1)
    targets = [*given, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
    if any(isinstance(target, ast.Name) and target.id in safe for target in targets):
        return None
    return (name or method) if found else None


def test_files_of_a_run_folder_are_written_in_one_way():
    """Through `wildfern.files`, so that no link is followed, no FIFO waited for, and no file is torn on a full disk."""
    found = {
        f"{name_of(path)}: {name}": f"{name_of(path)}:{line}: {name}"
        for path in [*python_files("launch", "ssl/tracking", "ssl/training"), ROOT / "ssl/evaluation/report/page.py"]
        for line, name in writes(tree_of(path))
    }
    assert [place for key, place in found.items() if key not in WRITES_ALLOWED] == []
    assert WRITES_ALLOWED.keys() - found.keys() == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path, 'w')", ["open"]),
        ("path.open(mode='ab')", ["path.open"]),
        ("(folder / 'x').open('r+')", ["open"]),
        ("gzip.open(path, 'wt')", ["gzip.open"]),
        ("path.open('rb')", []),
        ("open(path)", []),
        ("os.open(path, flags)", ["os.open"]),
        ("(folder / 'x').write_text(text)", ["write_text"]),
        ("path.replace(other)", ["path.replace"]),
        ("text.replace('a', 'b')", []),
        ("torch.save(state, path)", ["torch.save"]),
        ("image.save(path)", ["image.save"]),
        ("with replacing(path) as beside:\n    beside.write_bytes(b'')\n    torch.save(state, beside)", []),
        ("with open_tracker() as beside:\n    beside.write_bytes(b'')", ["beside.write_bytes"]),
    ],
)
def test_writes_are_detected(code, found):
    assert [name for _, name in writes(ast.parse(code))] == found


def hidden_draws(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every call that uses or seeds a random state that seed and index do not determine."""
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


def test_no_kernel_allows_fused_or_reordered_arithmetic():
    """So that kernels give identical bytes on all processors; `test_streams` also renders without vector extensions."""
    wrong = [
        f"{name_of(path)}:{call.lineno}: {word.arg}"
        for path in python_files("generators")
        for _, call in calls(tree_of(path))
        for word in call.keywords
        if word.arg in ("fastmath", "parallel")
    ]
    assert wrong == []


def test_no_hidden_randomness():
    wrong = [
        f"{name_of(path)}:{line}: {name}"
        for path in python_files(*SHIPPED)
        for line, name in hidden_draws(tree_of(path))
    ]
    assert wrong == []


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
def test_hidden_randomness_is_detected(code, found):
    assert [name for _, name in hidden_draws(ast.parse(code))] == found


def test_relative_imports_are_resolved():
    code = (
        "from . import a\nfrom .b import c\nfrom ..data.base import Source\nimport torch.nn\ndef f():\n    from wandb import x\n"
        "if TYPE_CHECKING:\n    from wildfern.launch import pretrain\n"
    )
    names = {name for _, name in imports(ast.parse(code), "wildfern.ssl.models")}
    expected = {
        "wildfern.ssl.models.a",
        "wildfern.ssl.models.b.c",
        "wildfern.ssl.data.base.Source",
        "torch.nn",
        "wandb.x",
    }
    assert names == expected
