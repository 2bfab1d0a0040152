"""The sections of a recipe. What a component's own arguments are, its signature says; all the rest is typed here."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_jsonable_python

from wildfern.recipes.components import CHOICE, DEFAULT_CHOICE, EVALUATION_LISTS, STRICT, choice_name
from wildfern.recipes.yaml_text import write_yaml
from wildfern.registry import load_plugin


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are not converted, and nothing changes after loading."""

    model_config = STRICT


class Component(Section):
    """A component by its registry name, with all of its arguments (those left out at their defaults)."""

    name: str = Field(description="Which component: a name from its registry.")
    arguments: dict[str, Any] = Field({}, description="Its keyword-only arguments.")


class DataEntry(Section):
    """One source of images and its share of the training data."""

    source: str = Field(description="Where images come from: a data set, folder:PATH, parquet:PATH … or a generator.")
    weight: PositiveFloat = Field(1.0, description="Share of this source, relative to the weights of the others.")
    arguments: dict[str, Any] = Field({}, description="Keyword-only arguments of the source.")

    @property
    def scheme(self) -> str:
        """The registry key of the source: `folder` of `folder:/a/b`."""
        return choice_name("data", self.source) or ""


class EvaluationEntry(Section):
    """One dataset to evaluate on, with those of its arguments that are not at their defaults."""

    source: str = Field(description="A dataset with labels: a named one, folder:PATH, parquet:PATH …")
    arguments: dict[str, Any] = Field({}, description="Keyword-only arguments of the source.")

    @property
    def scheme(self) -> str:
        """The registry key of the source: `folder` of `folder:/a/b`."""
        return choice_name("on", self.source) or ""


def _new_word(stem: Any) -> Any:
    return "cifar" if stem == "small" else stem  # its name up to release 0.1


class Model(Section):
    """The backbone to pretrain."""

    backbone: str = Field(min_length=1, description="The timm name of the backbone.")
    weights: str | None = Field(
        None, description="Weights to start from: a file, a run folder or a timm tag; null: random weights."
    )
    stem: Annotated[Literal["standard", "cifar"], BeforeValidator(_new_word)] = Field(
        "standard", description="cifar: a 3×3 stem without pooling, for images of about 32 pixels."
    )
    arguments: dict[str, Any] = Field({}, description="Further arguments of timm.create_model.")


