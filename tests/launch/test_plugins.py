"""One file adds every kind of component, by the recipe key, --plugin and Python, and a run folder records it as data."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked_runs import ForkedRun
from small_runs import TINY

from wildfern import registry as registry_module
from wildfern.launch import pretrain
from wildfern.launch.components import components, read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import RecipeErrors, json_schema, load_recipe
from wildfern.registry import REGISTRIES, load_plugin
from wildfern.ssl.tracking import read_records

EVERY_KIND = '''
"""A component of each kind."""

import numpy as np
import torch

from wildfern.generators import ImageBatch
from wildfern.registry import register
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import Evaluator
from wildfern.ssl.methods import SimCLR
from wildfern.ssl.training import EngineParts, Schedule
from wildfern.ssl.training.engines import torch_engine


@register("generator", "stripes")
class Stripes:
    num_classes = None

    def __init__(self, *, size: int = 32, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def batch(self, indices):
        rows = (np.arange(self.size)[None] * (np.asarray(indices)[:, None] + self.seed + 1)) % 256
        shape = (len(indices), self.size, self.size, 3)
        return ImageBatch(np.broadcast_to(rows[:, :, None, None], shape).astype(np.uint8))


@register("source", "noise")
class Noise(Source):
    def __init__(self, pattern: str, split: str = "train", *, count: int = 8) -> None:
        super().__init__()
        self.num_items, self.letters = count, pattern

    def read(self, items):
        pixels = [np.random.default_rng([len(self.letters), i]).integers(0, 256, (32, 32, 3), np.uint8) for i in items]
        return Images(np.stack(pixels))


@register("views", "plain")
def plain(*, size: int = 32):
    return simclr(size=size, jitter=0.0, blur=0.0)


@register("method", "mine")
class Mine(SimCLR):
    def __init__(self, backbone, total_steps: int, *, heat: float = 0.3) -> None:
        super().__init__(backbone, total_steps, temperature=heat, projection_hidden=16, projection_size=8)


@register("optimizer", "plain_sgd", layer_wise=True)
def plain_sgd(groups, *, learning_rate: float, weight_decay: float = 0.0):
    return torch.optim.SGD(groups, lr=learning_rate)


@register("schedule", "half")
def half(total_steps: int, *, share: float = 0.5):
    return Schedule(lambda step: share)


@register("engine", "mine")
def engine(parts: EngineParts, *, loud: bool = False):
    return torch_engine(parts)


@register("evaluator", "mine")
class MyEvaluator(Evaluator):
    needs = "features"

    def __init__(self, *, k: int = 3) -> None:
        self.k = k

    def __call__(self, train, test):
        return []
'''
NAMES = {"generator": "stripes", "source": "noise", "views": "plain", "method": "mine", "optimizer": "plain_sgd"}
NAMES |= {"schedule": "half", "engine": "mine", "evaluator": "mine"}

SMALL = [change for change in TINY if not change.startswith(("method.", "data.", "views."))]
ALL = [*SMALL, "data=[{source: stripes, size: 32}, 'noise:abc']", "views={name: plain, size: 32}"]
ALL += ["method={name: mine, heat: 0.2}", "optimizer={name: plain_sgd, learning_rate: 0.01}", "schedule={name: half}"]
ALL += ["evaluation.protocols=[{name: mine, k: 5}, linear]", "training.steps=2", "training.checkpoint_every=2"]


def forget_plugins():
    for registry in REGISTRIES.values():
        for origin in set(registry.foreign().values()):
            registry.forget(origin)
    registry_module._plugins.clear()
    registry_module._modules.clear()


@pytest.fixture(autouse=True)
def _only_built_in_components_before_and_after():
    forget_plugins()
    yield
    forget_plugins()


def deepspeed_launcher():
    """The module beside this one that starts the deepspeed launcher."""
    spec = importlib.util.spec_from_file_location("deepspeed_launcher", Path(__file__).with_name("test_deepspeed.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(tmp_path):
    """A plugin file with a component of each kind."""
    path = tmp_path / "every_kind.py"
    path.write_text(EVERY_KIND)
    return path


def test_one_file_adds_every_kind_and_a_run_uses_and_records_them(file, tmp_path):
    run = pretrain("quickstart", [*ALL, "engine={name: mine, loud: true}"], run=tmp_path / "run", plugins=[file])
    assert [row["step"] for row in read_records(run / "metrics.jsonl")] == [0, 1]
    assert read_records(run / "metrics.jsonl")[0]["learning_rate"] == pytest.approx(0.005)
    assert (run / "plugins" / "every_kind.py").read_bytes() == file.read_bytes()
    rows = json.loads((run / "environment.json").read_text())["plugins"]
    assert {row["kind"]: row["name"] for row in rows} == NAMES
    assert {(row["origin"], row["file"], len(row["sha256"])) for row in rows} == {
        ("every_kind.py", "plugins/every_kind.py", 64)
    }
    text = (run / "recipe.yaml").read_text()
    assert "plugins: [plugins/every_kind.py]" in text
    again = read_recipe(run / "recipe.yaml", plugins=[run / "plugins" / "every_kind.py"])
    assert (again.method.name, again.method.arguments) == ("mine", {"heat": 0.2})
    assert [(p.name, p.arguments) for p in again.evaluation.protocols] == [("mine", {"k": 5}), ("linear", {})]


def test_the_recipe_of_a_run_folder_does_not_run_its_plugins(tmp_path):
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins" / "mine.py"
    plugin.write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()")
    for part in ("recipe.yaml", "metrics.jsonl"):
        (tmp_path / part).write_text("extends: quickstart\nplugins: [plugins/mine.py]\n" * (part == "recipe.yaml"))
    with pytest.raises(RecipeErrors, match=f"are not run by themselves: read {plugin}, then pass --plugin {plugin}"):
        read_recipe(tmp_path / "recipe.yaml")
    assert not (tmp_path / "was_run").exists()
    read_recipe(tmp_path / "recipe.yaml", plugins=[plugin])
    assert (tmp_path / "was_run").exists()


def test_components_of_plugins_are_in_the_schema_in_hints_and_in_known_lists(file):
    load_plugin(file)
    schema = json.dumps(json_schema(components()))
    assert all(f'"title": "{name}"' in schema for name in NAMES.values())
    with pytest.raises(RecipeErrors) as caught:
        read_recipe("quickstart", ["data=stripe", "method={name: mine, heet: 1}", "evaluation.protocols=[mina]"])
    message = str(caught.value)
    assert "unknown source 'stripe'; did you mean stripes?" in message
    assert "method.heet: unknown key; did you mean method.heat?" in message
    assert "unknown protocol 'mina'; did you mean mine? (known: anomaly, attentive, " in message
    assert "linear_sgd, mine, regression" in message


def test_the_recipe_key_is_relative_to_the_file_that_names_it_and_adds_up(file, tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    shutil.move(file, tmp_path / "recipes" / "every_kind.py")
    (tmp_path / "recipes" / "first.yaml").write_text("extends: quickstart\nplugins: [every_kind.py]\n")
    (tmp_path / "second.yaml").write_text("extends: recipes/first.yaml\nplugins: more.py\nmethod: {name: mine}\n")
    (tmp_path / "more.py").write_text("from wildfern.registry import register\nregister('views', 'more')(dict)\n")
    (tmp_path / "third.py").write_text("third = 3\n")
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("second.yaml", ["plugins=[third.py]"])
    assert recipe.plugins == ["recipes/every_kind.py", "more.py", "third.py"]
    assert recipe.method.arguments == {"heat": 0.3}


def test_errors_of_a_plugin_are_reported_with_all_others(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\nraise OSError('no disk')\n")
    (tmp_path / "mine.yaml").write_text("extends: quickstart\nplugins: [bad.py, none.py]\nviews: {siz: 3}\n")
    with pytest.raises(RecipeErrors) as caught:
        read_recipe(tmp_path / "mine.yaml", ["plugins.0=x.py", "plugins=3"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert any("mine.yaml: plugins: " in line and "bad.py: OSError: no disk (line 2)" in line for line in lines)
    assert any("none.py: cannot be read" in line for line in lines)
    assert any("command line: plugins.0: write the whole list" in line for line in lines)
    assert any("command line: plugins: must be a list of Python files, got 3" in line for line in lines)
    assert any("views.siz: unknown key" in line for line in lines)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            "    def __init__(self, backbone, steps):\n        self.backbone = backbone\n",
            "must call super().__init__() before",
        ),
        (
            "    def __init__(self, backbone, steps):\n        super().__init__()\n    forward = None\n",
            "set self.backbone",
        ),
        ("    def __init__(self, backbone, steps):\n        super().__init__()\n", "has no forward(batch)"),
    ],
)
def test_a_method_without_a_part_of_the_interface_is_named(body, error, tmp_path):
    plugin = tmp_path / "odd.py"
    head = "from wildfern.registry import register\nfrom wildfern.ssl.methods import Method\n"
    plugin.write_text(f"{head}@register('method', 'odd')\nclass Odd(Method):\n{body}")
    changes = [change for change in TINY if not change.startswith("method.")]
    with pytest.raises(RunError, match="method odd.*" + re.escape(error)):
        pretrain("quickstart", [*changes, "method.name=odd"], plugins=[plugin], run=tmp_path / "run")


HALVES = """
from wildfern.registry import register
from wildfern.ssl.methods import ComparingMethod, SimCLR
@register("method", "halves")
class Halves(SimCLR):
    def forward(self, batch):
        return super().forward(batch)
