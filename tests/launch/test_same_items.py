"""A run resumes only on the data it was started with."""

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import open_mixture
from wildfern.launch.components import read_recipe
from wildfern.launch.data_record import check_same_files, record_data
from wildfern.launch.errors import RunError
from wildfern.launch.resuming import check_same_items
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.data import open_source
from wildfern.ssl.data.fingerprint import fingerprint


def image(path, number):
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def test_an_additional_image_is_refused_with_both_counts(tmp_path):
    images, run = tmp_path / "images", tmp_path / "run"
    images.mkdir()
    for number in range(9):
        image(images / f"{number}.png", number)
    changes = [change for change in TINY if not change.startswith("data.")]
    changes += [f"data={{source: 'folder:{images}'}}", "evaluation.online_probe=null"]
    pretrain("quickstart", [*changes, "training.steps=2"], run=run)
    assert json.loads((run / "checkpoints" / "step_00000002" / "checkpoint.json").read_text())["items"] == [9]

    image(images / "one more.png", 9)
    with pytest.raises(
        RunError, match=r"images has 10 items now, but had 9 when .* written \(new: one more\.png\)\. A run"
    ):
        pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    listed, size = run / "data_files.txt.gz", sum(file.stat().st_size for file in images.iterdir())
    names = listed.read_bytes()
    listed.write_bytes(gzip.compress(b""))  # as of more files than are listed
    with pytest.raises(RunError, match=rf"written \(files: 9 then, 10 now; bytes: [\d,]+ then, {size:,} now\)\. A run"):
        pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    listed.write_bytes(names)
    (images / "0.png").rename(images.parent / "0.png")
    (images / "1.png").rename(images.parent / "1.png")
    with pytest.raises(
        RunError, match=r"has 8 items now, but had 9 .* \(missing: 0\.png, 1\.png; new: one more\.png\)\. A"
    ):
        pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    (images.parent / "0.png").rename(images / "0.png")
    (images.parent / "1.png").rename(images / "1.png")
    (images / "one more.png").unlink()
    pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    assert (run / "checkpoints" / "step_00000003").is_dir()


def test_the_source_that_changed_is_named():
    recipe = read_recipe("quickstart", [*TINY, "data=[{source: ifs}, {source: digits}]"])
    check_same_items(recipe, [None, 7], [None, 7])
    check_same_items(recipe, None, [None, 7])  # a checkpoint without the numbers
    with pytest.raises(RunError, match=r"^digits has 7 items now, but had 8"):
        check_same_items(recipe, [None, 8], [None, 7])
    with pytest.raises(RunError, match=r"has 2 data sources, but had 1 "):
        check_same_items(recipe, [None], [None, 7])


def test_other_files_of_the_same_number_are_named_and_refused(tmp_path, wildfern):
    images, run = tmp_path / "images", tmp_path / "run"
    (images / "deep").mkdir(parents=True)
    for number in range(8):
        image(images / f"{number}.png", number)
    image(images / "deep" / "8.png", 8)
    changes = [change for change in TINY if not change.startswith("data.")]
    changes += [f"data={{source: 'folder:{images}'}}", "evaluation.online_probe=null"]
    command = ["pretrain", "quickstart", *changes, "--run", str(run)]
    assert wildfern(*command, "training.steps=2").returncode == 0
    (entry,) = json.loads((run / "data.json").read_text())
    assert (entry["items"], entry["files"]) == (9, 9)
    assert entry["bytes"] == sum(file.stat().st_size for file in images.rglob("*.png"))
    with gzip.open(run / "data_files.txt.gz", "rt") as listed:
        assert "0\t" + str((images / "deep/8.png").stat().st_size) + "\tdeep/8.png\n" in list(listed)

    (images / "3.png").rename(images / "new.png")
    image(images / "5.png", 50)
    with (images / "5.png").open("ab") as file:
        file.write(b"longer")
    for refused in ([*command, "training.steps=3", "--resume"], ["views", str(run), "--out", "seen.png"]):
        result = wildfern(*refused)
        assert result.returncode == 2
        assert "has other files than the run was started with" in result.stderr
        assert "(missing: 3.png; new: new.png; of another size: 5.png)" in result.stderr
    assert not (tmp_path / "seen.png").exists()

    (images / "new.png").rename(images / "3.png")
    image(images / "5.png", 5)
    assert wildfern("views", str(run), "--out", "seen.png").returncode == 0
    assert wildfern(*command, "training.steps=3", "--resume").returncode == 0


@pytest.mark.parametrize(
    "content",
    [b"junk", b"", gzip.compress(b"0\t1\ta.png\n")[:15], gzip.compress(b"no tabs\n")],
    ids=["no gzip", "empty", "cut off", "other text"],
)
def test_a_damaged_list_of_files_leaves_the_message(tmp_path, content):
    (tmp_path / "images").mkdir()
    image(tmp_path / "images" / "0.png", 0)
    recipe = read_recipe("quickstart", [f"data=folder:{tmp_path}/images", "evaluation.online_probe=null"])
    folder = RunFolder(tmp_path)
    record_data(recipe, open_mixture(recipe), folder)
    (folder.path / "data_files.txt.gz").write_bytes(content)
    check_same_files(recipe, open_mixture(recipe), folder)
    image(tmp_path / "images" / "1.png", 1)
    counts = r"new run folder; files: 1 then, 2 now; bytes: [\d,]+ then, [\d,]+ now"
    with pytest.raises(RunError, match=rf"started with \(names or sizes differ\)\. A run .* {counts}"):
        check_same_files(recipe, open_mixture(recipe), folder)


def test_contents_are_compared_on_request(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        image(images / f"{number}.png", number)
    folder = RunFolder(tmp_path)
    data = f"data={{source: 'folder:{images}', fingerprint: contents}}"
    recipe = read_recipe("quickstart", [data, "evaluation.online_probe=null"])
    record_data(recipe, open_mixture(recipe), folder)
    check_same_files(recipe, open_mixture(recipe), folder)
    content = bytearray((images / "1.png").read_bytes())
    content[-20] ^= 1
    (images / "1.png").write_bytes(content)
    with pytest.raises(RunError, match="the same names and sizes as the run was started with, but other contents"):
        check_same_files(recipe, open_mixture(recipe), folder)
    names = read_recipe(
        "quickstart", [data.replace("fingerprint: contents", "fingerprint: names"), "evaluation.online_probe=null"]
    )
    check_same_files(names, open_mixture(names), folder)
    (folder.path / "data.json").unlink()
    check_same_files(recipe, open_mixture(recipe), folder)  # a run of an earlier version


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_tables_and_shards_have_fingerprints(kind, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    if kind == "parquet":
        table = pyarrow.table({"image": [content.getvalue()] * 3})
        pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
        source = open_source(f"parquet:{tmp_path}")
    else:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            member = tarfile.TarInfo("0.png")
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
        source = open_source(f"webdataset:{tmp_path}/a.tar")
    (file,) = source.files()
    assert file.name == ("train.parquet" if kind == "parquet" else "a.tar")
    assert file.size == (tmp_path / file.name).stat().st_size
    assert fingerprint(source.files(), contents=True).contents is not None
