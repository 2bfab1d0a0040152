"""README and docs: Python blocks and all commands run (made small) or are marked, links exist, the site builds."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from documented_commands import PROGRAMS, Command, commands, commands_in, idle_marks, python_blocks
from documented_launchers import launch
from forked_series import ForkedChild
from small_commands import (
    ELSEWHERE,
    check_pip,
    check_pytest,
    make_benchmarks_small,
    make_workplace,
    small,
    small_launch,
)
from small_runs import TINY, few_digits
from typer.main import get_command

from wildfern import registry as registry_module
from wildfern.launch.cli import app
from wildfern.registry import REGISTRIES
from wildfern.ssl.evaluation.protocols import logistic_regression

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [command for page in PAGES for command in commands(page)]
SCRIPT = "docs/train_on_a_stream.py"

# Python of the pages, made small: each text on the left is on some page.
SMALLER = {
    '["training.steps=200"]': repr([*TINY, "training.steps=2"]),
    'Backbone("resnet18", stem="cifar")': 'Backbone("resnet18", layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])',
    'Backbone("resnet18", "student.pth", stem="cifar")': 'Backbone("resnet18", "student.pth", layers=[1] * 4, channels=[8] * 4)',
    "torch.nn.Linear(512, ": "torch.nn.Linear(8, ",
    ".read(np.arange(200))": ".read(np.arange(60))",
    '"training.batch_size=16",': f'*{[word for word in TINY if word.startswith("model.")]}, "training.batch_size=16",',
}


@pytest.fixture(scope="module", autouse=True)
def small_evaluations():
    """Few digits, and linear probes that are not trained to the end."""
    with pytest.MonkeyPatch.context() as patch:
        few_digits(patch)
        patch.setattr(logistic_regression, "MAX_ITERATIONS", 3)
        yield


@pytest.fixture
def unregistered():
    """What pages register is not for other tests."""
    yield
    for registry in REGISTRIES.values():
        for origin in set(registry.foreign().values()):
            registry.forget(origin)
    registry_module._plugins.clear()
    registry_module._modules.clear()


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, unregistered):
    monkeypatch.chdir(tmp_path)
    source = "\n".join(python_blocks(page))
    for text, smaller in SMALLER.items():
        source = source.replace(text, smaller)
    exec(compile(source, str(page), "exec"), {})


def test_the_replaced_texts_are_on_the_pages():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [old for old in SMALLER if old not in text] == []


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the commands need; with the Python files of the pages, by the comment in their first line."""
    folder = tmp_path_factory.mktemp("workplace")
    make_workplace(folder)
    for page in PAGES:
        for block in python_blocks(page):
            if name := re.match(r"# (\w+\.py)\b", block):
                (folder / name[1]).write_text(block, encoding="utf-8")
    return folder


RUNNABLE = sorted({shlex.join(c.words): c for c in COMMANDS if not (c.reason or c.is_name)}.items())


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for _, command in RUNNABLE], ids=[text for text, _ in RUNNABLE])
def test_commands_run(command, workplace, monkeypatch, capsys, unregistered):
    monkeypatch.chdir(workplace)
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("wildfern.launch.series_processes.start", ForkedChild)
    run(command, workplace, monkeypatch, capsys)


def run(command: Command, workplace: Path, monkeypatch, capsys) -> None:
    program, *arguments = command.arguments
    if " ".join(command.arguments) in ELSEWHERE:
        assert ELSEWHERE[" ".join(command.arguments)] in globals()
    elif program == "wildfern":
        make_benchmarks_small(monkeypatch)
        assert app(small(arguments), standalone_mode=False) in (None, 0)
    elif program in ("deepspeed", "torchrun"):
        codes, output = launch([program, *small_launch(arguments)], workplace)
        assert set(codes) == {0}, output
    elif arguments[:1] == ["-m"]:
        run_module(arguments[1], arguments[2:], monkeypatch)
    elif arguments == [SCRIPT]:
        run_script(workplace, monkeypatch, capsys)
    elif program == "pip":
        check_pip(arguments)
    elif program == "pytest":
        check_pytest(arguments, ROOT)
    elif program == "cp":
        subprocess.run(["bash", "-c", command.text], check=True, timeout=60)
    else:
        pytest.fail(f"{command.page}: nothing runs {command.text!r}: add it to tests/small_commands.py, or mark it")


def run_module(module: str, arguments: list[str], monkeypatch) -> None:
    """`python -m`, in this process: the benchmarks."""
    make_benchmarks_small(monkeypatch)
    changed = {"--seeds": "1", "--steps": "1"}
    for option, value in changed.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    threads = torch.get_num_threads()
    try:
        sys.modules[module].main()  # imported, with its constants made small
    finally:
        torch.set_num_threads(threads)


