"""A recipe that trains in a second, and the command line as a person starts it."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def wildfern(tmp_path):
    """Runs `wildfern …` in a fresh folder and returns the finished process."""

    def run(*arguments, **options):
        environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
        command = [sys.executable, "-m", "wildfern.launch.cli", *arguments]
        options = {"cwd": tmp_path, "timeout": 300, "capture_output": True, "text": True, **options}
        return subprocess.run(command, env=environment, **options)

    return run
