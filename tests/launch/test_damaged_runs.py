"""Files of a run folder that are damaged or come from a stranger: one line, nothing lost, nothing read from elsewhere."""

import gzip
import json
import os
import re
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import TINY

import wildfern
from wildfern.launch.backbones import initial_backbone
from wildfern.launch.components import read_recipe
from wildfern.launch.data_record import _recorded_sizes, recorded_data
from wildfern.launch.errors import RunError
from wildfern.launch.exporting import export_backbone
from wildfern.launch.run_evaluation import weighted_backbones
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.saved_evaluation import merged
from wildfern.recipes import RecipeErrors
from wildfern.ssl.models import Backbone

DEEP = "[" * 100_000
ROW = {"dataset": "digits", "protocol": "knn", "backbone": "random", "metric": "accuracy", "value": 0.5}


@pytest.fixture(scope="module")
def recipe():
    return read_recipe("quickstart", TINY)


@pytest.fixture
def folder(tmp_path, recipe) -> RunFolder:
    """A run as after its first checkpoint."""
    run = RunFolder(tmp_path / "run")
    run.begin(recipe)
    run.write_backbone(initial_backbone(recipe).network.state_dict())
    return run


def put(path: Path, content: bytes | str) -> bytes:
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    return content


EVALUATIONS = {
    "": "not JSON: Expecting value",
    "null": "must be a mapping, got null",
    '"text"': "must be a mapping, got a text",
    "3": "must be a mapping, got a number",
    '{"rows": [': "not JSON",
    b"\xff\xfe": "not JSON",
    DEEP: "not JSON: nested too deeply",
    '{"a": "\\ud800"}': "not JSON: a text that is no Unicode",
    '{"a": ' + "9" * 5000 + "}": "not JSON",
    '{"rows": 3}': "rows must be a list, got a number",
    '{"rows": [1, 2]}': "rows.0 must be a mapping, got a number (2 rows left out)",
    '{"rows": [{}]}': "rows.0.dataset is missing (1 row left out)",
    '{"rows": [{"dataset": "a", "accuracy": 0.5, "std": "x"}]}': "rows.0.std must be a number or null, got a text",
    **{
        json.dumps({"rows": [ROW, ROW | row]}): f"rows.1.{next(iter(row))} must be "
        for row in ({"value": "x"}, {"low": []}, {"n": 1.5}, {"share": None}, {"detail": {}}, {"backbone": []})
    },
    '{"protocols": [1]}': "protocols must be a mapping of names to texts, got a list",
    '{"protocols": {"knn": 3}}': "protocols.'knn' must be a text, got a number",
    '{"notes": "text"}': "notes must be a mapping of data sets to lists of texts, got a text",
    '{"notes": {"a": "text"}}': "notes.'a' must be a list of texts, got a text",
    '{"notes": {"a": [1]}}': "notes.'a' must be a list of texts, got a list",
    '{"baseline": 3}': "baseline must be a name, or a mapping of names to names, got a number",
    '{"baseline": {"a": {"b": "c"}}}': "baseline must be a name, or a mapping of names to names, got a mapping",
    '{"backbone_sha256": 3}': "backbone_sha256 must be a text, got a number",
    json.dumps({"rows": [ROW] * 5001}): "rows are more than 5,000 (1 row left out)",
}


@pytest.mark.parametrize("content", EVALUATIONS, ids=range(len(EVALUATIONS)))
def test_a_damaged_evaluation_is_kept_and_the_new_one_is_written(folder, content):
    file, said = folder.path / "evaluation.json", []
    before = put(file, content)
    new = {"baseline": "random", "protocols": {"linear": "x"}, "notes": {}, "rows": [ROW | {"protocol": "linear"}]}
    folder.write_json("evaluation.json", merged(folder, new, say=said.append))
    (message,) = said
    assert message.startswith(f"{file} is damaged ({EVALUATIONS[content]}")
    assert message.endswith("): kept as evaluation.json.damaged, and written anew")
    assert (folder.path / "evaluation.json.damaged").read_bytes() == before
    assert json.loads(file.read_text())["rows"] == new["rows"]
    put(file, "[")
    merged(folder, new)
    assert (folder.path / "evaluation.json.damaged-1").read_text() == "["


