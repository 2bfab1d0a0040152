"""Pretrain from a recipe: assemble what it names, train, leave a run folder that tells the whole story."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wildfern.launch.components import read_recipe
from wildfern.launch.evaluating import choose_device, evaluate_on, labeled, scores
from wildfern.launch.run_folder import RunError, RunFolder, initial_backbone, seeded, users_words
from wildfern.launch.views_picture import write_views_picture
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS, Views
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.evaluation import Evaluation, write_report
from wildfern.ssl.methods import METHODS, Method
from wildfern.ssl.models import build_backbone
from wildfern.ssl.tracking import Tracker, WandbRun
from wildfern.ssl.training import (
    OPTIMIZERS,
    SCHEDULES,
    BatchReader,
    CheckpointStore,
    Engine,
    Plan,
    StopRequest,
    TorchEngine,
    train,
)
from wildfern.ssl.training.precision import strided_over_one_pixel


class Stopped(Exception):
    """Training was asked to stop by a signal and did so, with a checkpoint; `exit_code` is 128 + the signal's number."""

    def __init__(self, run: Path, step: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}; go on with --run {run} --resume"
        )
        self.exit_code = 128 + signal_number


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def lead(self) -> bool:
        return self.rank == 0


def pretrain(
    recipe: str | Path | Recipe, overrides: Sequence[str] = (), run: str | Path | None = None, resume: bool = False
) -> Path:
    """Train what the recipe says and return the run folder.

    `recipe` is a bundled name, a path or a `Recipe`; `overrides` are `key.sub=value`. `resume` goes on from the newest
    checkpoint in `run`, or starts anew, saying so, where there is none. Raises RecipeErrors, RunError, DataError for what
    the user can mend, Stopped after SIGINT or SIGTERM.
    """
    if resume and run is not None and (Path(run) / "recipe.yaml").is_file() and not isinstance(recipe, Recipe):
        stored = read_recipe(Path(run) / "recipe.yaml", overrides)
        recipe_name, recipe = str(recipe), stored
    else:
        recipe_name = str(recipe) if not isinstance(recipe, Recipe) else "run"
        recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    processes = start(recipe)
    folder = _shared_folder(run, recipe_name, resume, processes)
    with users_words():
        pretraining = Pretraining(recipe, folder, processes)
    return pretraining.run(resume)


