"""The folder of an export: what its list has after any end, what is removed, and what never is."""

import os

import pytest

from wildfern.ssl.curation.export_folder import MARK, ExportFolder
from wildfern.ssl.curation.manifest import CurationError

DIGESTS = [bytes([number]) * 32 for number in range(4)]
NAMES = [f"{digest.hex()}.png" for digest in DIGESTS]


def written(path, names, files=()):
    """An export of images as files with these names, and of other files."""
    folder = ExportFolder(path)
    path.mkdir(exist_ok=True)
    folder.begin(bytes.fromhex(name[:64]) for name in names)
    for name in names:
        place = folder.path_of_image(name, b"image")
        if place is not None:
            place.write_bytes(b"image")
    for name in files:
        folder.path_of_file(name).write_bytes(b"shard")
    return folder


def entries(path):
    return (path / MARK).read_text().splitlines()[2:]


def test_the_list_is_there_before_the_files_and_has_them_alone_at_the_end(tmp_path):
    folder = ExportFolder(tmp_path)
    folder.begin(DIGESTS[:2])
    assert not folder.was_used
    assert entries(tmp_path) == [digest.hex() for digest in DIGESTS[:2]]
    assert not (tmp_path / "00").exists()
    place = folder.path_of_file("images-000000.tar")
    assert entries(tmp_path)[2:] == ["images-000000.tar"]
    assert not place.exists()
    place.touch()
    again = ExportFolder(tmp_path)  # as after a kill
    again.begin(DIGESTS[2:])
    assert again.was_used
    assert entries(tmp_path) == [*(digest.hex() for digest in DIGESTS), "images-000000.tar"]
    assert again.path_of_file("images-000000.tar") == place
    again.path_of_file("images-000001.tar")
    again.finish({"images-000001.tar"})
    assert entries(tmp_path) == ["images-000001.tar"]
    assert not place.exists()


def test_an_image_with_another_ending_is_replaced_and_empty_folders_go(tmp_path):
    written(tmp_path, NAMES).finish(set(NAMES))
    jpeg = NAMES[0].replace("png", "jpg")
    (tmp_path / "02" / "mine.txt").touch()
    written(tmp_path, [jpeg, NAMES[1]]).finish({jpeg, NAMES[1]})
    assert sorted(os.listdir(tmp_path)) == [MARK, "00", "01", "02"]
    assert [os.listdir(tmp_path / name) for name in ("00", "01", "02")] == [[jpeg], [NAMES[1]], ["mine.txt"]]


def test_what_no_export_wrote_is_not_replaced(tmp_path):
    written(tmp_path, NAMES[:1]).finish(set(NAMES[:1]))
    (tmp_path / "01").mkdir()
    (tmp_path / "01" / NAMES[1]).write_text("mine")
    (tmp_path / "02").write_text("mine")
    (tmp_path / "images-000000.parquet").write_text("mine")
    for names, files in ((NAMES[:2], ()), (NAMES[2:3], ()), (NAMES[:1], ["images-000000.parquet"])):
        with pytest.raises(CurationError, match="is in the way, and no export wrote it"):
            written(tmp_path, names, files)
    written(tmp_path, []).finish(set())
    assert sorted(os.listdir(tmp_path)) == [MARK, "01", "02", "images-000000.parquet"]
    assert (tmp_path / "images-000000.parquet").read_text() == "mine"


def test_a_list_of_a_stranger_removes_nothing_else(tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine.txt"
    mine.touch()
    written(out, []).finish(set())
    (out / "README.md").touch()
    (out / "images-000000.tar").mkdir()  # where a file was
    hostile = [
        "../mine.txt",
        str(mine),
        "README.md",
        "images-1.tar",
        "../" + "0" * 64,
        "x" * 10_000,
        "\udcff",
        "",
        "00",
    ]
    with (out / MARK).open("a", errors="surrogateescape") as mark:
        mark.writelines(f"{line}\n" for line in hostile)
    written(out, []).finish(set())
    assert sorted(os.listdir(out)) == [MARK, "README.md", "images-000000.tar"]
    assert entries(out) == []
    assert mine.exists()


@pytest.mark.parametrize("left", [[".partial_0123abcd_.wildfern_export"], [".lock"], []])
def test_a_folder_that_an_export_left_in_its_first_moments_can_be_used(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    written(tmp_path, NAMES[:1]).finish(set(NAMES[:1]))
    assert sorted(os.listdir(tmp_path)) == sorted({MARK, "00", ".lock"} & {MARK, "00", *left})


def test_folders_of_the_user_files_and_links_to_a_mark_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CurationError, match="is a file; name a folder"):
        ExportFolder(tmp_path / "file")
    with pytest.raises(CurationError, match="has files that no export wrote"):
        ExportFolder(tmp_path)
    written(tmp_path / "export", [])
    (tmp_path / MARK).symlink_to(tmp_path / "export" / MARK)
    with pytest.raises(CurationError, match="has files that no export wrote"):
        ExportFolder(tmp_path)
    assert not ExportFolder(tmp_path / "missing").path.exists()
