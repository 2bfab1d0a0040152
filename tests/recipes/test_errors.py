"""Error messages of invalid recipes."""

import pickle

import pytest

from wildfern.recipes import RecipeErrors, load_recipe
from wildfern.recipes.errors import Problem


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.stepz=3", "training.stepz: unknown key; did you mean training.steps?"),
        ("steps=3", "steps: unknown key; did you mean training.steps?"),
        ("training.learning_rate=3", "training.learning_rate: unknown key; did you mean optimizer.learning_rate?"),
        ("method.temprature=3", "method.temprature: unknown key; did you mean method.temperature?"),
        ("method.argument_0=3", "method.argument_0: unknown key (known: name, temperature, dims)"),
        ("data.pionts=3", "data.pionts: unknown key; did you mean data.points?"),
        ("method.temperature=-1", "method.temperature: must be greater than 0, got -1"),
        ("method.temperature=true", "method.temperature: must be a number, got true"),
        ("method.temperature=.inf", 'method.temperature: must be a number, got ".inf"'),
        ("method.dims=[1]", "method.dims: has too few items, got [1]"),
        ("method.dims=[1, 2, 3]", "method.dims: must have at most 2 items, got [1, 2, 3]"),
        ("method.dims=[1, 2.5]", "method.dims.1: must be an integer, got 2.5"),
        ("method.name=simclrr", "method.name: unknown method 'simclrr'; did you mean simclr? (known: dino, simclr)"),
        ("method.name=3", "method.name: must be a string, got 3 (put it in quotes if it is meant as text)"),
        ("method=dino", 'method: must be a mapping such as {name: …}, got "dino"'),
        ("engine.zero_stage=1", "engine.zero_stage: unknown key (known: name)"),
        ("training.steps='12'", 'training.steps: must be an integer, got "12"'),
        ("training.steps=1.0", "training.steps: must be an integer, got 1.0"),
        ("training.steps=null", "training.steps: must be an integer, got null"),
        ("training.steps=0", "training.steps: must be greater than 0, got 0"),
        ("training.accumulation=3", "training.accumulation: must divide training.batch_size = 8, got 3"),
        ("training.compile=1", "training.compile: must be true or false, got 1"),
        (
            "training.precision=bfloat16",
            "training.precision: must be 'auto', 'fp32' or 'bf16', got \"bfloat16\"; did you mean bf16?",
        ),
        ("training=null", "training: must be a mapping, got null"),
        ("seed=-1", "seed: must be greater than or equal to 0, got -1"),
        ("seed.x=1", 'seed: must be an integer, got {"x": 1}'),
        ("evaluation.on=3", "evaluation.on: must be a list, got 3"),
        ("evaluation.on=[digit]", "evaluation.on.0.source: unknown source 'digit'; did you mean digits?"),
        ("evaluation.few_shot=[0]", "evaluation.few_shot.0: must be greater than 0, got 0"),
        ("evaluation.online_knn={k: 0}", "evaluation.online_knn.k: must be greater than 0, got 0"),
        (
            "evaluation.online_knn={k: 30, images: 20}",
            "evaluation.online_knn.images: the bank must hold at least k = 30 images, got 20",
        ),
        (
            "evaluation.online_knn={k: 5000}",
            "evaluation.online_knn: the bank must hold at least k = 5000 images, got 4096",
        ),
        ("tracking.wandb=on", "tracking.wandb: must be 'off', 'offline' or 'online', got \"on\""),
        ("data=[]", "data: must be a source or a list of sources, got []"),
        ("data=/my/images", "data.source: unknown source '/my/images'; did you mean folder:/my/images?"),
        ("data=folder", "data.source: needs a path: folder:PATH"),
        ("data='hf:'", "data.source: needs a name: hf:NAME"),
        ("data=digits:x", 'data.source: digits takes nothing after a colon, got "digits:x"; did you mean digits?'),
        ("data.weight=0", "data.weight: must be greater than 0, got 0"),
        ("data.path=x", "data.path: unknown key"),
        ("data.size=2", "data.size: must be greater than or equal to 8, got 2"),
        ("data.points=2", "data.points: points must be at least size = 64, got 2"),
        ("model.arguments=3", "model.arguments: must be a mapping, got 3"),
        ("nonsense", "'nonsense' must be written as key=value"),
        ("training..steps=3", "'training..steps=3' must be written as key=value"),
        ("training.steps.first=3", "training.steps.first: training.steps is a single value, without keys of its own"),
        ("training.steps=[", "training.steps: not valid YAML: "),
        ("training.steps=!!python/name:os.system", "training.steps: line 1: the tag "),
    ],
)
def test_a_wrong_override_is_explained(complaints, override, complaint):
    (line,) = complaints(override)
    assert line.startswith(f"command line: {complaint}")


