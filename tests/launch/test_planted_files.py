"""Links, FIFOs and folders in place of the files of a run folder: nothing behind a link changes, and nothing waits."""

import os
import stat

import pytest
import torch
from small_runs import TINY

from wildfern.files import UnsafeFile
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import APPENDED, REPLACED, write_json_file, writing
from wildfern.launch.run_folder import SUB_FOLDERS, RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")


@pytest.fixture(scope="module")
def recipe():
    return read_recipe("quickstart", TINY)


@pytest.fixture
def victim(tmp_path):
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def written(folder, recipe):
    """Everything that RunFolder writes."""
    folder.begin(recipe)
    folder.write_json("evaluation.json", {})
    folder.note_skipped({"a.png": "truncated"})
    folder.write_backbone({"weight": torch.zeros(2)})


def test_links_are_replaced_and_temporary_names_of_earlier_versions_left_alone(folder, recipe, victim):
    for name in REPLACED:
        (folder.path / name).symlink_to(victim)
        (folder.path / f".{name}").symlink_to(victim)
    folder.check_files()
    written(folder, recipe)
    assert victim.read_text() == "precious"
    assert stat.S_ISREG((folder.path / "recipe.yaml").lstat().st_mode)
    assert all((folder.path / f".{name}").is_symlink() for name in REPLACED)


@pytest.mark.parametrize("name", sorted(REPLACED | APPENDED))
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_fifos_and_folders_in_place_of_files_are_refused(name, make, folder):
    make(folder.path / name)
    with pytest.raises(RunError, match=rf"{name} is a (FIFO|folder), not a regular file"):
        folder.check_files()


def test_files_that_grow_are_no_links(folder, victim):
    for name in APPENDED:
        (folder.path / name).symlink_to(victim)
        with pytest.raises(RunError, match=f"{name} is a symbolic link, which is not followed in a run folder"):
            folder.check_files()
        (folder.path / name).unlink()
    (folder.path / "nonfinite.jsonl").symlink_to(victim)
    with pytest.raises(UnsafeFile):
        folder.add_lines("nonfinite.jsonl", [{"step": 1}])
    (folder.path / "nonfinite.jsonl").unlink()
    os.link(victim, folder.path / "nonfinite.jsonl")
    with pytest.raises(RunError, match="is a hard link"):
        folder.check_files()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", SUB_FOLDERS)
def test_sub_folders_are_no_links(name, folder, tmp_path):
    (folder.path / name).symlink_to(tmp_path)
    with pytest.raises(RunError, match=f"{name} is a symbolic link.*put a folder in its place"):
        RunFolder.for_writing(folder.path, "quickstart", resume=True)


def test_the_run_folder_itself_may_be_a_link(folder, recipe, tmp_path):
    (tmp_path / "link").symlink_to(folder.path)
    linked = RunFolder.for_writing(tmp_path / "link", "quickstart", resume=False)
    written(linked, recipe)
    assert folder.run_id() is not None
    assert not list(folder.path.glob(".partial_*"))


def test_what_a_killed_process_left_is_removed_at_the_next_start(folder, recipe):
    (folder.path / ".partial_0123abcd_recipe.yaml").write_text("half")
    folder.begin(recipe)
    assert not list(folder.path.glob(".partial_*"))


def test_a_lock_that_is_no_file_is_refused_and_one_with_two_names_not_written(folder, victim):
    path = folder.path / ".lock"
    for plant in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(victim)):
        plant(path)
        with pytest.raises(RunError, match=r"\.lock is a (FIFO|folder|symbolic link)"), lock(folder.path):
            pass
        path.rmdir() if path.is_dir() else path.unlink()
    os.link(victim, path)
    with lock(folder.path), pytest.raises(RunError, match="in use by precious:"), lock(folder.path):
        pass
    assert victim.read_text() == "precious"


def test_the_owner_of_a_lock_is_shown_bounded_and_printable(folder):
    with lock(folder.path):
        (folder.path / ".lock").write_bytes(b"\x1b[2Jevil\n\xff" + b"x" * 100_000)
        with pytest.raises(RunError) as caught, lock(folder.path):
            pass
    shown = str(caught.value)
    assert shown.isprintable()
    assert "evil" in shown
    assert len(shown) < len(str(folder.path)) + 500


def test_a_file_that_the_user_names_may_be_a_link_and_keeps_its_permissions(tmp_path, victim):
    victim.chmod(0o640)
    link, new = tmp_path / "link.json", tmp_path / "new.json"
    link.symlink_to(victim)
    write_json_file(link, {"a": 1})
    assert link.is_symlink()
    assert victim.read_text() == '{\n  "a": 1\n}\n'
    assert victim.stat().st_mode & 0o777 == 0o640
    new.symlink_to(tmp_path / "target.json")  # to a missing file
    write_json_file(new, 1)
    assert (tmp_path / "target.json").read_text() == "1\n"


def test_a_device_that_the_user_names_is_written_and_not_replaced(tmp_path):
    reading, writing_end = os.pipe()
    link = tmp_path / "out.json"
    link.symlink_to(f"/dev/fd/{writing_end}")
    write_json_file(link, 1)
    os.close(writing_end)
    assert os.read(reading, 10) == b"1\n"
    os.close(reading)
    assert link.is_symlink()


def test_in_a_run_folder_a_link_is_replaced(folder, recipe, victim):
    folder.begin(recipe)
    (folder.path / "scores.json").symlink_to(victim)
    write_json_file(folder.path / "scores.json", 1)
    assert victim.read_text() == "precious"
    assert not (folder.path / "scores.json").is_symlink()


def test_an_error_while_writing_leaves_the_file_of_the_user(victim):
    def fill_the_disk():
        with writing(victim) as path:
            path.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="victim"):
        fill_the_disk()
    assert victim.read_text() == "precious"
    assert os.listdir(victim.parent) == ["victim"]
