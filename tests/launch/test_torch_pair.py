"""torch and torchvision that do not belong together, and libraries that cannot be imported, are one line with a remedy."""

import sys

import pytest

from wildfern.launch import torch_pair
from wildfern.launch.command import run_command
from wildfern.launch.doctor import _guarded
from wildfern.launch.torch_pair import CPU_INDEX, broken_import, build_of, compared, mismatch


@pytest.mark.parametrize(
    ("torch", "torchvision", "needed", "seen", "remedy"),
    [
        (
            "2.13.0+cpu",
            "0.28.0+cu130",
            "==2.13.0",
            "torch 2.13.0+cpu with torchvision 0.28.0+cu130: one is built for the CPU alone, the other for CUDA",
            f"pip uninstall -y torch torchvision && pip install torch==2.13.0 torchvision==0.28.0 --index-url {CPU_INDEX}",
        ),
        (
            "2.13.0+cu130",
            "0.28.0+cpu",
            "==2.13.0",
            "torch 2.13.0+cu130 with torchvision 0.28.0+cpu: one is built for the CPU alone, the other for CUDA",
            "pip uninstall -y torch torchvision && pip install torch==2.13.0 torchvision==0.28.0",
        ),
        (
            "2.13.0+cu126",
            "0.28.0+cu130",
            None,
            "torch 2.13.0+cu126 with torchvision 0.28.0+cu130: two builds for different versions of CUDA",
            "pip uninstall -y torch torchvision && pip install torch==2.13.0 torchvision==0.28.0",
        ),
        (
            "2.12.0+cu130",
            "0.28.0+cu130",
            "==2.13.0",
            "torch 2.12.0+cu130 with torchvision 0.28.0+cu130, which needs torch==2.13.0",
            "pip uninstall -y torch torchvision && pip install 'torch==2.13.0' torchvision==0.28.0",
        ),
        (
            "2.12.0+cpu",
            "0.28.0+cu130",
            "==2.13.0",
            "torch 2.12.0+cpu with torchvision 0.28.0+cu130, which needs torch==2.13.0",
            f"pip uninstall -y torch torchvision && pip install 'torch==2.13.0' torchvision==0.28.0 --index-url {CPU_INDEX}",
        ),
        (
            "2.13.0+cpu",
            "0.29.1+cu130",
            ">=2.14.0",
            "torch 2.13.0+cpu with torchvision 0.29.1+cu130, which needs torch>=2.14.0",
            f"pip uninstall -y torch torchvision && pip install 'torch>=2.14.0' torchvision==0.29.1 --index-url {CPU_INDEX}",
        ),
    ],
)
def test_a_mismatch_names_the_command_that_repairs_it(torch, torchvision, needed, seen, remedy):
    found = compared(torch, torchvision, needed)
    assert (found.seen, found.remedy) == (seen, remedy)


@pytest.mark.parametrize(
    ("torch", "torchvision", "needed"),
    [
        ("2.13.0+cpu", "0.28.0+cpu", "==2.13.0"),
        ("2.13.0", "0.28.0", None),
        ("2.14.1+cu130", "0.29.1+cu130", ">=2.14.0"),
    ],
)
def test_a_pair_is_a_pair(torch, torchvision, needed):
    assert compared(torch, torchvision, needed) is None


def test_those_installed_here_belong_together():
    import torch

    assert mismatch() is None
    assert build_of("torch") == torch.__version__


@pytest.fixture
def cpu_torch(tmp_path, monkeypatch):
    """A torchvision as it is beside a torch of another build: its import raises torch's error."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    builds = {"torch": "2.13.0+cpu", "torchvision": "0.28.0+cu130"}
    monkeypatch.setattr(torch_pair, "build_of", builds.__getitem__)
    yield
    sys.modules.pop("torchvision", None)


def import_torchvision():
    import torchvision  # noqa: F401


def test_any_command_says_it_in_one_line(cpu_torch, capsys, monkeypatch):
    monkeypatch.setattr(torch_pair.importlib.metadata, "requires", lambda package: ["torch (==2.13.0)"])
    with pytest.raises(SystemExit) as end:
        run_command(import_torchvision)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("torch 2.13.0+cpu with torchvision 0.28.0+cu130: one is built for the CPU alone")
    assert "(operator torchvision::nms does not exist). Install two that belong together: pip uninstall -y" in said
    found = _guarded(import_torchvision)
    assert (found.seen, found.remedy) == ("operator torchvision::nms does not exist", "see torch and torchvision")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("No module named 'timm'", name="timm.layers"),
            "the package timm is not installed: pip install timm",
        ),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), None),
        (RuntimeError("operator torchvision::nms does not exist"), None),  # not while importing
        (ImportError("libcudart.so.13: cannot open shared object file"), None),
    ],
)
def test_other_errors_keep_their_traceback(error, words):
    assert broken_import(error) == words