def test_rows_beside_a_damaged_one_are_kept(folder):
    stored = {"rows": [3, ROW], "protocols": {"knn": "k"}, "backbone_sha256": folder.backbone_sha256()}
    put(folder.path / "evaluation.json", json.dumps(stored))
    found = merged(folder, {"protocols": {}, "rows": []})
    assert [row["value"] for row in found["rows"]] == [0.5]
    assert found["protocols"] == {"knn": "k"}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_an_evaluation_that_is_no_file_is_moved_aside(folder, make):
    make(folder.path / "evaluation.json")
    assert merged(folder, {"protocols": {}, "rows": [ROW]})["rows"] == [ROW]
    assert os.path.lexists(folder.path / "evaluation.json.damaged")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "3",
        "{",
        b"\xff",
        DEEP,
        '{"weights": 3}',
        '{"weights": {"sha256": []}}',
        '{"plugins": {}}',
        "fifo",
    ],
)
def test_a_damaged_environment_is_kept(folder, recipe, content):
    file = folder.path / "environment.json"
    file.unlink()
    os.mkfifo(file) if content == "fifo" else put(file, content)
    assert folder.start_weights() == {}
    assert folder.changed_plugins(recipe) == []
    assert re.fullmatch(
        rf"{file} is damaged \(.+\): kept as environment\.json\.damaged, and written anew",
        folder.keep_damaged_environment(),
    )
    folder.begin(recipe)
    assert folder.keep_damaged_environment() is None


@pytest.mark.parametrize(
    "row", ['"origin"', '{"origin": 3, "sha256": []}', '{"origin": "x", "sha256": {"a": 1}}', "[]", "null"]
)
def test_recorded_plugins_of_odd_types_are_no_plugins(folder, recipe, row):
    put(folder.path / "environment.json", f'{{"plugins": [{row}]}}')
    assert folder.changed_plugins(recipe) == []


@pytest.mark.parametrize(
    "content",
    ["", "null\n", "[]\n", '{"file": 3, "reason": "x"}\n', '{"file": "a"}\n', b"\0\0\n", b'{"file": "\xff"}\n', "fifo"],
)
def test_skipped_files_are_noted_beside_damaged_lines(folder, content):
    file, said = folder.path / "skipped.jsonl", []
    row = '{"file": "b.png", "reason": "no image"}\n'
    if content == "fifo":
        os.mkfifo(file)
    else:
        before = put(file, content if isinstance(content, bytes) else content.encode())
        before = put(file, before + row.encode())
    folder.note_skipped({}, said.append)
    assert said == []
    folder.note_skipped({"a.png": "truncated"}, said.append)
    names = [json.loads(line)["file"] for line in file.read_text().splitlines()]
    assert names == (["a.png"] if content == "fifo" else ["a.png", "b.png"])
    assert len(said) == bool(content)
    if content not in ("", "fifo"):
        assert (folder.path / "skipped.jsonl.damaged").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    ["", "null", "{}", '"text"', "[", b"\xff", DEEP, "[3]", "[null]", '[{"names": 3}]', '[{"files": "text"}]',
     '[{"files": true}]', '[{"items": "x"}]', '[{"source": []}]', '[{"contents": 3}]', "link"],
)  # fmt: skip
def test_a_damaged_record_of_the_data_is_told(folder, content):
    file = folder.path / "data.json"
    file.symlink_to("/etc/passwd") if content == "link" else put(file, content)
    with pytest.raises(
        RunError, match=rf"{file} is damaged: .*; remove it to go on without comparing the files"
    ) as told:
        recorded_data(folder)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"0\t1\ta\n")[:-9], gzip.compress(b"no tabs\n"), gzip.compress(b"9" * 5000 + b"\t1\ta\n"),
     gzip.compress(b"0\t1\t" + b"\0" * 10**6)],
    # gzip writes the time: an id made of the bytes differs between two workers of one run
    ids=["empty", "text", "cut off", "no tabs", "long number", "long name"],
)  # fmt: skip
def test_a_damaged_list_of_files_is_no_list(folder, content):
    put(folder.path / "data_files.txt.gz", content)
    assert _recorded_sizes(folder, 0) == {}


