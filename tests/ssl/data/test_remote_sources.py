"""Tar shards and parquet files of a web server and of a store that can list, beside the same files on the disk."""

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from range_server import served
from tar_bytes import member, png

from wildfern.ssl.data import DataError, Mixture, Subset, open_source, remote, remote_files
from wildfern.ssl.data.block_order import BlockOrder
from wildfern.ssl.data.fingerprint import fingerprint, sampled_contents


def shard(values) -> bytes:
    samples = (member(b"%04d.png" % v, png(v)) + member(b"%04d.cls" % v, b"%d" % (v % 3)) for v in values)
    return b"".join(samples) + bytes(1024)


def table(values, noise=b"") -> bytes:
    """Row groups of two rows; each image is followed by noise that Pillow passes over."""
    written = io.BytesIO()
    columns = {"image": [png(v) + noise for v in values], "label": [v % 3 for v in values]}
    parquet.write_table(pa.table(columns), written, 2, compression="none")
    return written.getvalue()


CONTENTS = {
    **{f"train-{number:03}.tar": shard(range(5 * number, 5 * number + 5)) for number in range(6)},
    "test-000.tar": shard(range(100, 103)),
    **{f"train-{number:03}.parquet": table(range(6 * number, 6 * number + 6)) for number in range(3)},
    "test-000.parquet": table(range(100, 103)),
}


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def local(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / "set" / name).write_bytes(content)
    return tmp_path / "set"


@pytest.fixture
def files(cache):
    pytest.importorskip("aiohttp")
    with served() as files:
        files.update({f"/set/{name}": content for name, content in CONTENTS.items()})
        yield files


