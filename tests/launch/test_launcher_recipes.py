"""The recipe that the processes of a launcher train, and that of each such command in the documents."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wildfern.launch.components import read_recipe
from wildfern.launch.pretrain import launched
from wildfern.recipes import RecipeErrors

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def engine(recipe: str | Path, *overrides: str) -> tuple[str, dict]:
    read = read_recipe(recipe, launched(list(overrides)), data_here=False)
    return read.engine.name, read.engine.arguments


def test_the_command_line_sets_the_launchers_engine():
    assert engine("quickstart") == ("deepspeed", {"zero_stage": 1, "timeout_minutes": 10.0})
    assert engine("quickstart", "engine.zero_stage=0")[1]["zero_stage"] == 0
    assert engine("quickstart", "engine={zero_stage: 2}") == ("deepspeed", {"zero_stage": 2, "timeout_minutes": 10.0})
    assert engine("quickstart", "engine={name: deepspeed, timeout_minutes: 2}")[1]["timeout_minutes"] == 2
    assert engine("quickstart", "engine.name=torch") == ("torch", {})


def test_a_recipe_keeps_the_settings_of_its_own_deepspeed(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: quickstart\nengine:\n  name: deepspeed\n  zero_stage: 3\n  timeout_minutes: 4\n")
    assert engine(file) == ("deepspeed", {"zero_stage": 3, "timeout_minutes": 4})
    assert engine(file, "engine.zero_stage=0") == ("deepspeed", {"zero_stage": 0, "timeout_minutes": 4})
    file.write_text("extends: quickstart\nengine:\n  name: torch\n")
    assert engine(file) == ("deepspeed", {"zero_stage": 1, "timeout_minutes": 10.0})


def test_the_launchers_module_does_not_take_the_name_of_the_function():
    code = "import wildfern.launch.pretrain; from wildfern.launch import pretrain; pretrain.__code__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_setting_of_the_engine_is_an_error():
    with pytest.raises(RecipeErrors, match="zero_stage"):
        engine("quickstart", "engine.zero_stag=0")


def commands() -> list[str]:
    """Those of blocks and of lines, of every launcher, that name a recipe; `…` and R stand for any."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        code = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
        lines = [line.split("  #")[0].strip() for block in code for line in block.splitlines()]
        started = [
            line for line in lines if re.match(r"(deepspeed|torchrun|srun|sbatch)\b.*(--recipe|slurm\.sbatch) ", line)
        ]
        found += started
    return sorted(set(found))


def test_every_launcher_is_among_the_documented_commands():
    assert {command.split()[0] for command in commands()} >= {"deepspeed", "torchrun", "sbatch"}


@pytest.mark.parametrize("command", commands())
def test_the_recipe_of_a_documented_command_loads(command):
    words = shlex.split(command)
    marker = "--recipe" if "--recipe" in words else "slurm.sbatch"
    after = words[words.index(marker) + 1 :]
    recipe = "quickstart" if after[0] in ("…", "R") else after[0]
    name, _ = engine(recipe, *(word for word in after[1:] if re.match(r"[a-z_0-9.]+=", word)))
    assert name == "deepspeed"
