"""Fingerprints of lists of files."""

import hashlib

import pytest

from wildfern.ssl.data import DataError
from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.fingerprint import SAMPLED, SAMPLED_BYTES, fingerprint, sampled_contents


@pytest.fixture
def files(tmp_path):
    """Three files; `files(**changes)` lists them, with other names or sizes."""
    for name in "abc":
        (tmp_path / name).write_text(name * 3)

    def listed(names="abc", size=3):
        return [SourceFile(name, size, str(tmp_path / name)) for name in names]

    return listed


def test_it_is_the_hash_of_names_and_sizes_in_order(files):
    found = fingerprint(files())
    assert (found.files, found.bytes, found.contents) == (3, 9, None)
    assert found.names == hashlib.sha256(b"3 a\n3 b\n3 c\n").hexdigest()
    others = [fingerprint(iter(files(names))).names for names in ("ab", "acb", "abx", "abca")]
    others.append(fingerprint(files(size=4)).names)
    assert len({found.names, *others}) == 6


def test_contents_are_read_only_on_request(files, tmp_path):
    before = fingerprint(files(), contents=True)
    digests = b"".join(hashlib.sha256(name.encode() * 3).digest() for name in "abc")
    assert before.contents == hashlib.sha256(digests).hexdigest()
    (tmp_path / "b").write_text("xyz")
    after = fingerprint(files(), contents=True)
    assert (before.names, before.contents != after.contents) == (after.names, True)
    (tmp_path / "b").unlink()
    assert fingerprint(files()) == fingerprint(files())
    with pytest.raises(DataError, match=r"/b cannot be read for its fingerprint: No such file"):
        fingerprint(files(), contents=True)


@pytest.mark.parametrize("number", [1, SAMPLED, 3 * SAMPLED + 1])
def test_a_sample_is_of_the_ends_of_evenly_spaced_files(number, tmp_path):
    chosen = set(range(number)) if number <= SAMPLED else {n * number // SAMPLED for n in range(SAMPLED)}
    files = [SourceFile(f"{n}", 3, str(tmp_path / f"{n}")) for n in range(number)]
    for n in range(number):
        (tmp_path / f"{n}").write_bytes(b"abc")
    before = sampled_contents(files)
    assert sampled_contents(files) == before
    for n in (0, number // 2, number - 1):
        (tmp_path / f"{n}").write_bytes(b"xyz")
        assert (sampled_contents(files) != before) == (n in chosen)
        (tmp_path / f"{n}").write_bytes(b"abc")


@pytest.mark.parametrize("size", [0, 1, SAMPLED_BYTES, SAMPLED_BYTES + 1, 2 * SAMPLED_BYTES + 9])
def test_both_ends_of_a_file_count(size, tmp_path):
    files = [SourceFile("a", size, str(tmp_path / "a"))]
    (tmp_path / "a").write_bytes(content := b"x" * size)
    before = sampled_contents(files)
    for place in {0, size - 1, SAMPLED_BYTES - 1, size - SAMPLED_BYTES} & set(range(size)):
        (tmp_path / "a").write_bytes(content[:place] + b"y" + content[place + 1 :])
        assert sampled_contents(files) != before
    (tmp_path / "a").unlink()
    with pytest.raises(DataError, match=r"/a cannot be read for its fingerprint: No such file"):
        sampled_contents(files)