def test_a_list_of_files_is_not_unpacked_without_end(folder, monkeypatch):
    monkeypatch.setattr("wildfern.launch.data_record.MOST_LIST", 1000)
    put(folder.path / "data_files.txt.gz", gzip.compress(b"0\t1\ta\n" * 10_000))
    assert _recorded_sizes(folder, 0) == {}


def safetensors(header: dict | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TENSOR = {"dtype": "F32", "data_offsets": [0, 4]}
WEIGHTS = {
    "is damaged: it is empty, not a file of safetensors": b"",
    "is damaged: it is of another format, not a file of safetensors": b"text" * 100,
    "is damaged: its header has 50,000,002 bytes": safetensors(b"{" + b" " * 50_000_000 + b"}"),
    "is damaged: its header has 549,755,813,888 bytes": struct.pack("<Q", 2**39) + b'{"',
    "is damaged: Error while deserializing header: invalid JSON": safetensors(b'{"a":' + DEEP.encode() + b"}"),
    "is damaged: Error while deserializing header: overflow": safetensors(
        {"a": TENSOR | {"shape": [2**62] * 2}}, b"aaaa"
    ),
    "is damaged: Error while deserializing header: inv": safetensors({"a": {**TENSOR, "shape": [2]}}, b"aaaa"),
    "has none of the 65 weights of resnet18": safetensors({"a": TENSOR | {"shape": [1] * 1000}}, b"aaaa"),
    "contains no tensors with names": safetensors({"a." * 5000: TENSOR | {"shape": [1]}}, b"aaaa"),
}


@pytest.mark.parametrize("words", WEIGHTS)
def test_a_damaged_backbone_is_told_in_one_line(folder, words):
    file = folder.path / "backbone.safetensors"
    put(file, WEIGHTS[words])
    told(folder, f"{file} {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: torch.full_like(value, torch.nan), "conv1.weight in {} contains NaN or infinity"),
        (
            lambda value: value.to(torch.int64),
            "conv1.weight in {} is of the type int64; it must be of one of: float32, float16,",
        ),
        (lambda value: value > 0, "conv1.weight in {} is of the type bool"),
        (lambda value: value.to(torch.complex64), "conv1.weight in {} is of the type complex64"),
        (lambda value: value.to(torch.float8_e4m3fn), "conv1.weight in {} is of the type float8_e4m3fn"),
        (lambda value: value[:1], "{} does not fit resnet18: 65 of them have another shape"),
        (lambda value: value.sum(), "{} does not fit resnet18: 65 of them have another shape"),
    ],
)
def test_weights_of_another_kind_are_told_in_one_line(folder, change, words):
    file = folder.path / "backbone.safetensors"
    save_file({k: change(v) if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
    told(folder, words.format(file))


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: torch.save({}, path)]
)
def test_a_backbone_is_a_regular_file_of_safetensors(folder, make):
    file = folder.path / "backbone.safetensors"
    file.unlink()
    make(file)
    told(folder, f"{file}")


def told(folder: RunFolder, words: str) -> None:
    """Each way to read the weights of a run says these words, in one line."""
    for read in (
        lambda: wildfern.load_backbone(folder.path),
        lambda: export_backbone(folder.path),
        lambda: Backbone("resnet18", folder.path, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]),
    ):
        with pytest.raises(ValueError, match=re.escape(words)) as error:
            read()
        assert "\n" not in str(error.value)


