"""Paths with ~, and addresses in place of paths."""

import pwd

import pytest

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.paths import expanded


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~odd").mkdir()
    assert str(expanded("~odd")) == "~odd"  # exists under this name


@pytest.mark.parametrize("scheme", ["folder", "parquet", "webdataset"])
def test_without_a_home_the_message_says_so(monkeypatch, scheme):
    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(DataError, match="~ has no meaning here, since HOME is not set"):
        open_source(f"{scheme}:~/x")
    with pytest.raises(DataError, match="there is no user nobody_here on this machine"):
        open_source(f"{scheme}:~nobody_here/x")


@pytest.mark.parametrize(
    ("location", "advice"),
    [
        ("s3://bucket/x-{000..009}.tar", "or mount it as a folder"),
        ("gs://bucket/x", "or mount it as a folder"),
        ("https://host/x.tar", "download it first, and give the path"),
    ],
)
def test_remote_folders_are_refused_in_words(location, advice):
    with pytest.raises(DataError, match=advice):
        open_source(f"folder:{location}")


@pytest.mark.parametrize("scheme", ["folder", "parquet", "webdataset"])
@pytest.mark.parametrize(
    ("location", "advice"),
    [
        ("hdfs://host/x", "or mount it as a folder"),
        ("hf://datasets/org/name/data/train.parquet", "write hf:org/name, which"),
        ("file:///data/x", "write /data/x"),
        ("pipe:curl x", "commands are not run"),
    ],
)
def test_addresses_are_refused_in_words(scheme, location, advice):
    with pytest.raises(DataError, match=advice):
        open_source(f"{scheme}:{location}")