def run_script(workplace: Path, monkeypatch, capsys) -> None:
    source = (ROOT / SCRIPT).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 30
    small = source.replace("else 300, 64\n", "else 300, 8\n").replace("size=64, points=4000", "size=32, points=400")
    assert small != source
    script = workplace / "train.py"
    script.write_text(small, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(script), "20"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith("step 20  loss ")


def test_the_objective_for_optuna_returns_the_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = python_blocks(ROOT / "docs" / "series.md")[-1]
    changes = [*TINY[:-1], "training.steps=1", "evaluation.protocols=[linear]", "evaluation.few_shot=[]"]
    small = source.replace('"training.steps=500"', ", ".join(map(repr, changes)))
    assert small != source
    names: dict = {}
    exec(compile(small, "series.md", "exec"), names)

    class Trial:
        number = 3

        def suggest_float(self, name, low, high, log):
            return (low * high) ** 0.5

    found = names["objective"](Trial())
    rows = json.loads((tmp_path / "runs/optuna/3/evaluation.json").read_text())["rows"]
    assert [found] == [row["value"] for row in rows if (row["backbone"], row["metric"]) == ("pretrained", "accuracy")]
    assert "learning_rate: 0.001\n" in (tmp_path / "runs/optuna/3/recipe.yaml").read_text()


def test_the_command_of_the_wandb_sweep_is_one_of_ours():
    from wildfern.launch.components import read_recipe

    page = (ROOT / "docs" / "series.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [sweep] = [yaml.safe_load(block) for block in blocks if "program:" in block]
    program, command, recipe, *changes, given = sweep["command"]
    assert (program, command, given) == ("wildfern", "pretrain", "${args_no_hyphens}")
    drawn = [f"{key}={space.get('min', space.get('values', [0])[0])}" for key, space in sweep["parameters"].items()]
    evaluation = read_recipe(recipe, [*changes, *drawn]).evaluation
    names = [f"{data.source}/{protocol.name}" for data in evaluation.on for protocol in evaluation.protocols]
    assert sweep["metric"]["name"] in names
    assert evaluation.every is not None


def test_names_of_commands_exist():
    """A code span with a program and one word, such as `wildfern plan`, names a command; `wildfern` has it."""
    known = get_command(app).commands
    named = {command.arguments[1]: command for command in COMMANDS if command.is_name and command.words[1:]}
    assert [f"{command.page}: {command.text}" for name, command in named.items() if name not in known] == []


def test_marks_of_commands_belong_to_commands():
    found = {page.name: idle_marks(page.read_text(encoding="utf-8")) for page in PAGES}
    assert {name: reasons for name, reasons in found.items() if reasons} == {}


def test_commands_are_found_with_their_marks():
    """In blocks of any language, in code spans over two lines, behind variables; and no output of commands."""
    page = (
        "Text `wildfern\nplan RECIPE` and `A=1 python -m some.module` <!-- not run: slow --> and `wildfernish` and `pip`.\n"
        "```bash\ncp a b && wildfern doctor   # check\nwildfern pretrain \\\n    quickstart\n```\n"
        "<!-- not run: needs two hosts -->\n```\ndeepspeed --hostfile hosts\nrank 5 is gone\n```\n"
        "- item\n  ```\n  $ wildfern stats digits\n  ```\n```python\nwildfern = 1\n```\n<!-- not run: of nothing -->\n"
    )
    found = commands_in(page, "page.md")
    assert [(c.arguments, c.environment, c.reason, c.is_name) for c in found] == [
        (["cp", "a", "b"], {}, None, False),
        (["wildfern", "doctor"], {}, None, False),
        (["wildfern", "pretrain", "quickstart"], {}, None, False),
        (["deepspeed", "--hostfile", "hosts"], {}, "needs two hosts", False),
        (["wildfern", "stats", "digits"], {}, None, False),
        (["wildfern", "plan", "RECIPE"], {}, None, False),
        (["python", "-m", "some.module"], {"A": "1"}, "slow", False),
        (["pip"], {}, None, True),
    ]
    assert idle_marks(page) == ["of nothing"]


def test_every_page_is_read_for_commands():
    """A program in the middle of a line or behind another one is not found; no page has such a line in a block."""
    hidden = []
    for page in PAGES:
        text = "\n".join(re.findall(r"^ *```(?:bash|)\n(.*?)^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
        whole = "\n".join(command.text for command in commands(page))
        text = re.sub(r"\\\n\s*", "", text)
        for line in text.splitlines():
            if (
                re.search(rf"(?:^|[|;&(] *)(?:{'|'.join(PROGRAMS)}) ", line)
                and line.split(" && ")[0].strip() not in whole
            ):
                hidden.append(f"{page.name}: {line}")
    assert hidden == []


@pytest.mark.slow
def test_the_site_builds_and_needs_no_network(tmp_path, monkeypatch):
    """Strict: a broken link, anchor or reference is an error."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    monkeypatch.setenv("WILDFERN_LINKS", str(tmp_path / "packages"))
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # and a search page
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    text += "\n".join(style.read_text(encoding="utf-8") for style in (tmp_path / "site").rglob("*.css"))
    loaded = r"""(?:<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=|url\(|@import )["']?(?:https?:)?//[^"')\s]*"""
    assert re.findall(loaded, text) == []
    assert 'id="wildfern.ssl.losses.CACRLoss"' in text
    assert "‖z_x − z_k‖²" in text


def test_links_and_images_exist():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "reference").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
