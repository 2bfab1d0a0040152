"""A disk that is full or read-only: one clear message, and existing files stay complete."""

import errno
import shlex
import shutil
import subprocess
import sys

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError, disk_errors, errors_after_training
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import CheckpointStore

CHANGES = [*TINY, "training.steps=100000", "training.precision=fp32"]


@pytest.fixture
def own_mounts(tmp_path):
    """Runs a shell script in its own mount namespace; $TRAIN RUN CHANGES… trains."""
    command = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces need Linux and unprivileged user namespaces, or root")
    train = shlex.join([sys.executable, "-m", "wildfern.launch.cli", "pretrain", "quickstart", *CHANGES, "--run"])

    def run(script):
        script = f'set -eu\ntrain() {{ {train} "$@"; }}\n{script}'
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run([*command, "sh", "-c", script], **options)

    return run


def printed(process, *words):
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in process.stderr
    return process.stderr


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_leaves_earlier_ones_complete(own_mounts, tmp_path):
    process = own_mounts("""
        mkdir small copy
        mount -t tmpfs -o size=1500k none small
        code=0
        train small/run training.checkpoint_every=5 training.keep_checkpoints=999 || code=$?
        cp -r small/run copy/run
        exit $code
    """)
    # Either the checkpoint, written in the background, or the backbone fails first.
    text = printed(process, "No space left on device", "--resume")
    assert "could not be written" in text or "cannot write small/run/backbone.safetensors" in text
    run = tmp_path / "copy" / "run"
    newest, faults = CheckpointStore(run / "checkpoints", keep=2).newest()
    assert newest >= 5
    assert faults == []
    assert not list((run / "checkpoints").glob(".unfinished_*"))
    pretrain("quickstart", [*CHANGES, f"training.steps={newest + 1}"], run=run, resume=True)
    assert [record["step"] for record in read_records(run / "metrics.jsonl")] == list(range(newest + 1))


@pytest.mark.slow
def test_metrics_that_do_not_fit_end_with_a_complete_line(own_mounts, tmp_path):
    process = own_mounts("""
        mkdir small copy
        mount -t tmpfs -o size=1500k none small
        train small/run training.checkpoint_every=1000000 &
        until [ -s small/run/metrics.jsonl ]; do sleep 0.02; done
        dd if=/dev/zero of=small/ballast bs=1k 2>/dev/null || true
        code=0
        wait $! || code=$?
        cp -r small/run copy/run
        exit $code
    """)
    printed(process, "cannot write", ".jsonl", "No space left on device", "--resume")
    run = tmp_path / "copy" / "run"
    assert (run / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert (run / "timings.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.slow
def test_a_read_only_folder_is_named(own_mounts, tmp_path):
    pretrain("quickstart", [*CHANGES, "training.steps=1"], run=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    process = own_mounts("""
        mount --bind run run
        mount -o remount,bind,ro run
        train run --resume
    """)
    printed(process, "cannot write the run folder run", "read-only")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG])
def test_disk_errors_become_messages(number, tmp_path):
    run, inside, elsewhere = tmp_path / "run", str(tmp_path / "run" / "views.png"), str(tmp_path / "images" / "1.png")
    for name in (inside, inside.encode()):
        with (
            pytest.raises(RunError, match=r"cannot write .*run/views\.png: no\..*--run .*run --resume"),
            disk_errors(run),
        ):
            raise OSError(number, "no", name)
    for name in (elsewhere, elsewhere.encode()):
        with pytest.raises(OSError, match=r"1\.png"), disk_errors(run):
            raise OSError(number, "no", name)


def test_an_error_that_names_no_file_is_not_blamed_on_the_run_folder(tmp_path):
    expected = (
        r"cannot write: full \(in tests/launch/test_disk_errors\.py, .*does not name the file.*--run .*run --resume"
    )
    for name in (None, 7):  # 7: a file descriptor
        with pytest.raises(RunError, match=expected), disk_errors(tmp_path / "run"):
            raise OSError(errno.ENOSPC, "full", name)
    with pytest.raises(OSError, match="elsewhere") as caught, disk_errors(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "full") from OSError(errno.ENOSPC, "full", "elsewhere")
    assert caught.value.filename == "elsewhere"


def test_a_full_disk_after_training_says_what_is_complete(tmp_path):
    run = tmp_path / "run"
    expected = (
        r"cannot write .*report\.html: full\. Training is complete, .*backbone\.safetensors: .*--run .*run --resume"
    )
    with pytest.raises(RunError, match=expected), disk_errors(run), errors_after_training(run):
        raise OSError(errno.ENOSPC, "full", str(run / "report.html"))


def test_a_backbone_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch):
    import torch
    from safetensors import SafetensorError

    import wildfern.launch.run_weights as module

    folder = RunFolder(tmp_path)
    folder.write_backbone({"weight": torch.zeros(2)})
    before = (tmp_path / "backbone.safetensors").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(RunError, match="No space left"):
        folder.write_backbone({"weight": torch.ones(2)})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("backbone.safetensors", before)]


def test_skipped_files_recorded_before_a_resume_are_kept(tmp_path):
    folder = RunFolder(tmp_path)
    folder.note_skipped({})
    assert not list(tmp_path.iterdir())
    folder.note_skipped({"b.png": "no image"})
    folder.note_skipped({"a.png": "truncated", "b.png": "another word"})
    assert read_records(tmp_path / "skipped.jsonl") == [
        {"file": "a.png", "reason": "truncated"},
        {"file": "b.png", "reason": "no image"},
    ]
