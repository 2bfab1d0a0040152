"""The index of a folder: a source is the same with it and without, and every change of the folder is seen."""

import mmap
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wildfern.cache_folder import cache_folder
from wildfern.ssl.data import DataError, folder_index, folder_selection, folder_walk, open_source
from wildfern.ssl.data.fingerprint import fingerprint, sampled_contents
from wildfern.ssl.data.folder_walk import UnfinishedWalk, walk_folder

SETTINGS = [
    {},
    {"labels": "folders", "check_headers": False},
    {"labels": "folders", "min_side": 5, "test_fraction": 0.5},
    {"train_folder": "*/deep", "test_folder": "cat"},
]


@pytest.fixture(autouse=True)
def _kept(monkeypatch, tmp_path):
    """Indexes of the smallest folders, in a folder of the test."""
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_index, "KEPT_FROM", 1)
    monkeypatch.setattr(folder_index, "_TICK", 0)


def image(path: Path, color: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (color, 0, 0)).save(path)
    return path


@pytest.fixture
def tree(tmp_path) -> Path:
    """Images at every depth, with odd names, links, and everything that is left out."""
    root = tmp_path / "root"
    names = [
        "cat/1.png",
        "cat/2.PNG",
        "cat/deep/er/3.jpg",
        "dog/näh.png",
        "dog/deep/\n.png",
        "a.png",
        "z.jpeg",
        "z/y.png",
    ]
    names += ["bird.png/inside.png", "dog/.hidden.png", ".cache/x.png", "__MACOSX/x.png", "cat/deep/4.png"]
    for color, name in enumerate(names):
        image(root / name, color)
    image(tmp_path / "elsewhere/linked.png", 99)
    image(root / "cat/small.png", 9, 3)
    os.rename(image(root / "cat/b.png"), os.fsencode(root / "cat/b") + b"\xff.png")
    (root / "dog/empty.png").touch()
    (root / "dog/text.png").write_text("no image")
    for name in ("notes.txt", "cat/more.txt", "cat/Thumbs.db", "without", "dog/x.npy"):
        (root / name).write_text("no image")
    os.mkfifo(root / "dog/pipe.png")
    os.symlink(tmp_path / "elsewhere", root / "link")
    os.symlink(tmp_path / "elsewhere/linked.png", root / "cat/link.png")
    os.symlink(root, root / "cat/up")
    os.symlink(tmp_path / "gone.png", root / "dangling.png")
    os.symlink(tmp_path / "later", root / "later")
    os.symlink(root / "self.png", root / "self.png")
    time.sleep(0.02)  # a tick of the clock of the file system
    return root


def facts(source) -> dict:
    """What a user sees of a source."""
    names = [source.item_name(item) for item in range(source.num_items)]
    labels = source.labels
    return {
        "items": names,
        "labels": None if labels is None else (labels.dtype, labels.tolist()),
        "classes": source.class_names,
        "skipped": list(source.skipped.items()),
        "notes": source.notes,
        "words": source.split_words,
        "files": list(source.files()),
        "fingerprint": fingerprint(source.files()),
        "sample": sampled_contents(source.files()),
    }


def found(root: Path, split: str = "train", **settings) -> dict:
    return facts(open_source(f"folder:{root}", split, **settings))


