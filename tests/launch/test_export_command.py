"""`wildfern curate export`: what it says."""

import pytest
from curated_images import write_scenes

from wildfern.launch.curating import scan


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_an_export_without_images_says_so(wildfern, tmp_path, format):
    names = write_scenes(tmp_path / "images", 2)
    scan([str(tmp_path / "images")], tmp_path / "curated", changes=["tiny.min_side=8"], processes=1)
    command = ("curate", "export", "curated", "--out", "out", "--format", format)
    done = wildfern(*command)
    assert done.returncode == 0, done.stderr
    assert f"wildfern pretrain RECIPE data={format}:out" in done.stdout
    assert wildfern("curate", "remove", "curated", *(f"--path={name}" for name in names)).returncode == 0
    done = wildfern(*command)
    assert done.returncode == 0, done.stderr
    assert "no image of curated is kept: nothing was copied, and out has no images" in done.stdout
    assert "pretrain" not in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["attribution.csv"]
