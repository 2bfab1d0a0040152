"""Labels are read, and have to be usable, where something needs them: a method, the online probe, an evaluation."""

import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from small_runs import TINY

from wildfern.launch.assembly import open_data
from wildfern.launch.builders import check_classes, open_mixture
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.evaluation_data import check_for_labels, labeled
from wildfern.launch.online_evaluations import build_probe
from wildfern.launch.protocols import check_protocols
from wildfern.launch.resuming import check_same_run
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.data import DataError
from wildfern.ssl.methods import Needs


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path):
    """40 images, whose column `label` is of no use."""
    columns = {
        "img": [png(v) for v in range(40)],
        "label": [{"box": 1}] * 40,
        "kind": [10 * (v % 3) for v in range(40)],
    }
    parquet.write_table(pa.table(columns), tmp_path / "photos.parquet")
    return tmp_path / "photos.parquet"


def recipe_of(source: str, *changes: str):
    tiny = [change for change in TINY if not change.startswith("data.")]
    return read_recipe("quickstart", [f"data={{source: '{source}'}}", *tiny, *changes])


def test_pretraining_without_labels_never_reads_them(table):
    recipe = recipe_of(f"parquet:{table}")
    mixture = open_mixture(recipe)
    check_classes(recipe, mixture, SimpleNamespace(needs=Needs()))
    images = mixture.read(np.arange(8))
    assert images.labels is None
    assert mixture.notes == [f"{table}: images are read from column img"]


def test_a_method_and_the_probe_need_usable_labels(table):
    message = "column label is of type struct.*; label_column could be kind, or null"
    recipe = recipe_of(f"parquet:{table}")
    with pytest.raises(DataError, match=message):
        check_classes(recipe, open_mixture(recipe), SimpleNamespace(needs=Needs(labels="classes")))
    recipe = recipe_of(f"parquet:{table}", "evaluation.online_probe={}")
    mixture = open_mixture(recipe)
    check_classes(recipe, mixture, SimpleNamespace(needs=Needs()))
    with pytest.raises(DataError, match=message):
        build_probe(recipe, mixture, None, None)


def test_the_probe_needs_one_label_for_each_image(tmp_path):
    parquet.write_table(pa.table({"image": [png(1), png(2)], "label": [[0, 1], [1]]}), tmp_path / "a.parquet")
    recipe = recipe_of(f"parquet:{tmp_path}/a.parquet", "evaluation.online_probe={}")
    with pytest.raises(RunError, match=r"images of parquet:.* have several: set it to null"):
        build_probe(recipe, open_mixture(recipe), None, None)


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([0.5] * 40, [], "column label: a label is 0.5"),
        ([None] * 40, [], "has no labels, which linear and knn cannot do without"),
        ([7] * 40, [], r"\(train\): all labeled images are of one class"),
        (
            [[0], [0, 1]] * 20,
            ["evaluation.few_shot=[1]"],
            r"may have several labels each, and few_shot .* need one label each",
        ),
        ([[0], [0, 1]] * 20, [], None),
        ([0, 1] * 20, ["evaluation.few_shot=[1]"], None),
    ],
)
def test_labels_of_the_evaluation_are_checked_before_training(tmp_path, labels, changes, message):
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"image": [png(v) for v in range(40)], "label": labels}), file)
    recipe = read_recipe("quickstart", [*TINY, f"evaluation.on=['parquet:{file}']", "evaluation.few_shot=[]", *changes])
    context = SimpleNamespace(is_main=True, world_size=1, raise_on_all=raised, barrier=lambda: None)
    if message is None:
        assert len(open_data(recipe, context)[2]) == 1
        return
    with pytest.raises(ValueError, match=message):
        open_data(recipe, context)


def raised(error: Exception | None) -> None:
    if error is not None:
        raise error


def test_evaluation_holds_out_a_fifth_where_there_is_no_test_split(table, tmp_path):
    train, test = labeled({"source": f"parquet:{table}", "image_column": "img", "label_column": "kind"})
    assert train.num_items + test.num_items == 40
    assert train.class_names == test.class_names == ["0", "10", "20"]
    assert test.split_words == "about 20 % of the rows, by a hash of their number"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(40):
            for name, data in ((f"{number}.png", png(number)), (f"{number}.cls", b"%d" % (number % 2))):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    train, test = labeled(f"webdataset:{tmp_path}/a.tar")
    assert train.num_items + test.num_items == 40
    for name in ("train/cat/1.png", "train/dog/2.png", "valid/cat/3.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(png(1))
    train, test = labeled(f"folder:{tmp_path}/pets")
    assert (train.num_items, test.num_items, test.split_words) == (2, 1, "folder valid")
    assert train.class_names == ["cat", "dog"]


def test_runs_that_stored_the_former_default_column_resume(table, tmp_path):
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")

    def recipe(column: str):
        tiny = [change for change in TINY if not change.startswith("data.")]
        return read_recipe("quickstart", [f"data={{source: 'parquet:{table}', image_column: {column}}}", *tiny])

    (folder.path / "recipe.yaml").write_text(recipe("image").as_yaml())
    check_same_run(recipe("null"), folder)
    check_same_run(recipe("image"), folder)
    with pytest.raises(RunError, match="data differ"):
        check_same_run(recipe("img"), folder)


def test_the_bank_of_online_knn_has_room_for_each_class():
    recipe = recipe_of("ifs", "data.classes=30", "evaluation.online_knn={images: 20}")
    with pytest.raises(RunError, match="a bank of 20 images cannot have one of each of the 30 classes of ifs"):
        build_probe(recipe, open_mixture(recipe), SimpleNamespace(backbone=SimpleNamespace(width=4)), None)


def test_a_table_without_the_column_of_labels_says_which_it_has(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "metadata.csv").write_text("filename,animal,split\n1.png,cat,train\n2.png,cat,test\n")
    sources = {"pics": labeled(f"csv:{tmp_path}")}
    with pytest.raises(
        RunError, match=r"no labels, which linear cannot do without: its table has no column 'y'; .*animal"
    ):
        check_for_labels(sources, check_protocols(["linear"]))