@register("method", "odd")
class Odd(ComparingMethod):
    def __init__(self, backbone, steps):
        super().__init__()
        self.backbone = backbone
    embed = SimCLR.embed
"""


def test_a_method_that_compares_only_the_images_of_a_part_says_so(tmp_path, capsys):
    (tmp_path / "halves.py").write_text(HALVES)
    changes = [*TINY, "method.name=halves", "training.steps=1", "training.accumulation=2"]
    pretrain("quickstart", changes, plugins=[tmp_path / "halves.py"], run=tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "training.accumulation: halves compares the 4 images of each part, not all 8 of a batch" in said
    pretrain("quickstart", [*TINY, "training.steps=1", "training.accumulation=2"], run=tmp_path / "other")
    assert "of each part" not in capsys.readouterr().out
    changes = [change for change in TINY if not change.startswith("method.")]
    with pytest.raises(RunError, match=r"method odd has no compare\(embeddings, step\) that returns an Output"):
        pretrain("quickstart", [*changes, "method.name=odd"], plugins=[tmp_path / "halves.py"], run=tmp_path / "odd")


def test_a_method_that_is_not_a_method_is_an_error_of_the_recipe(tmp_path):
    plugin = tmp_path / "odd.py"
    plugin.write_text("from wildfern.registry import register\n@register('method', 'odd')\ndef odd(*arguments): ...\n")
    with pytest.raises(RecipeErrors, match=r"method\.name: odd is not a subclass of wildfern\.ssl\.methods\.Method"):
        read_recipe("quickstart", ["method.name=odd"], plugins=[plugin])


FAULTY = """
import torch
from wildfern.registry import register
from wildfern.ssl.methods import SimCLR

