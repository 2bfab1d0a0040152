import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from wildfern.ssl.tracking import environment
from wildfern.ssl.tracking.environment import _git_state


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_records_software_and_machine_as_json():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["wildfern"] == metadata.version("wildfern")
    assert found["cpu"]["cores"] == os.cpu_count()


def test_names_no_host_user_or_path():
    text = json.dumps(environment())
    assert str(Path.home()) + os.sep not in text
    for name in (platform.node(), getpass.getuser()):
        assert f'"{name}"' not in text
        assert len(name) < 4 or name not in text


def test_imports_no_heavy_packages():
    code = (
        "import sys; from wildfern.ssl.tracking import environment; found = environment();"
        "assert found['gpus'] is None and found['packages']['numpy'];"
        "heavy = {'torch', 'numpy', 'numba', 'timm', 'deepspeed', 'wandb'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")
def test_commit_of_its_own_checkout_only(tmp_path):
    assert _git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert _git_state(tmp_path) is None
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("a")
    git(tmp_path, "add", "inside")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert _git_state(tmp_path.resolve()) == {"commit": commit, "modified": False}
    assert _git_state(tmp_path.resolve() / "inside") is None
    (tmp_path / "inside" / "file").write_text("b")
    assert _git_state(tmp_path.resolve()) == {"commit": commit, "modified": True}


def test_missing_git_is_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["git"] is None