def test_a_key_of_another_engine_says_how_to_get_that_engine(complaints, load):
    (line,) = complaints("engine.zero_stage=1")
    assert line == (
        "command line: engine.zero_stage: unknown key (known: name); it is a key of engine.name=deepspeed: start the run with "
        "deepspeed or torchrun, or add engine.name=deepspeed"
    )
    assert load("engine.zero_stage=1", "engine.name=deepspeed").engine.arguments == {"zero_stage": 1}
    (line,) = complaints("engine.stage=1")
    assert line == "command line: engine.stage: unknown key (known: name)"
    (line,) = complaints("method.zero_stage=1")
    assert "deepspeed" not in line


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (("views.name=multi_crop", "views.local_crops=99"), "command line: views: too many crops"),
        (("engine.name=deepspeed", "engine.zero_stage='1'"), "command line: engine.zero_stage: must be 0, 1, 2 or 3"),
        (("method.name=dino",), "command line: method.momentum: is missing"),
        (("method.name=dino", "method.momentum=0.01"), "command line: method.momentum: a momentum below the temp"),
        (
            ("method.name=dino", "method.momentum=1", "method.center=medium"),
            "command line: method.center: must be 'mean' or 'sinkhorn', got \"medium\"",
        ),
        (
            ("method.name=dino", "method.momentum=1", "method.copy=x"),
            'command line: method.copy: must be true or false or a number, got "x"',
        ),
        (("data=[digits]", "data.2=ifs"), "command line: data.2: data is a list: its items are numbers, 0 to 0 (or 1"),
        (("data=[digits]", "data.first=ifs"), "command line: data.first: data is a list: its items are numbers"),
        (("data=[digits, 3]",), "command line: data.1: must be a mapping such as {source: …}, got 3"),
        (("data=[{weight: 2}]",), "command line: data.0.source: is missing (known: digits, folder, hf, ifs)"),
        (("data=[{source: ifs, points: 1}]",), "command line: data.0.points: points must be at least size = 64"),
        (("engine={name: deepspeed, zero_stage: 4}",), "command line: engine.zero_stage: must be 0, 1, 2 or 3, got 4"),
    ],
)
def test_wrong_overrides_together_are_explained(complaints, overrides, complaint):
    (line,) = complaints(*overrides)
    assert line.startswith(complaint)


def test_all_errors_are_reported_together(complaints):
    text = """
        extends: minimal.yaml
        mothod: {name: simclr}
        method: {temperature: 0, dims: [1, x]}
        training: {batch_size: 10, accumulation: 3, stepz: 1}
        data: [{source: ifs, weight: -1, point: 7}, nothing]
        evaluation: {on: [ifss]}
    """
    assert complaints("nonsense", "optimizer.learning_rate=fast", "views.name=crops", text=text) == [
        "command line: 'nonsense' must be written as key=value",
        "my.yaml: mothod: unknown key; did you mean method?",
        "my.yaml: data.0.weight: must be greater than 0, got -1",
        "my.yaml: data.0.point: unknown key; did you mean data.0.points?",
        "my.yaml: data.1.source: unknown source 'nothing' (known: digits, folder, hf, ifs)",
        "command line: views.name: unknown views 'crops'; did you mean two_crops? (known: multi_crop, two_crops)",
        "my.yaml: method.temperature: must be greater than 0, got 0",
        'my.yaml: method.dims.1: must be an integer, got "x"',
        'command line: optimizer.learning_rate: must be a number, got "fast"',
        "my.yaml: training.accumulation: must divide training.batch_size = 10, got 3",
        "my.yaml: training.stepz: unknown key; did you mean training.steps?",
        "my.yaml: evaluation.on.0.source: unknown source 'ifss'; did you mean ifs? (known: digits, folder, hf, ifs)",
    ]


def test_missing_sections_are_named_with_what_they_could_be(complaints):
    assert complaints(text="seed: 1") == [
        "my.yaml: data: is missing (known: digits, folder, hf, ifs)",
        "my.yaml: views: is missing (known: multi_crop, two_crops)",
        "my.yaml: model: is missing",
        "my.yaml: method: is missing (known: dino, simclr)",
        "my.yaml: optimizer: is missing (known: adam)",
        "my.yaml: schedule: is missing (known: cosine)",
        "my.yaml: training: is missing",
    ]


def test_errors_of_extra_checks_are_reported_with_the_others_and_name_the_file(complaints):
    def small_images(recipe):
        return [("data.0.size", f"{recipe.data[0].arguments['size']} is odd"), ("seed", "is dull"), ("views", "is odd")]

    def no_steps(recipe):
        return [("training.steps", "too few")]

    lines = complaints(
        "data.size=9", "views.size=9", text="{extends: minimal.yaml, seed: 0}", extra_checks=[small_images, no_steps]
    )
    assert lines == [
        "command line: data.size: 9 is odd",
        "my.yaml: seed: is dull",
        "command line: views: is odd",
        "minimal.yaml: training.steps: too few",
    ]


def test_the_name_of_an_unknown_recipe_is_explained(folder, components, monkeypatch):
    monkeypatch.setattr("wildfern.recipes.loading._bundled", lambda: {"fern": folder / "minimal.yaml"})
    for name, complaint in [
        ("ferm", "ferm: there is no bundled recipe 'ferm'; did you mean fern? (known: fern)"),
        ("minimal", "minimal: there is no bundled recipe 'minimal'; did you mean minimal.yaml? (known: fern)"),
        ("minimale.yaml", "minimale.yaml: no such file; did you mean minimal.yaml?"),
        ("./nowhere/it.yaml", "./nowhere/it.yaml: no such file"),
        ("./", "./: is a folder, not a recipe"),
    ]:
        with pytest.raises(RecipeErrors) as caught:
            load_recipe(name, [], components, base_dir=folder)
        assert str(caught.value) == complaint


def test_a_problem_has_its_parts_and_survives_pickling():
    errors = RecipeErrors([Problem("my.yaml", "training.stepz", "unknown key", "training.steps")])
    assert errors.problems[0].suggestion == "training.steps"
    assert (
        str(pickle.loads(pickle.dumps(errors))) == "my.yaml: training.stepz: unknown key; did you mean training.steps?"
    )