@register("method", "faulty")
class Faulty(SimCLR):
    def __init__(self, backbone, total_steps: int, *, fault: str) -> None:
        super().__init__(backbone, total_steps, projection_hidden=8, projection_size=4)
        self.fault = fault

    def forward(self, batch):
        if self.fault == "late":
            self.late = torch.nn.Linear(2, 2)
        elif self.fault == "key":
            {}["a"]
        elif self.fault == "value":
            a, b = [1]
        return super().forward(batch)
"""


@pytest.mark.parametrize(
    ("fault", "code", "start", "end"),
    [
        ("key", 1, "error in faulty.py:\nTraceback (most recent call last):\n  File", "line 16, in forward\n"),
        ("value", 2, "not enough values to unpack", "(faulty.py, line 18, in forward)\n"),
        ("late", 2, "Faulty has changed", "create all parameters and buffers in __init__(), in their final shape\n"),
    ],
)
def test_an_error_inside_a_plugin_is_shown_with_its_place_there(fault, code, start, end, wildfern, tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    changes = [change for change in TINY if not change.startswith("method.")]
    changes += [f"method={{name: faulty, fault: {fault}}}", "evaluation.on=[]", "evaluation.online_probe=null"]
    done = wildfern("pretrain", "quickstart", *changes, "--plugin", "faulty.py", "--run", "run")
    assert done.returncode == code, done.stderr
    message = done.stderr[done.stderr.index(start) :]
    assert end in message
    assert "cli.py" not in message
    assert "engine.py" not in message.partition("faulty.py")[0]


def test_a_run_folder_is_data_its_plugins_are_not_run(file, tmp_path):
    run = pretrain("quickstart", ALL, run=tmp_path / "run", plugins=[file])
    marker = tmp_path / "was_run"
    (run / "plugins" / "every_kind.py").write_text(f"open({str(marker)!r}, 'w')\n")
    forget_plugins()
    folder = RunFolder(run)
    recipe = folder.recipe(needs=())
    assert (recipe.method.arguments, recipe.model.backbone) == ({"heat": 0.2}, "resnet18")
    with pytest.raises(RunError) as caught:
        folder.backbone()
    copy = run / "plugins" / "every_kind.py"
    expected = (
        f"views 'plain' is not registered. This run needs the plugin every_kind.py: read {copy}, then pass --plugin"
    )
    assert expected in str(caught.value)
    assert not marker.exists()


def test_the_backbone_is_loaded_without_the_plugin_of_the_method(file, tmp_path):
    changes = [*TINY, "training.steps=1", "training.checkpoint_every=1", "method.name=mine"]
    changes = [change for change in changes if "projection" not in change]
    run = pretrain("quickstart", changes, run=tmp_path / "run", plugins=[file])
    forget_plugins()
    assert RunFolder(run).backbone().width == 8


def test_a_resumed_run_reports_a_changed_plugin(file, tmp_path, capsys):
    run = pretrain("quickstart", ALL, run=tmp_path / "run", plugins=[file])
    file.write_text(EVERY_KIND + "\n# another line\n")
    pretrain("quickstart", ALL, run=run, resume=True, plugins=[file])
    assert "every_kind.py has changed since this run was started" in "".join(capsys.readouterr())
    copies = sorted((path.name, path.read_text()) for path in (run / "plugins").iterdir())
    former = f"every_kind-{hashlib.sha256(EVERY_KIND.encode()).hexdigest()[:8]}.py"
    assert copies == [(former, EVERY_KIND), ("every_kind.py", file.read_text())]
    pretrain("quickstart", ALL, run=run, resume=True, plugins=[run / "plugins" / "every_kind.py"])
    assert "has changed" not in "".join(capsys.readouterr())


def test_two_plugins_of_one_file_name_are_both_kept(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        text = f"from wildfern.registry import register\nregister('views', 'in_{folder}')(dict)\n"
        (tmp_path / folder / "same.py").write_text(text)
    recipe = read_recipe("quickstart", plugins=[tmp_path / "a" / "same.py", tmp_path / "b" / "same.py"])
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe)
    first, second = load_recipe(folder.path / "recipe.yaml", [], components()).plugins
    assert (os.path.basename(first), os.path.basename(second)[:5]) == ("same.py", "same-")
    rows = json.loads((folder.path / "environment.json").read_text())["plugins"]
    assert {row["name"]: os.path.join(folder.path, row["file"]) for row in rows} == {"in_a": first, "in_b": second}


@pytest.mark.slow
def test_every_command_takes_plugins(file, tmp_path, wildfern):
    done = wildfern("pretrain", "quickstart", *ALL, "--plugin", str(file), "--run", "run")
    assert done.returncode == 0, done.stderr
    forget_plugins()  # all commands run in this process
    done = wildfern("views", "run", "--indices", "0-1")
    assert done.returncode == 2
    assert (
        "'stripes' is not registered. This run needs the plugin every_kind.py: read run/plugins/every_kind.py"
        in done.stderr
    )
    assert wildfern("views", "run", "--indices", "0-1", "--plugin", "run/plugins/every_kind.py").returncode == 0
    done = wildfern("export", "run")
    assert done.returncode == 0, done.stderr
    forget_plugins()
    assert wildfern("export", "run").returncode == 2
    assert wildfern("export", "run", "--plugin", "run/plugins/every_kind.py").returncode == 0
    forget_plugins()
    assert '"title": "stripes"' in wildfern("recipes", "--schema", "--plugin", str(file)).stdout
    forget_plugins()
    assert wildfern("render", "stripes", "--plugin", str(file), "--grid", "2x2").returncode == 0
    done = wildfern("recipes", "--plugin", "none.py")
    assert (done.returncode, done.stderr) == (2, "none.py: cannot be read: No such file or directory\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_a_plugin_trains_on_two_processes(file, tmp_path):
    started = ForkedRun(tmp_path / "run", [*ALL, f"plugins=[{file}]", "engine.zero_stage=0"], processes=2)
    assert started.wait() == 0, started.output()
    assert [row["step"] for row in read_records(tmp_path / "run" / "metrics.jsonl")] == [0, 1]


SETUP = """
from setuptools import setup
entry_points = {{}}
for kind, name in {names!r}.items():
    group = "wildfern.views" if kind == "views" else f"wildfern.{{kind}}s"
    entry_points[group] = [f"{{name}} = fern_extras:{{kind}}"]