def plain_walk(folder: str, entered: set) -> list[str]:
    """Images of a folder, depth first by name, from a plain recursion."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in entered:
        return []
    entered.add((status.st_dev, status.st_ino))
    paths = []
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = f"{folder}/{name}"
        if name.startswith(".") or name in ("__MACOSX", "Thumbs.db"):
            continue
        if os.path.isdir(path):
            paths += plain_walk(path, entered)
        elif os.path.isfile(path) and name.lower().endswith((".png", ".jpg", ".jpeg")) and os.path.getsize(path):
            paths.append(path)
    return paths


@pytest.mark.parametrize("measured_by_one", [0, 10_000])
def test_the_walk_finds_what_a_plain_recursion_finds(tree, measured_by_one, monkeypatch):
    monkeypatch.setattr(folder_walk, "_MEASURED_BY_ONE", measured_by_one)
    walk = walk_folder(str(tree))
    expected = plain_walk(str(tree), set())
    assert [walk.path(name) for name in walk.names] == expected
    assert walk.sizes.tolist() == [os.path.getsize(path) for path in expected]
    folders = [walk.folder_names()[number] for number in walk.folder_numbers()]
    assert [os.path.join(tree, name).rstrip("/") for name in folders] == [os.path.dirname(path) for path in expected]
    assert [(fault.name, fault.reason) for fault in walk.faults] == [
        ("dangling.png", "cannot be opened: No such file or directory"),
        ("dog/empty.png", "empty file"),
        ("dog/pipe.png", "not a regular file"),
        ("self.png", "cannot be opened: Too many levels of symbolic links"),
    ]
    assert (str(walk.others), walk.some_others) == (
        "2 without extension, 2 .txt, 1 .npy",
        ["cat/more.txt", "dog/x.npy", "later"],
    )


@pytest.mark.parametrize("most", [0, 1, 4, 9, 20])
def test_an_interrupted_walk_goes_on_where_it_was(tree, most):
    walk = UnfinishedWalk(str(tree))
    assert not walk.go_on(most)
    assert walk.go_on()
    whole = walk_folder(str(tree)).arrays
    for name, array in walk.arrays().items():
        if name != "started_and_listed":
            np.testing.assert_array_equal(array, whole[name])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_source_is_the_same_with_and_without_an_index(tree, settings, split, monkeypatch):
    if split == "test" and not {"test_fraction", "test_folder"} & settings.keys():
        with pytest.raises(DataError, match="has no test split"):
            found(tree, split, **settings)
        return
    without = found(tree, split, index=False, **settings)
    assert not cache_folder("indexes").exists()
    cold = found(tree, split, **settings)
    assert sorted(path.name[:6] for path in cache_folder("indexes").glob("*.index")) == ["folder", "select"]

    def never(*arguments):
        raise AssertionError("the folder was walked, or headers were read")

    monkeypatch.setattr(folder_index, "UnfinishedWalk", never)
    monkeypatch.setattr(folder_selection, "header_faults", never)
    warm = found(tree, split, **settings)
    assert without == cold == warm
    monkeypatch.chdir(tree.parent)
    assert [os.path.abspath(path) for path in found(Path("root"), split, **settings)["items"]] == warm["items"]


def test_both_splits_share_one_walk(tree, monkeypatch):
    walks = []
    monkeypatch.setattr(folder_index, "UnfinishedWalk", lambda root: walks.append(root) or UnfinishedWalk(root))
    train, test = (found(tree, split, test_fraction=0.5)["items"] for split in ("train", "test"))
    assert (len(walks), set(train) & set(test)) == (1, set())
    assert sorted(train + test) == sorted(found(tree)["items"])


def test_arrays_are_mapped(tree):
    for _ in range(2):
        source = open_source(f"folder:{tree}", labels="folders")
        for array in (source.labels, source._selection.entries, source._selection._walk.sizes):
            assert isinstance(array.base if isinstance(array.base, mmap.mmap) else array.base.base.obj, mmap.mmap)
    assert facts(pickle.loads(pickle.dumps(source))) == facts(source)


def _rewrite(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _link_again(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


CHANGES = {
    "a file is added at depth": lambda root: image(root / "cat/deep/er/9.png"),
    "a file is removed": lambda root: (root / "z/y.png").unlink(),
    "a file is renamed": lambda root: (root / "cat/deep/4.png").rename(root / "cat/deep/5.png"),
    "a file that is no image is added": lambda root: (root / "cat/deep/new.txt").write_text("x"),
    "a folder of a class is added": lambda root: image(root / "fox/1.png"),
    "an empty folder is added": lambda root: (root / "owl").mkdir(),
    "a folder is renamed": lambda root: (root / "dog").rename(root / "wolf"),
    "a folder is replaced": lambda root: ((root / "z").rename(root.parent / "old"), image(root / "z/y.png", 7, 16)),
    "a file behind a link is added": lambda root: image(root.parent / "elsewhere/new.png"),
    "a link goes elsewhere": lambda root: _link_again(root / "link", root.parent / "cache"),
    "a dangling link finds a file": lambda root: image(root.parent / "gone.png"),
    "a dangling link finds a folder": lambda root: image(root.parent / "later/1.png"),
    "a file has another size": lambda root: _rewrite(root / "a.png", 60),
    "an empty file is filled": lambda root: (root / "dog/empty.png").write_bytes((root / "a.png").read_bytes()),
    "a damaged file is mended": lambda root: (root / "dog/text.png").write_bytes((root / "a.png").read_bytes()),
    "a file of the sample is written again": lambda root: os.utime(root / "a.png", ns=(0, 10**18)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(tree, change):
    (tree / "owls").mkdir()
    time.sleep(0.02)
    settings = {"labels": "folders", "min_side": 5}
    before = found(tree, **settings)
    inodes = {path.name: path.stat().st_ino for path in cache_folder("indexes").glob("*.index")}
    time.sleep(0.02)
    CHANGES[change](tree)
    time.sleep(0.02)
    after = found(tree, **settings)
    assert after == found(tree, index=False, **settings)
    if change not in ("an empty folder is added", "a link goes elsewhere", "a file of the sample is written again"):
        assert after != before
    assert {path.name: path.stat().st_ino for path in cache_folder("indexes").glob("*.index")} != inodes


def test_a_folder_that_was_just_changed_has_no_index(tree, monkeypatch):
    monkeypatch.setattr(folder_index, "_TICK", 60 * 10**9)
    assert found(tree) == found(tree, index=False)
    assert list(cache_folder("indexes").glob("*.index")) == []


def test_a_folder_that_changes_during_the_walk_has_no_index(tree, monkeypatch):
    def stamped(root, walk):
        arrays = original(root, walk)
        image(tree / "cat/new.png")
        return arrays

    original = folder_index._stamped
    monkeypatch.setattr(folder_index, "_stamped", stamped)
    open_source(f"folder:{tree}")
    assert list(cache_folder("indexes").glob("*.index")) == []


def test_small_folders_leave_nothing_in_the_cache(tree, monkeypatch):
    monkeypatch.setattr(folder_index, "KEPT_FROM", 10_000)
    assert found(tree) == found(tree, index=False)
    assert not cache_folder("indexes").exists()


def test_damaged_indexes_are_made_again(tree):
    before = found(tree, labels="folders")
    paths = sorted(cache_folder("indexes").glob("*.index"))
    good = [path.read_bytes() for path in paths]
    for damage in (lambda data: b"", lambda data: data[:-64], lambda data: b"x" * len(data), lambda data: data + data):
        for path, data in zip(paths, good, strict=True):
            path.write_bytes(damage(data))
        assert found(tree, labels="folders") == before
        assert [path.stat().st_size for path in paths] == list(map(len, good))


def test_an_index_of_another_folder_is_not_taken(tree, tmp_path):
    """Where its file was copied over, or the folder was moved and another took its place."""
    found(tree)
    image(tmp_path / "other/b.png", 3)
    time.sleep(0.02)
    tree.rename(tmp_path / "moved")
    (tmp_path / "other").rename(tree)
    assert found(tree)["items"] == [str(tree / "b.png")]


def test_a_selection_of_a_former_walk_is_not_taken(tree):
    found(tree, labels="folders", check_headers=False)
    (selection,) = cache_folder("indexes").glob("selection*.index")
    former = selection.read_bytes()
    time.sleep(0.02)
    image(tree / "a0.png")
    time.sleep(0.02)
    after = found(tree, labels="folders", check_headers=False)
    selection.write_bytes(former)
    assert found(tree, labels="folders", check_headers=False) == after


def test_a_cache_folder_that_cannot_be_written_is_no_error(tree, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "file"))
    assert found(tree, labels="folders") == found(tree, labels="folders", index=False)


def test_a_line_tells_once_that_an_index_is_kept(tree, capfd, monkeypatch, tmp_path):
    source = open_source(f"folder:{tree}")
    images = len(walk_folder(str(tree)).names)  # those without a usable header too
    kept = f"index of {images:,} images kept in {cache_folder('indexes')}; later starts use it"
    assert capfd.readouterr().err == f"wildfern: {tree}: {kept}\n"
    assert not any("index" in note for note in source.notes)  # which records of evaluations repeat
    open_source(f"folder:{tree}")
    open_source(f"folder:{tree}", index=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "file"))  # nothing can be kept there
    open_source(f"folder:{tree}")
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(folder_index, "KEPT_FROM", 1000)
    open_source(f"folder:{tree}")
    assert "index" not in capfd.readouterr().err


def test_formats_that_can_be_read_since_are_looked_at_again(tree, monkeypatch):
    found(tree)
    monkeypatch.setattr(folder_selection, "readers", lambda: ("99.0", "HEIF"))
    found(tree)
    assert len(list(cache_folder("indexes").glob("selection*.index"))) == 2


def _open_in_a_process(root, ready, results) -> None:
    walks = []

    class Counted(UnfinishedWalk):
        def arrays(self):
            walks.append(1)
            time.sleep(0.2)
            return super().arrays()

    folder_index.UnfinishedWalk = Counted
    ready.wait()
    results.put((found(root, labels="folders"), len(walks)))


def test_of_two_processes_one_walks(tree, monkeypatch):
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_open_in_a_process, args=(tree, ready, results)) for _ in range(2)]
    for process in processes:
        process.start()
    got = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert got[0][0] == got[1][0] == found(tree, labels="folders", index=False)
    assert sum(walks for _, walks in got) == 1


def test_images_are_read_as_without_an_index(tree):
    sources = [open_source(f"folder:{tree}", labels="folders", **more) for more in ({"index": False}, {}, {})]
    images = [source.read(np.arange(source.num_items)) for source in sources]
    for other in images[1:]:
        np.testing.assert_array_equal(other.labels, images[0].labels)
        for ours, theirs in zip(other.as_lists().pixels, images[0].as_lists().pixels, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_known_fingerprint_needs_no_listing(tree, monkeypatch):
    expected = found(tree, index=False)["fingerprint"]
    open_source(f"folder:{tree}")
    files = open_source(f"folder:{tree}").files()
    assert fingerprint(files, contents=True).names == expected.names
    assert (files[-1], files[1:3]) == (list(files)[-1], list(files)[1:3])
    monkeypatch.delattr(folder_selection.SelectedFiles, "__getitem__")
    assert fingerprint(files) == expected


def test_a_folder_that_cannot_be_opened_is_tried_again(tree, monkeypatch):
    def scandir(path):
        if os.path.basename(path) == "dog":
            raise PermissionError(13, "Permission denied")
        return original(path)

    original = os.scandir
    whole = found(tree)
    shutil.rmtree(cache_folder("indexes"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        without = found(tree, index=False)
        assert without == found(tree) == found(tree)
        assert (str(tree / "dog"), "folder cannot be opened: Permission denied") in without["skipped"]
        assert len(without["items"]) < len(whole["items"])
    assert found(tree) == whole
