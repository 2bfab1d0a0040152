"""A small set of components, and fixtures that write and load recipes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from wildfern.recipes import Components, Recipe, RecipeErrors, load_recipe


class Folder:
    def __init__(self, path: str, split: str = "train", *, recursive: bool = True, size: int | None = None):
        raise AssertionError("sources are not opened while a recipe is read")


def digits(split: str = "train", *, size: int = 8):
    raise AssertionError("sources are not opened while a recipe is read")


class Hub:
    def __init__(self, name: str, split: str = "train", *, column: str = "image"):
        raise AssertionError("sources are not opened while a recipe is read")


class Fractals:
    def __init__(self, *, size: Annotated[int, Field(ge=8)] = 64, points: int = 1000, seed: int = 0):
        if points < size:
            raise ValueError(f"points must be at least size = {size}, got {points}")


class SimCLR:
    def __init__(
        self, backbone: object, *, temperature: Annotated[float, Field(gt=0)] = 0.5, dims: tuple[int, int] = (64, 32)
    ):
        raise AssertionError("methods are not built while a recipe is read")


class DINO:
    def __init__(
        self,
        backbone: object,
        total_steps: int,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.1,
        momentum: float,
        center: Literal["mean", "sinkhorn"] | None = None,
        copy: bool | float = False,
    ): ...

    @staticmethod
    def check(*, momentum: float, temperature: float, **others: object) -> None:
        if momentum < temperature:
            raise ValueError("a momentum below the temperature cannot work")


def two_crops(*, size: int = 32, scale: tuple[float, float] = (0.2, 1.0), blur: float = 0): ...


def multi_crop(*, size: int = 32, local_crops: int = 6):
    if local_crops > size:
        raise ValueError("too many crops")


class Adam:
    def __init__(
        self,
        parameters: object,
        *,
        learning_rate: Annotated[float, Field(gt=0)],
        weight_decay: Annotated[float, Field(ge=0)] = 0.0,
    ): ...


class Linear: ...


class KNN:
    def __init__(self, *, k: Annotated[int, Field(ge=1)] = 20, metric: Literal["cosine", "l2"] = "cosine"): ...


def cosine(total_steps: int, *, warmup_steps: int = 0): ...


def torch_engine(model: object): ...


def deepspeed_engine(model: object, *, zero_stage: Literal[0, 1, 2, 3] = 1): ...


BACKBONES = {
    "resnet18": ("layers", "in_chans", "stem"),
    "resnet50": ("layers", "in_chans", "stem"),
    "vgg11": ("in_chans",),
}

MINIMAL = """\
data: ifs
views: {name: two_crops}
model: {backbone: resnet18}
method: {name: simclr}
optimizer: {name: adam, learning_rate: 1e-3}
schedule: {name: cosine}
training: {steps: 10, batch_size: 8}
"""


@pytest.fixture(scope="session")
def components() -> Components:
    return Components(
        sources={"folder": Folder, "digits": digits, "hf": Hub, "ifs": Fractals},
        views={"two_crops": two_crops, "multi_crop": multi_crop},
        methods={"simclr": SimCLR, "dino": DINO},
        optimizers={"adam": Adam},
        schedules={"cosine": cosine},
        engines={"torch": torch_engine, "deepspeed": deepspeed_engine},
        evaluators={"linear": Linear, "knn": KNN},
        backbone_takes=lambda name, key, former: key in BACKBONES.get(name, ()),
        constructible=frozenset({"ifs", "multi_crop", "simclr"}),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the recipe `minimal.yaml`."""
    (tmp_path / "minimal.yaml").write_text(MINIMAL)
    return tmp_path


@pytest.fixture
def load(folder: Path, components: Components) -> Callable[..., Recipe]:
    """`load("training.steps=5", text="extends: minimal.yaml")`: the recipe `my.yaml` of that text, with overrides."""

    def load_text(*overrides: str, text: str = "extends: minimal.yaml", **arguments) -> Recipe:
        (folder / "my.yaml").write_text(text)
        return load_recipe("my.yaml", list(overrides), components, base_dir=folder, **arguments)

    return load_text


@pytest.fixture
def complaints(load: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """The lines of the RecipeErrors that `load` raises for these arguments."""

    def complain(*overrides: str, **arguments) -> list[str]:
        with pytest.raises(RecipeErrors) as caught:
            load(*overrides, **arguments)
        assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
        return str(caught.value).splitlines()

    return complain