setup(name="fern-extras", version="1.2", py_modules=["fern_extras"], entry_points=entry_points)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_a_package_with_entry_points_trains_on_two_processes(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text(SETUP.format(names=NAMES))
    text = re.sub(r"^@register.*\n", "", EVERY_KIND, flags=re.MULTILINE)  # entry points alone register here
    for kind in NAMES:
        component = re.search(rf'^@register\("{kind}".*\n(?:class|def) (\w+)', EVERY_KIND, re.MULTILINE)[1]
        text += f"\n{kind} = {component}"
    (source / "fern_extras.py").write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True, timeout=300)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    code, output = deepspeed_launcher().launch(2, tmp_path / "run", *ALL, "engine.zero_stage=0", cwd=tmp_path)
    assert code == 0, output
    assert [row["step"] for row in read_records(tmp_path / "run" / "metrics.jsonl")] == [0, 1]
    rows = json.loads((tmp_path / "run" / "environment.json").read_text())["plugins"]
    assert {(row["kind"], row["name"]) for row in rows} == set(NAMES.items())
    assert {(row["origin"], row["version"]) for row in rows} == {("fern-extras", "1.2")}


def test_an_unrecorded_missing_component_is_reported(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        read_recipe("quickstart").as_yaml().replace("name: simclr\n  size", "name: x\n  size")
    )
    with pytest.raises(
        RunError, match=r"views 'x' is not registered\. Pass the plugin file that registers it with --plugin"
    ):
        folder.recipe()