def test_the_end_of_training_says_what_is_wrong_with_the_backbone(folder, recipe):
    file = folder.path / "backbone.safetensors"
    put(file, "text")
    with pytest.raises(
        RunError, match=r"backbone\.safetensors is damaged: it is of another format.*resuming the run writes"
    ):
        folder.backbone_tensors()
    with pytest.raises(RunError, match=r"the weights are not those of this run's backbone: .*conv1\.weight"):
        weighted_backbones({"a": torch.ones(1)}, recipe)


RECIPES = {
    "extends: /etc/passwd\n": "recipe.yaml: extends: is not followed in the recipe of a run folder",
    "extends: quickstart\n": "recipe.yaml: extends: is not followed in the recipe of a run folder",
    "a: &a [x, x, x]\nb: &b [*a, *a]\nc: [" + "*b, " * 5000 + "]\n": "more than 10000 values",
}


@pytest.mark.parametrize("start", RECIPES)
def test_the_recipe_of_a_run_reads_no_other_file(folder, start):
    file = folder.path / "recipe.yaml"
    put(file, start + file.read_text())
    with pytest.raises(RecipeErrors, match=re.escape(RECIPES[start])):
        folder.recipe()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ("  size: 32\n  count", "  size: 1000000\n  count"),
            "views.size: must be less than or equal to 4096, got 1000000",
        ),
        (("  count: 2", "  count: 1000000000"), "views.count: must be less than or equal to 100, got 1000000000"),
        (
            ("layers: [1, 1, 1, 1]", "layers: [1000000, 1, 1, 1]"),
            "model.arguments.layers must be at most 100,000, got 1,000,000",
        ),
        (
            ("layers: [1, 1, 1, 1]", "layers: [9000, 1, 1, 1]"),
            "model.arguments.layers must be at most 1,000 blocks together",
        ),
        (
            ("channels: [8,", "channels: [1000000000,"),
            "model.arguments.channels must be at most 100,000, got 1,000,000,000",
        ),
        (
            ("layers: [1, 1, 1, 1]", "img_size: 1000000"),
            "model.arguments.img_size must be at most 4,096, got 1,000,000",
        ),
        (("batch_size: 8", "batch_size: 99999999999999999999"), "cannot be read as int"),
    ],
)
def test_a_recipe_with_huge_numbers_is_refused_soon(folder, changes, words):
    file = folder.path / "recipe.yaml"
    text = file.read_text()
    assert changes[0] in text
    put(file, text.replace(*changes))
    with pytest.raises((RecipeErrors, RunError), match=re.escape(words)):
        folder.backbone()


def test_a_wrong_value_in_the_recipe_is_not_blamed_on_the_weights(folder):
    file = folder.path / "recipe.yaml"
    put(file, file.read_text().replace("layers: [1, 1, 1, 1]", "checkpoint_path: /etc/passwd"))
    with pytest.raises(RunError, match=rf"^{file}: checkpoint_path is not an argument here: [^;]*$"):
        folder.backbone()


def test_no_id_is_read_from_a_huge_environment(folder, monkeypatch):
    put(folder.path / "environment.json", json.dumps({"run": "a" * 32}))
    assert folder.run_id() == "a" * 32
    monkeypatch.setattr("wildfern.launch.run_folder.MOST_ENVIRONMENT", 20)
    assert folder.run_id() is None


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd"), lambda path: path.symlink_to("no")]
)
def test_a_recipe_that_is_no_regular_file_is_named(folder, make):
    file = folder.path / "recipe.yaml"
    file.unlink()
    make(file)
    for read in (lambda: RunFolder.for_reading(folder.path), folder.recipe, folder.recipe_if_started):
        with pytest.raises(RunError, match=rf"{file}: is a "):
            read()
