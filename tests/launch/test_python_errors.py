"""How a stopped run is repeated, in the words of what was called."""

from pathlib import Path

import pytest

from wildfern.launch import interrupts
from wildfern.launch.python_errors import to_resume


@pytest.mark.parametrize(
    ("command", "torchrun", "expected"),
    [
        (False, False, "the same call, run='runs/a' and resume=True"),
        (True, False, "the same command, --run runs/a and --resume"),
        (True, True, "the same command, --run-folder runs/a and --resume"),
    ],
)
def test_how_to_resume(command, torchrun, expected, monkeypatch):
    monkeypatch.setattr(interrupts, "current", object() if command else None)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert to_resume(Path("runs/a")) == expected