class Training(Section):
    """How long, how large, how precise, and what is kept."""

    steps: PositiveInt = Field(description="Optimizer steps.")
    batch_size: PositiveInt = Field(description="Images in one step, over all ranks and accumulated parts.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of forward and backward passes; auto: bf16 where the device computes in it, else fp32.",
    )
    accumulation: PositiveInt = Field(1, description="Parts a batch is computed in, one after the other.")
    gradient_clip: PositiveFloat | None = Field(None, description="Largest norm of the gradient; null: no limit.")
    skip_nonfinite: NonNegativeInt = Field(
        0,
        description="Steps in a row that may be skipped for a NaN or infinite loss or gradient; one more stops training.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Steps between checkpoints.")
    checkpoint_minutes: PositiveFloat | None = Field(None, description="Also checkpoint after so many minutes.")
    keep_checkpoints: PositiveInt = Field(2, description="How many of the newest checkpoints are kept.")
    keep_every: PositiveInt | None = Field(
        None, description="Keep for good the checkpoints of steps that this divides; a multiple of checkpoint_every."
    )
    log_every: PositiveInt = Field(10, description="Steps between lines of metrics.jsonl.")
    loader_threads: NonNegativeInt = Field(1, description="Threads that prepare batches; 0: the training thread does.")
    threads: PositiveInt | None = Field(None, description="CPU threads of torch; null: torch decides.")
    channels_last: bool = Field(True, description="Channels-last memory format.")
    compile: bool = Field(
        False, description="torch.compile backbone and teachers: fused kernels, minutes at the first step."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to train; auto: a CUDA GPU, else the CPU."
    )

    @field_validator("keep_every")
    @classmethod
    def _is_a_checkpoint(cls, keep_every: int | None, info: ValidationInfo) -> int | None:
        checkpoint_every = info.data.get("checkpoint_every")
        if keep_every is not None and checkpoint_every is not None and keep_every % checkpoint_every:
            raise ValueError(f"must be a multiple of training.checkpoint_every = {checkpoint_every}, got {keep_every}")
        return keep_every

    @field_validator("accumulation")
    @classmethod
    def _parts_are_equal(cls, accumulation: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % accumulation:
            raise ValueError(f"must divide training.batch_size = {batch_size}, got {accumulation}")
        return accumulation


class OnlineProbe(Section):
    """A linear classifier that learns the training images' labels beside the method, which never notices."""

    learning_rate: PositiveFloat = Field(1e-3, description="Of the probe's own optimizer, Adam.")


class Evaluation(Section):
    """What the backbone is measured on."""

    on: list[EvaluationEntry] = Field([], description="Datasets to evaluate on: names, or mappings with arguments.")
    protocols: list[Component] = Field(
        [Component(name="linear"), Component(name="knn")],
        description="How to evaluate: names of evaluators, or mappings {name: …} with arguments.",
    )
    every: PositiveInt | None = Field(None, description="Steps between evaluations; null: only at the end.")
    few_shot: list[PositiveInt] = Field([], description="Labels per class of additional linear probes and kNN.")
    seeds: PositiveInt = Field(3, description="Repetitions of what depends on a seed.")
    online_probe: OnlineProbe | None = Field(
        None, description="Log probe_accuracy, of a linear classifier trained on the side; {}: with its defaults."
    )


class Tracking(Section):
    """Where metrics go besides the run folder."""

    wandb: Literal["off", "offline", "online"] = Field("off", description="Weights & Biases.")
    project: str = Field("wildfern", description="The wandb project.")
    run_name: str | None = Field(None, description="The name of the run; null: the name of its folder.")


class Seed(Section):
    """The one number that is a section of its own."""

    seed: NonNegativeInt = Field(0, description="Everything random follows from it.")


class Recipe(Seed):
    """A whole recipe, checked and complete."""

    plugins: list[str] = Field([], description="Python files that register components; relative to the recipe's file.")
    data: list[DataEntry] = Field(min_length=1, description="Where images come from.")
    views: Component = Field(description="How views of an image are made.")
    model: Model = Field(description="The backbone to pretrain.")
    method: Component = Field(description="The self-supervised objective.")
    optimizer: Component = Field(description="The optimizer.")
    schedule: Component = Field(description="Learning rate over the steps.")
    training: Training = Field(description="How long, how large, how precise, and what is kept.")
    engine: Component = Field(
        Component(name=DEFAULT_CHOICE["engine"]), description="What runs the steps: torch or deepspeed."
    )
    evaluation: Evaluation = Field(Evaluation(), description="What the backbone is measured on.")
    tracking: Tracking = Field(Tracking(), description="Where metrics go besides the run folder.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are written in a recipe file."""
        plain: dict[str, Any] = {}
        for section in type(self).model_fields:
            value = getattr(self, section)
            plain[section] = [_plain(entry) for entry in value] if section == "data" else _plain(value)
        if len(self.data) == 1:
            plain["data"] = plain["data"][0]
        for name in EVALUATION_LISTS:
            key = CHOICE.get(name, "name")
            plain["evaluation"][name] = [e[key] if set(e) == {key} else e for e in plain["evaluation"][name]]
        if not self.plugins:
            del plain["plugins"]
        return plain

    def with_plugins(self, paths: Sequence[str | PathLike[str]]) -> "Recipe":
        """The same with these plugin files added, all of them run. Raises PluginError."""
        plugins = list(dict.fromkeys([*self.plugins, *(fspath(path) for path in paths)]))
        for path in plugins:
            load_plugin(path)
        return self.model_copy(update={"plugins": plugins})

    def as_yaml(self) -> str:
        """The recipe as YAML; `load_recipe` reads it back to an equal recipe."""
        return write_yaml(self.as_dict())


FIXED_SECTIONS: dict[str, type[Section]] = {
    "model": Model,
    "training": Training,
    "evaluation": Evaluation,
    "tracking": Tracking,
}
COMPONENT_SECTIONS = ("data", "views", "method", "optimizer", "schedule", "engine")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        plain = {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        arguments = plain.pop("arguments") if isinstance(value, Component | DataEntry | EvaluationEntry) else {}
        return {**plain, **arguments}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else to_jsonable_python(value)
