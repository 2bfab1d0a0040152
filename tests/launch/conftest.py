"""Runs the command line; reports are without curves, which `tests/ssl/evaluation` looks at."""

import os
import subprocess
import sys

import pytest

from wildfern.launch.cli import main


@pytest.fixture
def wildfern(tmp_path, monkeypatch, capsys):
    """Runs `wildfern …` in a fresh folder and returns exit code and output, as a finished process.

    It runs in this process, where torch is imported already. `process=True`, or options of `subprocess.run`, start a real one:
    for start-up, exit codes and what one process leaves to the next.
    """

    def run(*arguments: str, process: bool = False, **options) -> subprocess.CompletedProcess:
        command = ["wildfern", *arguments]
        if process or options:
            environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
            options = {"cwd": tmp_path, "timeout": 300, "capture_output": True, "text": True, **options}
            command = [sys.executable, "-m", "wildfern.launch.cli", *arguments]
            return subprocess.run(command, env=environment, **options)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "argv", command)
            capsys.readouterr()
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

    return run
