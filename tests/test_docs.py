"""README and docs: Python blocks and `wildfern` commands run (made small), links exist, the site builds."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tifffile
import timm
import torch
import yaml
from forked_series import ForkedChild
from PIL import Image
from small_runs import TINY

from wildfern.launch.cli import app
from wildfern.registry import REGISTRIES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "\n".join(blocks(page, "python"))
    if not source:
        pytest.skip("no Python on this page")
    source = source.replace('["training.steps=200"]', repr([*TINY, "training.steps=2"]))
    source = source.replace('stem="cifar"', 'stem="standard"')  # sixteen times less to compute
    try:
        exec(compile(source, str(page), "exec"), {})
    finally:
        for registry in REGISTRIES.values():  # what the page registered is not for other tests
            for origin in set(registry.foreign().values()):
                registry.forget(origin)


@pytest.mark.slow
def test_the_script_that_trains_on_a_stream_runs(tmp_path):
    source = (ROOT / "docs" / "train_on_a_stream.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 30
    small = source.replace("else 300, 64\n", "else 300, 8\n").replace("size=64, points=4000", "size=32, points=400")
    assert small != source
    script = tmp_path / "train.py"
    script.write_text(small, encoding="utf-8")
    run = subprocess.run([sys.executable, str(script), "20"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("step 20  loss ")


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            found += [line.split("  #")[0].strip() for line in lines if line.startswith("wildfern ")]
    return sorted(set(found))


def test_the_objective_for_optuna_returns_the_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = blocks(ROOT / "docs" / "series.md", "python")[-1]
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

    [sweep] = [yaml.safe_load(block) for block in blocks(ROOT / "docs" / "series.md", "yaml") if "program:" in block]
    program, command, recipe, *changes, given = sweep["command"]
    assert (program, command, given) == ("wildfern", "pretrain", "${args_no_hyphens}")
    drawn = [f"{key}={space.get('min', space.get('values', [0])[0])}" for key, space in sweep["parameters"].items()]
    evaluation = read_recipe(recipe, [*changes, *drawn]).evaluation
    names = [f"{data.source}/{protocol.name}" for data in evaluation.on for protocol in evaluation.protocols]
    assert sweep["metric"]["name"] in names
    assert evaluation.every is not None


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the commands need: images and a finished run."""
    from wildfern.launch import pretrain

    folder = tmp_path_factory.mktemp("workplace")
    (folder / "images").mkdir()
    for i in range(8):
        Image.new("RGB", (48, 48), (i * 30, 255 - i * 30, i * 7)).save(folder / "images" / f"{i}.png")
    pretrain("quickstart", [*TINY, "training.steps=2"], run=folder / "runs" / "mine")
    for name in ("microscope", "export", "flowers", "other"):
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / name)
    write_data(folder)
    return folder


def write_data(folder: Path) -> None:
    """What docs/data.md is about: TIFFs of 12 bits, an export with splits, parquet files and a checkpoint."""
    rng = np.random.default_rng(0)
    for number in range(16):
        place = folder / "microscope" / "ab"[number % 2] / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 4096, (40, 40), dtype=np.uint16)).save(place)
        place = folder / "satellite" / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place, rng.integers(0, 9000, (40, 40, 5), dtype=np.uint16), planarconfig="contig")
        for split in ("train", "valid", "test"):
            place = folder / "export" / split / "ab"[number % 2] / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(place)
    encoded = [file.read_bytes() for file in sorted((folder / "export/train").rglob("*.jpg"))]
    table = pyarrow.table({"img": [{"bytes": b, "path": None} for b in encoded], "kind": [7, 10**9] * 8})
    for split in ("train", "test"):
        (folder / "flowers").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, folder / "flowers" / f"{split}.parquet")
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, folder / "checkpoint.pth")


def small(words: list[str]) -> list[str]:
    """The command with its training made small; everything else as written."""
    if "--seeds" in words:
        words[words.index("--seeds") + 1] = "0,1"
        words[words.index("--run") + 1] = f"runs/{time.monotonic_ns()}"
        return [*words, *TINY, "training.steps=2", *(["--random", "1"] if words[0] == "sweep" else [])]
    if words[0] == "quickstart":
        return [*words, *TINY, "training.steps=2"]
    if words[0] == "sweep" or "--seeds" in words:
        words = [f"runs/{time.monotonic_ns()}" if word.startswith("runs/") else word for word in words]
        return [*words, *TINY, "training.steps=1"]
    if words[0] == "compare":
        return ["runs/other" if word == "runs/quickstart" else word for word in words]
    if words[0] == "pretrain":
        if "--resume" in words:  # resumes the run of the fixture, which has another recipe
            return ["pretrain", "runs/mine/recipe.yaml", "training.steps=3", "--run", "runs/mine", "--resume"]
        changes = ["training.steps=2", "training.batch_size=8", "views.size=32", "evaluation.on=[]"]
        if "dino" in words[1]:
            changes += ["views.local_size=16", "method.prototypes=32", "model.backbone=vit_tiny_patch16_224"]
        if "--run" in words:
            words[words.index("--run") + 1] = f"runs/{time.monotonic_ns()}"
        return [*words, *changes]
    if words[0] == "evaluate":  # the run of the fixture, on data that needs no network
        changed = {"runs/quickstart": "runs/mine", "parquet:cifar10": "digits"}
        changed |= {"vit_small_patch14_dinov2": "vit_tiny_patch16_224", "224": "32"}
        return [changed.get(word, word) for word in words]
    if words[0] == "bench":
        changes = (
            []
            if "pipeline" not in words
            else ["data.size=32", "data.points=200", "views.size=32", "model.stem=standard"]
        )
        return [*words, *changes, "--seconds", "0.1"]
    if words[0] == "render":
        return [*words, "--grid", "2x2"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_commands_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("wildfern.launch.series_processes.start", ForkedChild)
    words = shlex.split(command)[1:]
    assert app(small(words), standalone_mode=False) in (None, 0)


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