def start(recipe: Recipe) -> Processes:
    """Join the other processes where the engine has any, and share the cores fairly."""
    device = choose_device(recipe.training.device)
    rank, world_size = 0, 1
    if recipe.engine.name == "deepspeed":
        from wildfern.ssl.training.deepspeed_engine import start_processes

        rank, local_rank, world_size = start_processes(recipe.engine.arguments["timeout_minutes"])
        if device.type == "cuda":
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("several processes were started, but engine.name is torch: set engine.name=deepspeed")
    threads = recipe.training.threads
    if threads is None and world_size > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", world_size)))
        threads = max(1, (os.cpu_count() or 1) // local)
    if threads is not None:
        torch.set_num_threads(threads)
    return Processes(rank, world_size, device)


class Pretraining:
    """One run, assembled from its recipe."""

    def __init__(self, recipe: Recipe, folder: RunFolder, processes: Processes) -> None:
        self.recipe, self.folder, self.processes = recipe, folder, processes
        self.mixture = open_mixture(recipe)
        self.evaluation_sources = {name: labeled(name) for name in recipe.evaluation.on} if processes.lead else {}
        self.views: Views = VIEWS[recipe.views.name](**recipe.views.arguments).to(processes.device)
        self.plan = plan_of(recipe)
        self.reader = BatchReader(self.plan, self.mixture, self.views, processes.rank, processes.world_size)
        method = build_method(recipe)
        check_backbone(recipe, processes.device, method, self.views)
        self.engine = self._engine(method)
        self.schedule = SCHEDULES[recipe.schedule.name](recipe.training.steps, **recipe.schedule.arguments)
        self.checkpoints = CheckpointStore(
            folder.path / "checkpoints", recipe.training.keep_checkpoints, processes.lead, self.engine.barrier
        )

    def run(self, resume: bool) -> Path:
        """Train to the end; evaluate and report there."""
        recipe, lead = self.recipe, self.processes.lead
        with users_words():
            started = self._resumed_step() if resume else 0
            wandb = WandbRun(
                recipe.tracking.wandb,
                recipe.tracking.project,
                recipe.tracking.run_name or self.folder.path.name,
                self.folder.path,
                recipe.as_dict(),
                enabled=lead,
            )
        if lead:
            self.folder.begin(recipe)
        tracker = Tracker(
            self.folder.path,
            recipe.training.steps,
            started,
            recipe.training.log_every,
            images_per_step=recipe.training.batch_size,
            wandb=wandb,
            enabled=lead,
        )
        with StopRequest() as stop, tracker:
            tracker.message(f"run folder {self.folder.path}")
            if resume:
                tracker.message(f"resumed from step {started}" if started else "no checkpoint yet: starting anew")
            if lead and not (self.folder.path / "views.png").is_file():
                write_views_picture(self.folder.path / "views.png", self.mixture, self.views, recipe.seed)
            done = train(
                self.plan,
                self.engine,
                self.reader,
                self.schedule,
                tracker,
                self.checkpoints,
                stop,
                started,
                evaluate=self._scores if recipe.evaluation.every and recipe.evaluation.on else None,
                on_checkpoint=self._checkpoint_written,
            )
            if done == recipe.training.steps:
                self._finish(tracker)
        self.engine.barrier()
        self.engine.close()
        if done < recipe.training.steps:
            raise Stopped(self.folder.path, done, stop.signal_number or signal.SIGTERM)
        return self.folder.path

    def _engine(self, method: Method) -> Engine:
        recipe, processes = self.recipe, self.processes
        # DeepSpeed broadcasts weights as flat bytes and so wants them contiguous; pictures alone carry the layout there.
        weights_too = recipe.training.channels_last and recipe.engine.name == "torch"
        layout = {"memory_format": torch.channels_last} if weights_too else {}
        for module in (method, *method.teachers().values()):
            module.to(processes.device, **layout)
        if recipe.training.compile:
            method.backbone.compile()
        name, arguments = recipe.optimizer.name, recipe.optimizer.arguments
        common = {
            "device": processes.device,
            "precision": recipe.training.precision,
            "accumulation": recipe.training.accumulation,
            "gradient_clip": recipe.training.gradient_clip,
        }

        def optimizer(groups: list[dict]) -> torch.optim.Optimizer:
            return OPTIMIZERS[name](groups, **arguments)

        if recipe.engine.name == "torch":
            return TorchEngine(method, optimizer, arguments["weight_decay"], **common)
        from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(
            method,
            optimizer,
            arguments["weight_decay"],
            optimizer_name=name,
            micro_batch_size=self.reader.size,
            zero_stage=recipe.engine.arguments["zero_stage"],
            **common,
        )

    def _resumed_step(self) -> int:
        """Load the newest checkpoint; 0 where there is none."""
        steps = self.checkpoints.steps()
        if not steps:
            return 0
        newest = steps[-1]
        if newest > self.recipe.training.steps:
            raise RunError(
                f"{self.folder.path} has done {newest} steps already, more than training.steps {self.recipe.training.steps}"
            )
        facts = self.checkpoints.facts(newest)
        if facts["batch_size"] != self.recipe.training.batch_size:
            raise RunError(
                f"the run had training.batch_size {facts['batch_size']}, now {self.recipe.training.batch_size}: "
                "another batch size would read other pictures; start a new run instead"
            )
        self.engine.load(self.checkpoints.path(newest))
        return newest

    def _backbone_state(self) -> dict[str, Tensor]:
        """The weights that evaluation takes, whole, on the CPU; called on every rank."""
        backbone = self.engine.method.exported_backbone()
        with self.engine.gather(backbone.parameters()):
            return {name: value.detach().cpu().clone() for name, value in backbone.state_dict().items()}

    def _checkpoint_written(self) -> None:
        state = self._backbone_state()
        if self.processes.lead:
            self.folder.write_backbone(state)
            if self.mixture.skipped:
                rows = [{"file": name, "reason": why} for name, why in sorted(self.mixture.skipped.items())]
                self.folder.write_lines("skipped.jsonl", rows)

    def _evaluation(
        self,
        state: dict[str, Tensor],
        protocols: Sequence[str],
        few_shot: Sequence[int],
        announce: Callable[[str], None] = lambda text: None,
    ) -> Evaluation:
        recipe = self.recipe
        pretrained = build_backbone(recipe.model.backbone, recipe.model.stem, **recipe.model.arguments)
        pretrained.load_state_dict(state)
        backbones = {"untrained": initial_backbone(recipe), "pretrained": pretrained}
        return evaluate_on(
            self.evaluation_sources, backbones, recipe, protocols, few_shot, recipe.evaluation.seeds, announce
        )

    def _scores(self) -> dict[str, float]:
        """Scores in the middle of training: computed by the first process, the others wait."""
        state = self._backbone_state()
        found = scores(self._evaluation(state, self.recipe.evaluation.protocols, ())) if self.processes.lead else {}
        self.engine.barrier()
        return found

    def _finish(self, tracker: Tracker) -> None:
        state, recipe = self._backbone_state(), self.recipe
        if self.processes.lead and recipe.evaluation.on:
            evaluation = self._evaluation(
                state, recipe.evaluation.protocols, recipe.evaluation.few_shot, tracker.message
            )
            self.folder.write_json("evaluation.json", evaluation.as_json())
        if self.processes.lead:
            tracker.sync()
            write_report([self.folder.path], self.folder.path / "report.html")


def check_backbone(recipe: Recipe, device: torch.device, method: Method, views: Views) -> None:
    """Try the backbone on one picture of each size; refuse what it cannot take, and bf16 where its gradient is wrong."""
    sizes = [size for _, size in views.shape]
    try:
        unsafe = strided_over_one_pixel(method.backbone, sizes)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RunError(
            f"{recipe.model.backbone} does not take views of {', '.join(map(str, sizes))} px: {error} (vision transformers "
            "take several sizes with model.arguments.dynamic_img_size=true, another one with model.arguments.img_size)"
        ) from error
    if unsafe and recipe.training.precision == "bf16" and device.type == "cpu":
        name, size = unsafe[0]
        raise RunError(
            f"views of {size} px are too small for this backbone in bf16 on a CPU: {name} strides over a single pixel, where "
            "its gradient would be wrong; take larger views, model.stem=small, or training.precision=fp32"
        )


def open_mixture(recipe: Recipe) -> Mixture:
    """The training pictures. A generator's own seed is added to the recipe's, so that every part follows from the latter."""
    opened = []
    for entry in recipe.data:
        arguments = dict(entry.arguments)
        if "seed" in arguments:
            arguments["seed"] += recipe.seed
        opened.append((open_source(entry.source, "train", **arguments), entry.weight))
    return Mixture(opened, recipe.seed)


def build_method(recipe: Recipe) -> Method:
    """Backbone and method as training starts from them: a pure function of the recipe."""
    backbone = initial_backbone(recipe)
    with seeded(recipe.seed, "method"):
        return METHODS[recipe.method.name](backbone, recipe.training.steps, **recipe.method.arguments)


def plan_of(recipe: Recipe) -> Plan:
    """The loop's numbers."""
    training = recipe.training
    return Plan(
        seed=recipe.seed,
        total_steps=training.steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        learning_rate=recipe.optimizer.arguments["learning_rate"],
        weight_decay=recipe.optimizer.arguments["weight_decay"],
        loader_threads=training.loader_threads,
        channels_last=training.channels_last,
        checkpoint_every=training.checkpoint_every,
        checkpoint_minutes=training.checkpoint_minutes,
        evaluate_every=recipe.evaluation.every,
    )


def _shared_folder(run: str | Path | None, name: str, resume: bool, processes: Processes) -> RunFolder:
    """The run folder, chosen by the first process; its error, if any, is everybody's."""
    chosen: list[object] = [None]
    if processes.lead:
        try:
            chosen = [str(RunFolder.for_writing(Path(run) if run else None, name, resume).path)]
        except RunError as error:
            chosen = [error]
    if processes.world_size > 1:
        torch.distributed.broadcast_object_list(chosen, src=0)
    if isinstance(chosen[0], RunError):
        raise chosen[0]
    return RunFolder(Path(chosen[0]))
