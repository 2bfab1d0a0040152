"""Registries: built-in components, conflicts, packages with entry points, and plugin files."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from wildfern import registry as registry_module
from wildfern.registry import (
    GENERATORS,
    METHODS,
    OPTIMIZERS,
    REGISTRIES,
    SOURCES,
    ComponentError,
    PluginError,
    Registry,
    load_plugin,
    loaded_plugin,
    register,
)

BUILT_IN = {
    "generator": {"ifs", "ifs_multi", "ifs_pair", "fractaldb", "one_fractal", "texture"},
    "source": {"digits", "cifar10", "folder", "parquet", "ifs"},
    "views": {"simclr", "byol", "mocov3", "swav", "dino", "multicrop"},
    "method": {"simclr", "cacr", "cacr_momentum", "dino"},
    "optimizer": {"adamw", "sgd", "lars", "lamb"},
    "schedule": {"cosine", "constant", "milestones", "polynomial"},
    "engine": {"torch", "deepspeed"},
    "evaluator": {"linear", "knn", "finetune", "few_shot", "retrieval"},
}

OPTIMIZER = """
import torch
from wildfern.registry import register

@register("optimizer", "{name}", layer_wise={layer_wise})
def mine(groups, *, learning_rate: float, weight_decay: float = 0.0, factor: float = {factor}):
    return torch.optim.SGD(groups, lr=learning_rate * factor)
