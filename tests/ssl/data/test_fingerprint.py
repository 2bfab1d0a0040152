"""Fingerprints of lists of files."""

import hashlib

import pytest

from wildfern.ssl.data import DataError
from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.fingerprint import fingerprint


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
