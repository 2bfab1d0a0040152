"""The list of takedowns: cut off, damaged, edited by hand, on a full disk."""

import json
import os
from dataclasses import replace

import pytest

from wildfern.ssl.curation import takedowns as takedowns_file
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.takedowns import TAKEDOWNS, Takedown, add_takedowns, read_takedowns


def takedown(number: int, **changes) -> Takedown:
    one = Takedown(
        time="2026-01-02T03:04:05+00:00",
        sha256=f"{number:064x}",
        pixels_sha256=f"{number + 1000:064x}",
        phash=2**64 - 1 - number,
        source="folder:photos",
        container="/data/photos",
        path=f"{number}.jpg",
        reason="on request",
    )
    return replace(one, **changes)


def line(number: int) -> bytes:
    return json.dumps(vars(takedown(number))).encode() + b"\n"


def test_a_folder_without_a_list_has_no_takedowns(tmp_path):
    assert read_takedowns(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_takedowns_are_appended_and_read_in_order(tmp_path):
    odd = takedown(3, phash=None, pixels_sha256=None, path='a "b"\n<script>\u2028\U0010ff80.jpg', reason="größe = 1")
    add_takedowns(tmp_path, [takedown(1), takedown(2)])
    first = (tmp_path / TAKEDOWNS).read_bytes()
    add_takedowns(tmp_path, [odd])
    assert read_takedowns(tmp_path) == [takedown(1), takedown(2), odd]
    assert (tmp_path / TAKEDOWNS).read_bytes().startswith(first)
    assert first == line(1) + line(2)
    assert (tmp_path / TAKEDOWNS).read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("kept", [1, 20, len(line(2)) - 2])
def test_a_line_that_was_cut_off_is_passed_over_and_goes_with_the_next_takedown(tmp_path, kept):
    path = tmp_path / TAKEDOWNS
    path.write_bytes(line(1) + line(2)[:kept])
    assert read_takedowns(tmp_path) == [takedown(1)]
    add_takedowns(tmp_path, [takedown(3)])
    assert read_takedowns(tmp_path) == [takedown(1), takedown(3)]
    assert path.read_bytes() == line(1) + line(3)


def test_a_list_that_is_one_line_cut_off_is_empty(tmp_path):
    (tmp_path / TAKEDOWNS).write_bytes(line(1)[:30])
    assert read_takedowns(tmp_path) == []
    add_takedowns(tmp_path, [takedown(2)])
    assert read_takedowns(tmp_path) == [takedown(2)]


def test_a_whole_last_line_without_a_newline_counts(tmp_path):  # as editors write it
    (tmp_path / TAKEDOWNS).write_bytes((line(1) + line(2)).removesuffix(b"\n"))
    assert read_takedowns(tmp_path) == [takedown(1), takedown(2)]
    add_takedowns(tmp_path, [takedown(3)])
    assert (tmp_path / TAKEDOWNS).read_bytes() == line(1) + line(2) + line(3)


def changed(**values) -> bytes:
    return json.dumps(vars(takedown(1)) | values).encode() + b"\n"


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"\0" * 40 + b"\n", "Expecting value"),
        (b"\n", "Expecting value"),
        (b'{"time": "\xff"}\n', "utf-8"),
        (b"[1, 2]\n", "not a mapping of time, sha256"),
        (b"{}\n", "not a mapping of time, sha256"),
        (changed(more=1), "not a mapping of time, sha256"),
        (changed(sha256=None), "sha256 must be 64 digits"),
        (changed(sha256="../../etc/passwd"), "sha256 must be 64 digits"),
        (changed(sha256=f"{1:064X}".replace("0", "A")), "sha256 must be 64 digits"),
        (changed(pixels_sha256=7), "pixels_sha256 must be 64 digits"),
        (changed(phash=-1), "phash must be a number of 64 bits"),
        (changed(phash=2**64), "bits"),
        (changed(phash="1"), "phash must be a number of 64 bits"),
        (changed(phash=True), "phash must be a number of 64 bits"),
        (changed(reason=None), "must be texts"),
        (changed(path="\ud800"), "no Unicode"),
        (b"[" * 5000 + b"\n", "nested too deeply"),
        (changed(reason="\x1b[2Jx" * 10) + line(2)[:-3] + b"\n", "line 3 is damaged"),
        (b"x" * (2**20 + 1) + b"\n", "more than 1,048,576 bytes"),
        (b"x" * (2**20 + 1), "more than 1,048,576 bytes"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_it(tmp_path, damaged, message):
    before = line(1) + damaged
    (tmp_path / TAKEDOWNS).write_bytes(before)
    with pytest.raises(CurationError, match=rf"{TAKEDOWNS} line [23] is damaged: .*restore it from a copy") as caught:
        read_takedowns(tmp_path)
    assert message in str(caught.value)
    with pytest.raises(CurationError, match="is damaged"):
        add_takedowns(tmp_path, [takedown(9)])
    assert (tmp_path / TAKEDOWNS).read_bytes() == before


def test_a_takedown_that_could_not_be_read_back_is_refused(tmp_path):
    with pytest.raises(CurationError, match="write a shorter reason"):
        add_takedowns(tmp_path, [takedown(1), takedown(2, reason="x" * 2**20)])
    assert not (tmp_path / TAKEDOWNS).exists()


def test_links_are_not_followed(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(line(1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / TAKEDOWNS).symlink_to(other)
    with pytest.raises(CurationError, match="cannot be read: is a symbolic link"):
        read_takedowns(tmp_path / "folder")
    with pytest.raises(OSError, match="symbolic link"):
        add_takedowns(tmp_path / "folder", [takedown(2)])
    assert other.read_bytes() == line(1)


class PartOfDisk:
    """A file whose disk takes `room` bytes in pieces of at most 100, and is full then."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, content):
        if not self._room:
            raise OSError(28, "No space left on device")
        taken = content[: min(100, self._room)]
        self._room -= len(taken)
        return self._file.write(taken)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_full_disk_is_an_error_and_what_was_written_in_part_does_not_count(tmp_path, monkeypatch):
    add_takedowns(tmp_path, [takedown(1)])
    original = takedowns_file.open_appending
    monkeypatch.setattr(takedowns_file, "open_appending", lambda path: PartOfDisk(original(path), 250))
    with pytest.raises(OSError, match="No space left"):
        add_takedowns(tmp_path, [takedown(2)])
    assert len((tmp_path / TAKEDOWNS).read_bytes()) == len(line(1)) + 250
    assert read_takedowns(tmp_path) == [takedown(1)]
    monkeypatch.setattr(takedowns_file, "open_appending", lambda path: PartOfDisk(original(path), 10_000))
    add_takedowns(tmp_path, [takedown(3), takedown(4)])
    assert (tmp_path / TAKEDOWNS).read_bytes() == line(1) + line(3) + line(4)


def test_two_processes_append_one_after_the_other(tmp_path):
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for item in range(10):
                add_takedowns(tmp_path, [takedown(10 * number + item)])
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert sorted(one.path for one in read_takedowns(tmp_path)) == sorted(f"{n}.jpg" for n in range(40))