@pytest.fixture
def memory(cache, monkeypatch):
    """A store that lists its files, as s3 and gs do."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name, content in CONTENTS.items():
        store.pipe(f"/bucket/set/{name}", content)
    yield store
    store.store.clear()


def reds(source) -> list[int]:
    return [int(image[0, 0, 0]) for image in source.read(np.arange(source.num_items)).pixels]


def gets(files) -> int:
    return sum(method == "GET" for method, _ in files.requests)


def assert_same(ours, theirs) -> None:
    assert reds(ours) == reds(theirs)
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert ours.class_names == theirs.class_names
    assert [file[:2] for file in ours.files()] == [file[:2] for file in theirs.files()]
    assert fingerprint(ours.files()) == fingerprint(theirs.files())


@pytest.mark.parametrize(
    ("where", "pattern", "split", "arguments"),
    [
        ("files", "webdataset:{}/train-{{000..005}}.tar", "train", {}),
        ("files", "webdataset:{}/train-00*.tar", "train", {"test_fraction": 0.4}),
        ("files", "webdataset:{}/{{split}}-{{000..000}}.tar", "test", {}),
        ("memory", "webdataset:{}/train-00*.tar", "test", {"test_fraction": 0.4}),
        ("memory", "webdataset:{}/{{split}}-*.tar", "train", {}),
    ],
)
def test_shards_are_those_on_the_disk(request, local, where, pattern, split, arguments):
    place = request.getfixturevalue(where)
    url = f"{place.url}/set" if where == "files" else "memory://bucket/set"
    ours = open_source(pattern.format(url), split, **arguments)
    theirs = open_source(pattern.format(local), split, **arguments)
    assert_same(ours, theirs)
    assert ours.split_words == theirs.split_words
    assert ours.blocks.tolist() == theirs.blocks.tolist()
    assert ours.item_name(0) == theirs.item_name(0).replace(str(local), url)


@pytest.mark.parametrize(
    ("where", "ours", "theirs", "split", "arguments"),
    [
        ("files", "parquet:{}/train-{{000..002}}.parquet", "parquet:{}", "train", {}),
        ("memory", "parquet:{}/{{split}}-*.parquet", "parquet:{}", "test", {}),
        (
            "memory",
            "parquet:{}",
            "parquet:{}",
            "test",
            {"train_files": "train-*.parquet", "test_files": "test-000.parquet"},
        ),
        ("files", "parquet:{}/train-001.parquet", "parquet:{}/train-001.parquet", "test", {"test_fraction": 0.5}),
    ],
)
def test_parquet_files_are_those_on_the_disk(request, local, where, ours, theirs, split, arguments):
    place = request.getfixturevalue(where)
    url = f"{place.url}/set" if where == "files" else "memory://bucket/set"
    ours, theirs = (
        open_source(ours.format(url), split, **arguments),
        open_source(theirs.format(local), split, **arguments),
    )
    assert_same(ours, theirs)
    assert ours.item_name(0) == theirs.item_name(0).replace(str(local), url)


def test_the_headers_of_shards_are_read_once(files, cache):
    """Also of a small set, and where the copies have been deleted."""
    name = f"webdataset:{files.url}/set/train-{{000..005}}.tar"
    first = reds(open_source(name, labels="none"))
    shutil.rmtree(cache / "remote")
    files.requests.clear()
    source = open_source(name, labels="none")
    assert gets(files) == 0
    assert reds(source) == first
    opened_before = open_source(name, labels="none")
    files["/set/train-003.tar"] = shard(range(50, 57))
    assert reds(open_source(name, labels="none")) == [*range(15), *range(50, 57), *range(20, 30)]
    shutil.rmtree(cache / "remote")
    with pytest.raises(DataError, match=r"train-003\.tar has changed since it was opened"):
        reds(opened_before)


def test_a_listed_folder_is_asked_for_once(memory, monkeypatch):
    asked = []
    monkeypatch.setattr(remote_files, "_LISTED_FROM", 6)
    monkeypatch.setattr(remote.Store, "facts", lambda self, address: asked.append(address))
    shards = remote_files.remote_files("memory://bucket/set/train-{000..005}.tar", remote_files.RemoteCache(1e9))
    assert [shard.size for shard in shards] == [len(CONTENTS[f"train-{number:03}.tar"]) for number in range(6)]
    assert asked == []

    def denied(self, folder):
        raise remote.Denied("no")

    monkeypatch.undo()
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    monkeypatch.setattr(remote_files, "_LISTED_FROM", 6)
    monkeypatch.setattr(remote.Store, "listed", denied)
    assert remote_files.remote_files("memory://bucket/set/train-{000..005}.tar", shards[0].cache) == shards


@pytest.mark.parametrize(
    ("where", "name", "message"),
    [
        (
            "files",
            "webdataset:{}/train-{{004..007}}.tar",
            r"2 of the 4 files of .* are missing, the first is .*/train-006\.tar",
        ),
        (
            "files",
            "webdataset:{}/{{split}}-{{010..011}}.tar",
            r"no file matches .* for the train split, with \{{split\}} one of",
        ),
        ("memory", "webdataset:{}/none-*.tar", "no file matches .*/none-*"),
        (
            "files",
            "parquet:{}",
            r"is not searched for parquet files: name them, for example .*/set/\{{split\}}-\*\.parquet",
        ),
        ("memory", "parquet:{}/train-009.parquet", "1 of the 1 files"),
    ],
)
def test_what_is_not_there_is_named(request, where, name, message):
    place = request.getfixturevalue(where)
    url = f"{place.url}/set" if where == "files" else "memory://bucket/set"
    with pytest.raises(DataError, match=message.format()):
        open_source(name.format(url))


def test_a_folder_of_a_store_is_no_shard(memory):
    with pytest.raises(DataError, match=r"memory://bucket/set is a folder; name its files"):
        open_source("webdataset:memory://bucket/set")


def test_one_parquet_file_has_no_test_split(files):
    with pytest.raises(DataError, match=r"has no test split; write \{split\} .*, or set test_files or test_fraction"):
        open_source(f"parquet:{files.url}/set/train-000.parquet", "test")


def test_only_footers_are_read_to_open_parquet_files(files, cache, monkeypatch):
    monkeypatch.setattr("wildfern.ssl.data.parquet.TAIL", 70_000)  # Arrow begins with 64 KiB
    for number in range(3):
        files[f"/set/{number}.parquet"] = table(range(6 * number, 6 * number + 6), bytes(100_000))
    source = open_source(f"parquet:{files.url}/set/{{0..2}}.parquet", memory_gb=0.0, label_column=None)
    assert not list(cache.glob("remote/*.file"))
    assert source.blocks.tolist() == [0, 6, 12, 18]  # files, and not row groups
    source.encoded(7)
    assert len(list(cache.glob("remote/*.file"))) == 1
    assert reds(source) == list(range(18))


def test_fingerprints_of_contents_take_no_download(files, cache):
    name = f"webdataset:{files.url}/set/train-{{000..005}}.tar"
    source = open_source(name)
    shutil.rmtree(cache / "remote")
    files.requests.clear()
    before = fingerprint(source.files(), contents=True), sampled_contents(source.files())
    assert files.requests == []
    shutil.rmtree(cache / "remote")  # as on another host
    again = open_source(name)
    assert (fingerprint(again.files(), contents=True), sampled_contents(again.files())) == before
    files["/set/train-000.tar"] = shard([9, 1, 2, 3, 4])
    changed = open_source(name)
    assert fingerprint(changed.files()) == fingerprint(source.files())
    assert fingerprint(changed.files(), contents=True) != before[0]
    assert sampled_contents(changed.files()) != before[1]


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_a_set_larger_than_the_cache(files, ending):
    """In random order a note says what to do; by blocks each file is there before it is needed."""
    kind = {"tar": "webdataset", "parquet": "parquet"}[ending]
    last = {"tar": 5, "parquet": 2}[ending]
    name = f"{kind}:{files.url}/set/train-{{000..{last:03}}}.{ending}"
    size = len(CONTENTS[f"train-000.{ending}"]) / 2**30
    arguments = {"tar": {"labels": "none"}, "parquet": {"disk_gb": 0, "memory_gb": 0, "label_column": None}}[ending]
    source = open_source(name, cache_gb=2.2 * size, **arguments)
    source.read([3, 1])
    assert [note for note in source.notes if "files do not fit into cache_gb: in random order" in note]
    source = open_source(name, cache_gb=2.2 * size, **arguments)
    mixture = Mixture([(source, 1.0)], seed=0, buffers=[int(source.blocks[1])])
    assert sorted(reds(mixture)) == list(range(source.num_items))
    assert not [note for note in source.notes if "random order" in note]
    order = mixture._orders[0]
    ready = []
    for index in range(2 * source.num_items):
        source.expect(order.upcoming([index]))
        source._prefetch.wait()
        before = gets(files)
        source.read(order.locate([index])[1])
        ready.append(gets(files) == before)
    assert all(ready)


def test_a_window_that_does_not_fit_says_so(files):
    size = len(CONTENTS["train-000.tar"]) / 2**30
    source = open_source(f"webdataset:{files.url}/set/train-{{000..005}}.tar", cache_gb=2.2 * size)
    source.expect(BlockOrder(source.blocks, 20, 0).upcoming([0]))
    assert [note for note in source.notes if "set cache_gb to more, or buffer to less" in note]


@pytest.mark.parametrize(
    "name", ["webdataset:{}/set/train-{{000..005}}.tar", "parquet:{}/set/train-{{000..002}}.parquet"]
)
def test_a_pickled_copy_reads_the_same(files, name):
    source = open_source(name.format(files.url))
    expected = reds(source)
    copy = pickle.loads(pickle.dumps(source))
    copy.expect([0])
    assert reds(copy) == expected


@pytest.mark.parametrize("chosen", [None, slice(None, None, 2)])
def test_a_mixture_tells_which_shards_come_next(files, chosen):
    """Every other image as a `Subset`: its blocks are those of the source."""
    size = len(CONTENTS["train-000.tar"]) / 2**30
    source = open_source(f"webdataset:{files.url}/set/train-{{000..005}}.tar", cache_gb=2.2 * size, labels="none")
    reds(source)  # of one size, so that the images are kept decoded
    whole = source
    if chosen is not None:
        source = Subset(source, np.arange(source.num_items)[chosen])
    window = int(source.blocks[1])
    mixture = Mixture([(source, 1.0)], 0, buffers=[window])
    order, asked = mixture._orders[0], []
    whole._prefetch.want = lambda files: asked.append([whole._files.index(file) for file in files]) or True
    items = np.arange(whole.num_items)[chosen or slice(None)]
    for index in range(0, 12 * window, window):
        mixture.read([index])
        shards = np.searchsorted(whole.blocks, items[order.upcoming([index])], "right") - 1
        assert asked == [list(dict.fromkeys(shards.tolist()))]
        asked.clear()
