"""Tar shards that are damaged, malicious or changed while they are read."""

import io
import os
import random
import tarfile
import threading
import time
from contextlib import nullcontext

import pytest
from tar_bytes import AFTER, FAULTS, FIRST, UNUSUAL, header, member, number, png, record

from wildfern.ssl.data import DataError, classes_csv, open_source
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_headers import LINKS, TarFault, members
from wildfern.ssl.data.tar_index import MOST_LABEL_BYTES
from wildfern.ssl.data.worker_threads import check_wanted, in_threads


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_header_is_a_fault_of_the_shard(tmp_path, name):
    damage, reason = FAULTS[name]
    (tmp_path / "a.tar").write_bytes(FIRST + damage + (AFTER if "end" not in name else b""))
    began = time.perf_counter()
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert time.perf_counter() - began < 5
    assert source.num_items == 1
    assert source.read([0]).pixels[0, 0, 0, 0] == 7
    assert "truncated or damaged after 1 images" in source.skipped[f"{tmp_path}/a.tar"]
    assert reason in source.skipped[f"{tmp_path}/a.tar"]


SIZE_9 = bytes(326) + b"%011o\0" % 9  # of a sparse file with its holes


def test_unusual_headers_that_are_right(tmp_path):
    chain = b"".join(member(b"n", b"deep/%d.png" % k, b"L") for k in range(20_000))
    sparse = member(b"p", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.name", b"s.png"), b"x")
    parts = (
        *(FIRST, header(b"link.png", b"1", number(10**9)), header(b"folder/", b"5"), header(b"pipe.png", b"6")),
        *(
            chain,
            member(b"other", png(1)),
            member(b"p", record(b"path", b"a\nb\0\xff.png"), b"x"),
            member(b"other", png(2)),
        ),
        *(
            sparse,
            member(b"other", png(3)),
            header(b"old.png", b"S", rest=bytes(326) + b"%011o\0" % 9),
            member(b"t.tar", FIRST + FIRST),
        ),
        member(b"9.png", png(9))[: 512 + len(png(9))],  # nothing after the last byte
    )
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert source.read(range(4)).pixels[:, 0, 0, 0].tolist() == [7, 1, 2, 9]
    names = [source.item_name(item).removeprefix(f"{tmp_path}/a.tar/") for item in range(4)]
    assert names == ["0.png", "deep/0.png", "a\nb\0\udcff.png", "9.png"]
    assert "2 sparse, 1 .tar" in source.notes[0]
    assert source.notes[0].endswith("1 hard links; write files for the links (tar --dereference --hard-dereference)")
    assert not source.skipped


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_only_some_programs_write(tmp_path, name):
    (tmp_path / "a.tar").write_bytes(FIRST + UNUSUAL[name] + AFTER)
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert source.read(range(3)).pixels[:, 0, 0, 0].tolist() == [7, 4, 9]
    assert (source.item_name(1), dict(source.skipped)) == (f"{tmp_path}/a.tar/4.png", {})
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()][1] == ("4.png", png(4))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(form):
    rng, file = random.Random(form), io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"comment": "é"}) as tar:
        for _ in range(200):
            name = "".join(rng.choice("ab é7.") for _ in range(rng.randint(1, 45))).strip() or "x"
            one = tarfile.TarInfo("/".join([name] * rng.randint(1, 2 if form == tarfile.USTAR_FORMAT else 4)))
            one.type = rng.choice(
                [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CONTTYPE]
            )
            one.size, one.linkname, one.mtime = rng.randint(0, 1500), "é" * rng.randint(1, 40), rng.random() * 1e9
            if not one.isfile():
                one.size = 0
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    length = file.seek(0, io.SEEK_END)
    read = list(members(file, length))
    found = [(m.name, m.offset, m.size) for m in read if not m.link]
    file.seek(0)
    with tarfile.open(fileobj=file, encoding="utf-8", errors="surrogateescape") as tar:
        assert found == [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
        assert [(m.name, m.link) for m in read if m.link] == [(m.name, LINKS[m.type]) for m in tar if m.type in LINKS]


def test_random_bytes_give_members_within_the_file_or_a_fault():
    rng = random.Random(0)
    good = FIRST + member(b"p", record(b"path", b"long.png"), b"x") + AFTER + member(b"l", b"name.png", b"L") + AFTER
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            block = 512 * rng.randrange(len(data) // 512)
            place = block + rng.choice([124 + rng.randrange(12), 156, rng.randrange(512)])
            data[place] = rng.randrange(256)
            one = data[block : block + 512]
            one[148:156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(one)
        try:
            found = list(members(io.BytesIO(bytes(data)), len(data)))
        except TarFault:
            continue
        ends = [0, *(m.offset + m.size for m in found)]
        assert all(end <= m.offset and m.size >= 0 for end, m in zip(ends, found, strict=False))
        assert ends[-1] <= len(data)


def test_files_that_are_no_shards(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "device.tar").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        for pattern in (f"{name}.tar", f"{name[:3]}*.tar", f"{{{name},x}}.tar"):
            with pytest.raises(DataError, match=f"{name}.tar is not a regular file"):
                open_source(f"webdataset:{tmp_path}/{pattern}")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"no images .*empty.tar: truncated or damaged after 0 images: empty file"):
        open_source(f"webdataset:{tmp_path}/empty.tar")


@pytest.mark.parametrize("change", ["longer", "shorter", "touched", "replaced", "removed", "pipe", "folder"])
def test_a_shard_that_changes_while_it_is_read_is_named(tmp_path, change):
    path = tmp_path / "a.tar"
    path.write_bytes(FIRST + member(b"0.cls", b"3") + AFTER)
    source = open_source(f"webdataset:{path}")
    source.reads_labels = False
    assert source.encoded(1)
    status = path.stat()
    if change in ("longer", "shorter"):
        path.write_bytes(FIRST + AFTER * (2 if change == "longer" else 0))
    elif change == "touched":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    else:
        path.unlink()
    if change == "replaced":
        path.write_bytes(AFTER + member(b"0.cls", b"3") + FIRST)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "folder":
        path.mkdir()
    words = "is gone" if change == "removed" else "has changed since it was opened"
    for use in (lambda: source.read([1]), lambda: source.class_names):
        with pytest.raises(DataError, match=f"{path} {words}.* the same data to the end"):
            use()


def test_a_time_may_be_rounded_to_seconds(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(FIRST)
    second = 10**9
    for then, now, same in ((5 * second + 7, 5 * second, True), (5 * second, 5 * second + 7, True), (5, 6, False)):
        os.utime(path, ns=(then, then))
        noted = SteadyFile.of(path)
        os.utime(path, ns=(now, now))
        with nullcontext() if same else pytest.raises(DataError, match=r"it was written to; .* with --resume"):
            noted.open().close()


LABELS = {
    "5000 digits": ("0.cls", b"1" * 5000, "a name of 5,000 characters; at most 1,000 are possible"),
    "a list of 5000 digits": ("0.cls", b"[" + b"1" * 5000 + b"]", "digits"),
    "a number of 70 bits": ("0.json", b'{"label": %d}' % 2**70, "a number of more than 64 bits"),
    "infinity": ("0.json", b'{"label": 1e400}', "has inf; labels are whole numbers, names, or lists of these"),
    "negative infinity": ("0.json", b'{"label": [0, -Infinity]}', "has -inf"),
    "nested": ("0.json", b'{"label": ' + b"[" * 900 + b"]" * 900 + b"}", "nested more than 32 levels deep"),
    "nested without end": ("0.json", b"[" * 100_000, "nested too deeply"),
    "nested in cls": ("0.cls", b"[" * 900 + b"]" * 900, "nested more than 32 levels deep"),
    "a list of lists": ("0.json", b'{"label": [[1], [2]]}', "has a list of lists"),
    "a mapping": ("0.json", b'{"label": {"a": 1}}', "has a mapping"),
    "a list of mappings": ("0.cls", b'[{"a": 1}]', "has a mapping"),
    "half a surrogate pair": ("0.json", b'{"label": "\\ud800"}', "no Unicode"),
    "no UTF-8": ("0.cls", b"\xff\xfe", "codec can't decode"),
    "no JSON": ("0.json", b"{", "Expecting property name"),
    "too large": (
        "0.json",
        b'{"label": 0, "x": "' + b"x" * MOST_LABEL_BYTES + b'"}',
        "at most 1,048,576 are read for a label",
    ),
    "a list that is too long": ("0.cls", b"[" + b"0," * 10_000 + b"0]", "a list of 10,001 classes"),
}


@pytest.mark.parametrize("name", LABELS)
def test_an_unusable_label_is_named_and_its_image_has_none(tmp_path, name):
    member_name, content, reason = LABELS[name]
    parts = (FIRST, member(member_name.encode(), content), AFTER, member(b"9.cls", b"1"))
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert source.read([0, 1]).labels.tolist() == [-1, 0]
    (note,) = source.notes
    assert f"labels that cannot be used, whose images have none: 1; for example of {tmp_path}/a.tar/0.png: " in note
    assert reason in note


def test_a_label_of_nan_is_no_label(tmp_path):
    (tmp_path / "a.tar").write_bytes(FIRST + member(b"0.json", b'{"label": NaN}') + AFTER + member(b"9.cls", b"1"))
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert (source.read([0, 1]).labels.tolist(), source.notes) == ([-1, 0], [])


def test_an_index_takes_little_memory(tmp_path):
    import tracemalloc

    from wildfern.ssl.data.tar_index import index_shard

    with open(tmp_path / "a.tar", "wb") as file:
        for count in range(4000):
            file.write(header(b"%06d.png" % count))
    tracemalloc.start()
    index = index_shard(str(tmp_path / "a.tar"))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index.keys) == 4000
    assert used < 4000 * (64 + 10) + 100_000


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_ends_all_threads_at_once(error):
    running, done = threading.Event(), []

    def work(item):
        if item == 0:
            running.wait(10)
            raise error
        running.set()
        try:
            while time.perf_counter() < ends:
                check_wanted()
                time.sleep(0.001)
        finally:
            done.append(item)

    ends = time.perf_counter() + 60
    with pytest.raises(type(error)):
        in_threads(work, range(1000), "test")
    while time.perf_counter() < ends and any(t.name.startswith("test_") for t in threading.enumerate()):
        time.sleep(0.01)
    assert time.perf_counter() < ends - 30
    assert len(done) < 16


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "needs .*_classes.csv, which is not a regular file"),
        (b"filename,a\nx.png," + b"1" * 5000, "row 2: a file name and 1 numbers, 0 or 1, are needed"),
        (b"filename,a\nx.png\n", "row 2: a file name and 1 numbers"),
        (b"filename," + b"a" * 200_000, "cannot be read: field larger than field limit"),
        (b"\xff\xfe", "cannot be read: 'utf-8' codec"),
        (b"\n\n", "needs a first line such as filename, cat, dog"),
        (b"x" * 201, "is larger than 200 bytes"),
    ],
)
def test_tables_of_classes(tmp_path, monkeypatch, content, reason):
    if content is None:
        os.mkfifo(tmp_path / classes_csv.NAME)
    else:
        (tmp_path / classes_csv.NAME).write_bytes(content)
    if "larger than 200" in reason:
        monkeypatch.setattr(classes_csv, "MOST_BYTES", 200)
    with pytest.raises(DataError, match=reason):
        classes_csv.read_classes_csv(tmp_path)