"""


def forget_all():
    for registry in REGISTRIES.values():
        for origin in set(registry.foreign().values()):
            registry.forget(origin)
    registry_module._plugins.clear()
    registry_module._modules.clear()


@pytest.fixture(autouse=True)
def _only_built_in_components_before_and_after():
    forget_all()
    yield
    forget_all()


def plugin(folder, file="mine.py", name="mine", layer_wise=False, factor=1.0):
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(OPTIMIZER.format(name=name, layer_wise=layer_wise, factor=factor))
    return path


@pytest.mark.parametrize("kind", BUILT_IN)
def test_built_in_components_are_registered_by_importing_the_registry_alone(kind):
    assert BUILT_IN[kind] <= set(REGISTRIES[kind])
    assert {str(REGISTRIES[kind].origin(name)) for name in BUILT_IN[kind]} == {"wildfern"}
    assert len(REGISTRIES[kind]) == len(list(REGISTRIES[kind]))


def test_a_generator_is_a_source_and_shares_its_names():
    assert SOURCES["ifs"] is GENERATORS["ifs"]
    with pytest.raises(ComponentError, match=r"generator 'digits' of .* has the name of the source of wildfern"):
        register("generator", "digits")(object)
    with pytest.raises(ComponentError, match=r"source 'ifs' of .* has the name of the generator of wildfern"):
        register("source", "ifs")(object)


def test_taken_unknown_and_invalid_names_are_refused():
    with pytest.raises(
        ComponentError, match=r"registered as method 'simclr': one from wildfern, one from .*test_registry"
    ):
        register("method", "simclr")(object)
    with pytest.raises(ComponentError, match="unknown kind of component 'metod'; known: generator, source"):
        register("metod", "x")
    with pytest.raises(ComponentError, match="letters, digits"):
        register("source", "a:b")(object)
    with pytest.raises(KeyError):
        METHODS["nowhere"]


def test_a_plugin_file_registers_once_however_often_it_is_loaded(tmp_path):
    path = plugin(tmp_path)
    load_plugin(path)
    component = OPTIMIZERS["mine"]
    copy = tmp_path / "copy.py"
    copy.write_bytes(path.read_bytes())
    load_plugin(copy)
    load_plugin(str(path))
    assert OPTIMIZERS["mine"] is component
    assert str(OPTIMIZERS.origin("mine")) == str(path)
    assert loaded_plugin(path).content == path.read_bytes()


def test_a_changed_plugin_file_replaces_what_it_registered(tmp_path):
    load_plugin(plugin(tmp_path))
    load_plugin(plugin(tmp_path, factor=3.0))
    assert OPTIMIZERS["mine"].__kwdefaults__["factor"] == 3.0


def test_a_name_conflict_names_both_files_and_unregisters_the_second(tmp_path):
    load_plugin(plugin(tmp_path, "one.py"))
    second = plugin(tmp_path, "two.py", factor=2.0)
    second.write_text(OPTIMIZER.format(name="other", layer_wise=False, factor=1.0) + second.read_text())
    with pytest.raises(
        PluginError, match=r"two\.py: .*optimizer 'mine': one from .*one\.py, one from .*two\.py \(line 12\)"
    ):
        load_plugin(second)
    assert "other" not in OPTIMIZERS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_of_this_name", r"ModuleNotFoundError: No module named 'nothing_of_this_name' \(line 1\)"),
        ("\n\ndef f(:\n", r"SyntaxError: .* \(line 3\)"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \(line 2\)"),
    ],
)
def test_errors_in_a_plugin_have_its_line(tmp_path, content, message):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(PluginError, match=r"bad\.py: " + message):
        load_plugin(tmp_path / "bad.py")


def test_a_file_that_is_not_python_is_refused(tmp_path):
    with pytest.raises(PluginError, match="cannot be read: No such file"):
        load_plugin(tmp_path / "none.py")
    with pytest.raises(PluginError, match="must be a Python file"):
        load_plugin(tmp_path / "mine.txt")


def test_running_a_plugin_writes_no_byte_code(tmp_path):
    load_plugin(plugin(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_layer_wise_optimizer_is_declared_by_its_attribute(tmp_path):
    from wildfern.ssl.training import is_layer_wise

    load_plugin(plugin(tmp_path, layer_wise=True))
    assert [name for name in OPTIMIZERS if is_layer_wise(name)] == ["lars", "lamb", "mine"]


def test_a_component_must_be_a_class_or_a_function():
    with pytest.raises(ComponentError, match="optimizer 'three' must be a class or a function, got int"):
        register("optimizer", "three")(3)


def test_a_package_that_exits_at_import_does_not_end_the_program(tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("method", "none", "wildfern.ssl.methods")
    registry._entry_points = {"leaves": [EntryPoint("leaves", "leaves:it", "none")]}
    with pytest.raises(ComponentError, match="cannot be imported: SystemExit"):
        registry["leaves"]


SETUP = """
from setuptools import setup
setup(name="fern-extras", version="1.2", py_modules=["fern_extras"], entry_points={{
    "wildfern.optimizers": ["packaged = fern_extras:mine", "{taken} = fern_extras:mine"],
    "wildfern.methods": ["broken = fern_extras:nothing"],
}})
"""


def installed(folder, taken):
    source = folder / "source"
    source.mkdir()
    (source / "setup.py").write_text(SETUP.format(taken=taken))
    (source / "fern_extras.py").write_text(OPTIMIZER.format(name="packaged", layer_wise=True, factor=2.0))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


PROGRAM = """
from wildfern.registry import METHODS, OPTIMIZERS, ComponentError
import sys
from importlib.metadata import EntryPoint
assert "fern_extras" not in sys.modules and "packaged" in OPTIMIZERS and "fern_extras" not in sys.modules
print(OPTIMIZERS.origin("packaged"), "|", OPTIMIZERS["packaged"].layer_wise, "|", OPTIMIZERS.origin("packaged"))
for registry, name in ((METHODS, "broken"), (OPTIMIZERS, "sgd")):
    try:
        registry[name]
    except ComponentError as error:
        print(error)
from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors
read = read_recipe("quickstart", ["optimizer={name: packaged, learning_rate: 0.1}"])
print(read.optimizer.arguments)
try:
    read_recipe("quickstart", ["optimizer={name: packagd, learning_rate: 0.1}", "method={name: broken}"])
except RecipeErrors as error:
    print(error)
"""


@pytest.mark.slow
def test_a_package_registers_through_entry_points(tmp_path):
    environment = installed(tmp_path, taken="sgd")
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "fern-extras 1.2 | True | fern-extras 1.2"
    assert lines[1].startswith("method 'broken' of the package fern-extras 1.2 cannot be imported: AttributeError")
    assert lines[2] == "two components are registered as optimizer 'sgd': one from wildfern, one from fern-extras 1.2"
    assert lines[3] == "{'learning_rate': 0.1, 'weight_decay': 0.0001, 'factor': 2.0}"
    assert "method.name: method 'broken' of the package fern-extras 1.2 cannot be imported" in run.stdout
    assert "did you mean packaged?" in run.stdout
