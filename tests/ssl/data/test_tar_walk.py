"""The compiled reading of tar shards against the plain one: the same samples, and the same verdicts."""

import io
import random
import tarfile

import pytest
from tar_bytes import AFTER, FAULTS, FIRST, UNUSUAL, header, member, number, png, record

from wildfern.ssl.data.tar_headers import LINKS
from wildfern.ssl.data.tar_index import ShardIndex, index_shard
from wildfern.ssl.data.tar_walk import walk_shard


def both(path) -> ShardIndex:
    """The index by the compiled loops, which is that of the plain one in everything."""
    plain, compiled = (vars(index_shard(str(path), compiled)) for compiled in (False, True))
    assert plain.pop("passed_over").counts == compiled.pop("passed_over").counts
    assert plain == compiled
    return index_shard(str(path), True)


def rest_of(path) -> int | None:
    """Where the compiled loops leave a shard to the plain one; None if they read all of it."""
    index = index_shard(str(path), False)
    with index.file.open() as file:
        return walk_shard(file, ShardIndex(index.file))


@pytest.mark.parametrize("name", [*FAULTS, *UNUSUAL])
def test_what_is_unusual_is_left_to_the_plain_reading_from_a_sample_on(tmp_path, name):
    content = FAULTS[name][0] if name in FAULTS else UNUSUAL[name]
    (tmp_path / "a.tar").write_bytes(FIRST + member(b"1.jpg", png(1)) + member(b"1.cls", b"2") + content + AFTER)
    index = both(tmp_path / "a.tar")
    assert [index.keys[number] for number in range(2)] == ["0.png", "1.jpg"]
    assert rest_of(tmp_path / "a.tar") in (
        0,
        len(FIRST),
        len(FIRST) + len(member(b"1.jpg", png(1)) + member(b"1.cls", b"2")),
    )
    if name in FAULTS:
        assert index.fault is not None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_programs_write_is_read_to_the_end(tmp_path, form):
    rng = random.Random(form)
    kinds = [tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CONTTYPE]
    with tarfile.open(tmp_path / "a.tar", "w", format=form, pax_headers={"comment": "é"}) as tar:
        for place in range(1500):
            folder = "/".join(["dé" * rng.randint(1, 12)] * rng.randint(0, 2 if form == tarfile.USTAR_FORMAT else 9))
            one = tarfile.TarInfo(f"{folder}/{place // 3:05}.{rng.choice(['jpg', 'cls', 'json', 'txt', 'tif', 'PNG'])}")
            one.type, one.linkname, one.mtime = rng.choice(kinds), "é" * rng.randint(1, 40), rng.random() * 1e9
            one.size = rng.choice([0, 3, 1500, 70_000, 200_000]) if one.isfile() and not place % 5 else 0
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    assert rest_of(tmp_path / "a.tar") is None
    index = both(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", encoding="utf-8", errors="surrogateescape") as tar:
        places = {(m.name, m.offset_data, m.size) for m in tar if m.isfile()}
    assert len(index.keys) > 300
    assert set(zip(index.keys, index.offsets, index.sizes, strict=True)) <= places


FOLDERS = ["", "a", "a/", "b", "a//b", "/", "//", "._a", "__MACOSX", "a/.hidden", "\u212a", "\xe9".encode("latin-1")]
STEMS = ["0", "0", "1", "", ".", "._0", "0.mask", "Thumbs", "desktop", "DesKtop", "des\u212atop", "é"]
ENDINGS = [
    "jpg",
    "JPG",
    "apng",
    "tif",
    "j2k",
    "j2\u212a",
    "cls",
    "Cls",
    "\0cls",
    "json",
    "txt",
    "npy",
    "db",
    "ini",
    "",
    None,
]


def some_name(rng: random.Random) -> bytes:
    folder, stem, ending = (rng.choice(words) for words in (FOLDERS, STEMS, ENDINGS))
    base = stem if ending is None else f"{stem}.{ending}"
    folder = folder if isinstance(folder, bytes) else folder.encode()
    return folder + b"/" * bool(folder) + base.encode() + b"/" * (rng.random() < 0.03)


def test_samples_of_any_names_are_the_same(tmp_path):
    rng = random.Random(0)
    for _ in range(60):
        parts = []
        for _ in range(rng.choice([3, 30, 300])):
            name, form = some_name(rng), rng.random()
            content = bytes(rng.choice([0, 1, 600]))
            if form < 0.1:
                parts += [member(b"n", name + b"\0", b"L"), member(b"n", content)]
            elif form < 0.2:
                parts += [member(b"n", record(b"mtime", b"1.5") + record(b"path", name), b"x"), member(b"n", content)]
            elif form < 0.23:
                parts += [member(b"n", name, b"K"), member(b"p", record(b"comment", name), b"g"), member(name, content)]
            elif form < 0.26:
                parts.append(header(name, rng.choice([b"1", b"2", b"5", b"V", b"\0", b"7"])))
            elif form < 0.29:
                parts.append(header(name, size=number(len(content))) + content + bytes(-len(content) % 512))
            else:
                parts.append(member(name, content))
        (tmp_path / "a.tar").write_bytes(b"".join(parts) + bytes(1024))
        both(tmp_path / "a.tar")


LINK = header(b"0.jpg", b"1"), header(b"d/l.png", b"2"), header(b"._0.jpg", b"2"), header(b"0.cls", b"2")
LONG_LINK = member(b"l", b"d/" * 60 + b"x.png\0", b"L") + member(b"l", b"y" * 200, b"K") + header(b"n", b"1")
PAX_LINK = member(b"p", record(b"path", b"a/0.png") + record(b"linkpath", b"b" * 200), b"x") + header(b"n", b"2")


def test_links_are_passed_over_and_counted(tmp_path):
    (tmp_path / "a.tar").write_bytes(
        LINK[1] + FIRST + LINK[0] + member(b"0.cls", b"1") + b"".join(LINK) + LONG_LINK + AFTER + PAX_LINK + bytes(1024)
    )
    index = both(tmp_path / "a.tar")
    assert rest_of(tmp_path / "a.tar") is None
    assert (list(index.keys), index.members, index.lone_labels) == (["0.png", "9.png"], 10, 0)
    assert index.label_sizes.tolist() == [1, 0]  # a link does not end a sample
    assert index.passed_over.counts == {"hard links": 3, "symbolic links": 4}


def test_links_are_counted_once_wherever_the_table_ends(tmp_path):
    rng = random.Random(0)
    for _ in range(10):
        parts = [rng.choice([*LINK, LONG_LINK, PAX_LINK]) for _ in range(rng.choice([500, 600, 1100]))]
        for place in range(rng.choice([0, 1, 400])):
            files = member(b"%d.jpg" % place, png(1)) + rng.choice(LINK) + member(b"%d.cls" % place, b"1")
            parts.insert(rng.randrange(len(parts)), files)
        for end in (bytes(1024), b"", header(b"s.png", b"S")):  # the last one is left to the plain reading
            (tmp_path / "a.tar").write_bytes(b"".join(parts) + end)
            with tarfile.open(tmp_path / "a.tar") as tar:
                links = [m.type for m in tar if m.type in LINKS and not m.name.startswith("._")]
            expected = {words: links.count(kind) for kind, words in LINKS.items()}
            assert both(tmp_path / "a.tar").passed_over.counts == expected


def test_random_bytes_have_the_same_verdicts(tmp_path):
    rng = random.Random(0)
    good = FIRST + member(b"p", record(b"path", b"long.png"), b"x") + AFTER + member(b"l", b"name.png", b"L") + AFTER
    faults = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            block = 512 * rng.randrange(len(data) // 512)
            place = block + rng.choice([124 + rng.randrange(12), 156, rng.randrange(512)])
            data[place] = rng.choice([rng.randrange(256), 0, 32, ord("-"), ord("7")])
            one = data[block : block + 512]
            one[148:156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(one)
        (tmp_path / "a.tar").write_bytes(data)
        faults += both(tmp_path / "a.tar").fault is not None
    assert 20 < faults < 380


def test_samples_and_headers_that_are_longer_than_the_buffers(tmp_path):
    many = b"".join(member(b"s.%d.txt" % count, b"") for count in range(700))
    long = member(b"l", b"d/" * 40_000 + b"x.png", b"L") + member(b"n", png(3))
    deep = member(b"p", record(b"path", b"d" * 60_000 + b".png"), b"x") + member(b"n", png(3))
    for content in (many, many[: 600 * 512] + member(b"s.png", png(1)), long, deep + deep, many + AFTER + long):
        (tmp_path / "a.tar").write_bytes(FIRST + content + AFTER)
        both(tmp_path / "a.tar")


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 3 * 2**16])
def test_shards_cut_off_anywhere_have_the_same_fault(tmp_path, size):
    content = b"".join(member(b"%d.jpg" % count, bytes(size)) + member(b"%d.cls" % count, b"1") for count in range(3))
    rng = random.Random(size)
    for length in (
        len(content),
        len(content) - 512,
        len(content) - 1023,
        *(rng.randrange(len(content)) for _ in range(30)),
    ):
        (tmp_path / "a.tar").write_bytes(content[:length])
        both(tmp_path / "a.tar")
    assert rest_of(tmp_path / "a.tar") is not None


def test_offsets_beyond_4_gib(tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(header(b"0.jpg", size=number(5 * 2**30)))
        file.seek(5 * 2**30, io.SEEK_CUR)  # a hole
        file.write(AFTER + bytes(1024))
    index = both(tmp_path / "a.tar")
    assert index.offsets.tolist() == [512, 5 * 2**30 + 1024]
    assert rest_of(tmp_path / "a.tar") is None
