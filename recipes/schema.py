"""The sections of a recipe. The keys of a component come from its signature; all other keys are defined here."""

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
from wildfern.recipes.learning_rate import RATE_KEYS, scaled_rate
from wildfern.recipes.yaml_text import write_yaml
from wildfern.registry import load_plugin

BUFFER = 10_000  # images: a shard or ten row groups of usual sizes


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are not converted, and instances are immutable."""

    model_config = STRICT


class Component(Section):
    """A component by its registry name, with all of its arguments, defaults included."""

    name: str = Field(description="Name of the component.")
    arguments: dict[str, Any] = Field({}, description="Arguments of the component.")


class ScheduleChoice(Component):
    """A schedule, and how many steps it spans."""

    length: PositiveInt | None = Field(None, description="Steps that the schedule spans; null: training.steps.")
    afterwards: Literal["hold", "restart"] = Field(
        "hold",
        description="After `length` steps: hold the last values, or start again, with the warm-up, over the remaining steps.",
    )


class OptimizerChoice(Component):
    """An optimizer; its learning rate is an argument, or follows from `base_learning_rate` and the batch size."""

    base_learning_rate: PositiveFloat | None = Field(
        None, description="Learning rate for 256 images of the global batch, instead of learning_rate."
    )
    scaling: Literal["linear", "sqrt"] = Field(
        "linear",
        description="Of base_learning_rate with training.batch_size B: linear: × B/256; sqrt: × the square root of B/256.",
    )

    def arguments_for(self, batch_size: int) -> dict[str, Any]:
        """All arguments of the optimizer, with the learning rate for a global batch of this size."""
        if self.base_learning_rate is None:
            return self.arguments
        return {"learning_rate": scaled_rate(self.base_learning_rate, batch_size, self.scaling), **self.arguments}


class Imbalance(Section):
    """How many training images of each class are kept: the last class is the largest."""

    kind: Literal["linear", "exp", "step"] = Field(
        description="Sizes of the classes: linear or exponential from class to class, or step: the first half is smaller."
    )
    ratio: Annotated[float, Field(ge=1)] | None = Field(
        None,
        validate_default=True,
        description="Size of the largest class / size of the smallest; null: the published sizes of CACR (linear, exp).",
    )
    seed: NonNegativeInt = Field(
        0, description="Seed of the choice of images, which the recipe's seed does not change."
    )
    minimum: NonNegativeInt = Field(0, description="Images that a class keeps at least, if it has as many.")

    @field_validator("ratio")
    @classmethod
    def _step_has_a_ratio(cls, ratio: float | None, info: ValidationInfo) -> float | None:
        if ratio is None and info.data.get("kind") == "step":
            raise ValueError("kind step needs a ratio, for example ratio: 10")
        return ratio


class DataEntry(Section):
    """One source of images and its share of the training data."""

    source: str = Field(description="Dataset, folder:PATH, parquet:PATH … or generator.")
    weight: PositiveFloat = Field(1.0, description="Sampling weight, relative to the other sources.")
    fingerprint: Literal["names", "contents"] = Field(
        "names",
        description="What a resumed run compares: names and sizes of the files, or also their contents, which reads all of them.",
    )
    imbalance: Imbalance | None = Field(
        None, description="Keep fewer images of some classes, for training only; null: all images."
    )
    guide: str | None = Field(
        None,
        min_length=1,
        description="File of wildfern cluster: no two images of a batch are of one cluster; null: batches at random.",
    )
    order: Literal["random", "blocks"] = Field(
        "random",
        description="Order of the images in an epoch: random, or blocks: a few shards or row groups at a time, for slow disks.",
    )
    buffer: PositiveInt | None = Field(
        None,
        validate_default=True,
        description=f"Images that are shuffled together with order: blocks; null: {BUFFER:,} with it.",
    )
    arguments: dict[str, Any] = Field({}, description="Arguments of the source.")

    @field_validator("order")
    @classmethod
    def _guide_has_its_own_order(cls, order: str, info: ValidationInfo) -> str:
        if order == "blocks" and info.data.get("guide") is not None:
            raise ValueError("must be random with a guide, which chooses the images of each batch")
        return order

    @field_validator("buffer")
    @classmethod
    def _buffer_is_for_blocks(cls, buffer: int | None, info: ValidationInfo) -> int | None:
        order = info.data.get("order")
        if order == "random" and buffer is not None:
            raise ValueError("is for order: blocks; set order to blocks, or buffer to null")
        return BUFFER if order == "blocks" and buffer is None else buffer

    @property
    def scheme(self) -> str:
        """The registry key of the source: `folder` of `folder:/a/b`."""
        return choice_name("data", self.source) or ""


class EvaluationEntry(Section):
    """One dataset to evaluate on, with the arguments that differ from their defaults."""

    source: str = Field(description="Labeled dataset: a name, folder:PATH, parquet:PATH …")
    arguments: dict[str, Any] = Field({}, description="Arguments of the source.")

    @property
    def scheme(self) -> str:
        """The registry key of the source: `folder` of `folder:/a/b`."""
        return choice_name("on", self.source) or ""


def _current_name(stem: Any) -> Any:
    return "cifar" if stem == "small" else stem  # "small" up to release 0.1


class Model(Section):
    """The backbone to pretrain."""

    backbone: str = Field(min_length=1, description="A timm name, torchvision/NAME, small_alexnet or unet.")
    weights: str | None = Field(
        None,
        min_length=1,
        description="Initial weights: a file, a run folder, timm or timm:TAG (downloaded); null: random.",
    )
    weights_key: str | None = Field(
        None, min_length=1, description="Which of several networks in the file of weights, such as student or teacher."
    )
    freeze: NonNegativeInt = Field(
        0, description="Steps at the start in which only the heads are trained: the backbone's weights do not change."
    )
    stem: Annotated[Literal["standard", "cifar"], BeforeValidator(_current_name)] = Field(
        "standard", description="cifar: 3×3 convolution without pooling, for images of about 32 px."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Save memory: compute the backbone's activations again in the backward pass, about one more forward pass.",
    )
    arguments: dict[str, Any] = Field({}, description="Further arguments of the backbone's constructor.")


class Training(Section):
    """Length, batch size, precision, checkpoints and device of training."""

    steps: PositiveInt = Field(description="Optimizer steps.")
    batch_size: PositiveInt = Field(description="Global batch size: images per step, over all ranks and micro-batches.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Precision of forward and backward pass; auto: bf16 if the device has bf16 arithmetic, else fp32.",
    )
    accumulation: PositiveInt = Field(
        1, description="Micro-batches per step, which saves memory; contrastive losses still compare the whole batch."
    )
    gradient_clip: PositiveFloat | None = Field(None, description="Maximum norm of the gradient; null: no clipping.")
    skip_nonfinite: NonNegativeInt = Field(
        0,
        description="Steps in a row that may be skipped for a NaN or infinite loss or gradient before training stops.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Steps between checkpoints.")
    checkpoint_minutes: PositiveFloat | None = Field(
        None, description="Minutes between additional checkpoints; null: none."
    )
    keep_checkpoints: PositiveInt = Field(2, description="Number of newest checkpoints to keep.")
    keep_every: PositiveInt | None = Field(
        None, description="Keep every checkpoint whose step is a multiple of this; a multiple of checkpoint_every."
    )
    checkpoint_form: Literal["auto", "whole", "sharded"] = Field(
        "auto",
        description="whole: rank 0 writes the state in one file; sharded: each rank writes what it holds; auto: as before in a "
        "resumed run, else sharded where ZeRO splits a state of more than 8 GiB. Each is read by any engine and number of ranks.",
    )
    log_every: PositiveInt = Field(10, description="Steps between lines of metrics.jsonl.")
    loader_threads: NonNegativeInt = Field(1, description="Threads that prepare batches; 0: the training thread.")
    threads: PositiveInt | None = Field(None, description="CPU threads of torch; null: torch's default.")
    channels_last: bool = Field(True, description="Channels-last memory format.")
    compile: bool = Field(
        False, description="torch.compile the backbone and the teachers; the first step takes minutes."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Device to train on; auto: a CUDA GPU, else the CPU."
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


class ProbeSettings(Section):
    """A linear classifier trained on detached features and the labels of the training images."""

    learning_rate: PositiveFloat = Field(1e-3, description="Learning rate of the probe's Adam optimizer.")


class OnlineKNNSettings(Section):
    """A bank of the latest labeled training images, whose nearest ones classify the images of each step."""

    k: PositiveInt = Field(20, description="Nearest images of the bank that vote.")
    temperature: PositiveFloat = Field(
        0.07, description="An image of the bank of cosine similarity s votes with exp(s / temperature)."
    )
    images: PositiveInt = Field(
        4096,
        validate_default=True,
        description="Labeled training images in the bank, the latest ones; at least k.",
    )

    @field_validator("images")
    @classmethod
    def _are_enough(cls, images: int, info: ValidationInfo) -> int:
        k = info.data.get("k")
        if k is not None and images < k:
            raise ValueError(f"the bank must hold at least k = {k} images, got {images}")
        return images


class Evaluation(Section):
    """Datasets and protocols that evaluate the backbone."""

    on: list[EvaluationEntry] = Field([], description="Datasets to evaluate on: names, or mappings with arguments.")
    protocols: list[Component] = Field(
        [Component(name="linear"), Component(name="knn")],
        description="Evaluation protocols: names, or mappings {name: …} with arguments.",
    )
    every: PositiveInt | None = Field(None, description="Steps between evaluations; null: only at the end.")
    few_shot: list[PositiveInt] = Field([], description="Labels per class of additional linear probes and kNN.")
    seeds: PositiveInt = Field(5, description="Random draws of few-shot labels.")
    online_probe: ProbeSettings | None = Field(
        None, description="Log online_probe_accuracy of an online linear probe; {}: default settings."
    )
    online_knn: OnlineKNNSettings | None = Field(
        None,
        description="Log online_knn_accuracy of nearest neighbors among the latest training images; {}: default settings.",
    )
    diagnostics: bool = Field(
        True,
        description="Log rank_me, feature_std, alignment and uniformity of each logged step, and warn of signs of collapse.",
    )


class Tracking(Section):
    """Experiment tracking besides the run folder."""

    wandb: Literal["off", "offline", "online"] = Field("off", description="Weights & Biases.")
    project: str = Field("wildfern", description="The wandb project.")
    run_name: str | None = Field(None, description="The run's name; null: the name of its folder.")
    group: str | None = Field(None, description="The wandb group; null: none, in a series the name of its folder.")


class Seed(Section):
    """The seed, a section with a single value."""

    seed: NonNegativeInt = Field(0, description="Seed of all random numbers.")


class Recipe(Seed):
    """A complete, validated recipe."""

    plugins: list[str] = Field([], description="Python files that register components, relative to the recipe file.")
    data: list[DataEntry] = Field(min_length=1, description="Sources of training images.")
    views: Component = Field(description="Augmented views of each image.")
    model: Model = Field(description="The backbone to pretrain.")
    method: Component = Field(description="The pretraining method.")
    optimizer: OptimizerChoice = Field(description="The optimizer.")
    schedule: ScheduleChoice = Field(description="Learning rate schedule.")
    training: Training = Field(description="Length, batch size, precision, checkpoints and device of training.")
    engine: Component = Field(
        Component(name=DEFAULT_CHOICE["engine"]), description="Training engine: torch or deepspeed."
    )
    evaluation: Evaluation = Field(Evaluation(), description="Datasets and protocols that evaluate the backbone.")
    tracking: Tracking = Field(Tracking(), description="Experiment tracking besides the run folder.")

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """The arguments of the optimizer, with the learning rate for this batch size."""
        return self.optimizer.arguments_for(self.training.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in a recipe file."""
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
        """The same recipe with these plugin files added; runs all its plugins. Raises PluginError."""
        plugins = list(dict.fromkeys([*self.plugins, *(fspath(path) for path in paths)]))
        for path in plugins:
            load_plugin(path)
        return self.model_copy(update={"plugins": plugins})

    def as_yaml(self) -> str:
        """The recipe as YAML; `load_recipe` reads it back as an equal recipe."""
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
        if isinstance(value, DataEntry):
            # Few recipes have these keys.
            plain = {
                name: item for name, item in plain.items() if item is not None and (name, item) != ("order", "random")
            }
        arguments = plain.pop("arguments") if isinstance(value, Component | DataEntry | EvaluationEntry) else {}
        if isinstance(value, OptimizerChoice) and value.base_learning_rate is None:
            plain = {name: plain[name] for name in plain if name not in RATE_KEYS}
        return {**plain, **arguments}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else to_jsonable_python(value)
