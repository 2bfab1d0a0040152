"""Pretrain from a recipe: assemble what it names, train, leave a run folder that tells the whole story."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from wildfern.launch.assembling import (
    DistributedContext,
    agreed_precision,
    build_method,
    build_probe,
    build_views,
    check_backbone,
    loop_config,
    open_mixture,
    started,
)
from wildfern.launch.compiling import compile_networks
from wildfern.launch.components import read_recipe
from wildfern.launch.disk_errors import disk_errors
from wildfern.launch.evaluating import evaluate_on, evaluation_sources, merged, scores
from wildfern.launch.run_folder import RunError, RunFolder, initial_backbone, user_errors
from wildfern.launch.shared_folder import check_same_items, check_same_run, chosen_folder, exclusive
from wildfern.launch.views_image import write_views_image
from wildfern.recipes import Recipe
from wildfern.ssl.data import Source
from wildfern.ssl.evaluation import EvaluationResult, write_report
from wildfern.ssl.methods import Method
from wildfern.ssl.models import build_backbone
from wildfern.ssl.tracking import Tracker, WandbRun
from wildfern.ssl.tracking.formatting import duration
from wildfern.ssl.training import (
    OPTIMIZERS,
    SCHEDULES,
    BatchReader,
    CheckpointStore,
    Engine,
    StopRequest,
    TorchEngine,
    train,
)
from wildfern.ssl.training.input_precision import input_dtype
from wildfern.ssl.training.precision import computes_in_bf16

SLOW_BF16 = (
    "training.precision is bf16, in which this processor does not compute: fp32 (or auto) would be many times faster"
)


class Stopped(Exception):
    """Training was asked to stop by a signal and did so, with a checkpoint; `exit_code` is 128 + the signal's number."""

    def __init__(self, run: Path, step: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}; go on with --run {run} --resume"
        )
        self.exit_code = 128 + signal_number


def pretrain(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    since: float | None = None,
) -> Path:
    """Train what the recipe says and return the run folder.

    `recipe` is a bundled name, a path or a `Recipe`; `overrides` are `key.sub=value`. `resume` goes on from the newest
    checkpoint in `run` (give the recipe and overrides of the start again), or starts anew, saying so, where there is none.
    The time to the first step is counted from `since` on `time.perf_counter` (now, if None).
    Raises RecipeErrors, RunError, DataError for what the user can mend, Stopped after SIGINT,
    SIGTERM or SIGUSR1, ProcessLost where another process is gone.
    """
    since = time.perf_counter() if since is None else since
    name = "run" if isinstance(recipe, Recipe) else str(recipe)
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    with user_errors(), started(recipe) as context:
        folder = chosen_folder(run, name, resume, context)
        begun = folder.recipe() if resume and (folder.path / "recipe.yaml").is_file() else None
        recipe = agreed_precision(recipe, context, begun)
        if resume:
            check_same_run(recipe, folder)
        pretraining = Pretraining(recipe, folder, context)
        with disk_errors(folder.path), exclusive(recipe, folder, resume, context):
            return pretraining.run(resume, since)


class Pretraining:
    """One run, assembled from its recipe."""

    def __init__(self, recipe: Recipe, folder: RunFolder, context: DistributedContext) -> None:
        self.recipe, self.folder, self.context = recipe, folder, context
        self.evaluation_sources: dict[str, tuple[Source, Source]] = {}
        error = None
        if context.is_main:  # first, for it may download; its errors are everybody's
            try:
                self.mixture, self.views = open_mixture(recipe), build_views(recipe)
                self.evaluation_sources = evaluation_sources(recipe.evaluation.on)
            except ValueError as caught:
                error = caught
        context.raise_on_all(error)
        if not context.is_main:
            self.mixture, self.views = open_mixture(recipe), build_views(recipe)
        context.barrier()  # what follows waits for nobody longer than a collective may take
        self.views.to(context.device)
        self.plan = loop_config(recipe)
        self.reader = BatchReader(self.plan, self.mixture, self.views, context.rank, context.world_size)
        method = build_method(recipe)
        check_backbone(recipe, context.device, method, self.views)
        self.engine = self._engine(method)
        numbers = (source.num_items for source in self.mixture.sources)
        self.engine.metadata["items"] = [None if number is None else int(number) for number in numbers]
        self.schedule = SCHEDULES[recipe.schedule.name](recipe.training.steps, **recipe.schedule.arguments)
        self.checkpoints = CheckpointStore(
            folder.path / "checkpoints",
            recipe.training.keep_checkpoints,
            recipe.training.keep_every,
            lead=context.is_main,
            any_rank=self.engine.any,
            all_ranks=self.engine.barrier,
        )

    def run(self, resume: bool, since: float) -> Path:
        """Train to the end; evaluate and report there."""
        recipe, is_main = self.recipe, self.context.is_main
        started, skipped, faults = self._resumed_step() if resume else (0, 0, [])
        if is_main:
            self.folder.begin(recipe)
        error = None
        try:
            wandb = WandbRun(
                recipe.tracking.wandb,
                recipe.tracking.project,
                recipe.tracking.run_name or self.folder.path.name,
                self.folder.path,
                recipe.as_dict(),
                enabled=is_main,
            )
        except ValueError as caught:
            error = caught
        self.context.raise_on_all(error)
        tracker = Tracker(
            self.folder.path,
            recipe.training.steps,
            started,
            recipe.training.log_every,
            images_per_step=recipe.training.batch_size,
            wandb=wandb,
            enabled=is_main,
            since=since,
        )
        with tracker:
            tracker.message(f"run folder {self.folder.path}")
            if recipe.training.precision == "bf16" and not computes_in_bf16(self.context.device):
                tracker.message(SLOW_BF16)
            for fault in faults:
                tracker.message(fault)
            if resume:
                tracker.message(f"resumed from step {started}" if started else "no checkpoint yet: starting anew")
            if is_main and not (self.folder.path / "views.png").is_file():
                with self.folder.replacing("views.png") as image:
                    write_views_image(image, self.mixture, self.views, recipe.seed, recipe.training.batch_size)
            self.views.dtype = self.input_dtype
            begun = time.monotonic()
            with self.checkpoints, StopRequest() as stop:
                done = train(
                    self.plan,
                    self.engine,
                    self.reader,
                    self.schedule,
                    tracker,
                    self.checkpoints,
                    stop,
                    started,
                    skipped,
                    evaluate=self._scores if recipe.evaluation.every and recipe.evaluation.on else None,
                    on_checkpoint=self._checkpoint_written,
                    on_nonfinite=lambda rows: self.folder.add_lines("nonfinite.jsonl", rows),
                )
            tracker.message(f"trained {done - started} steps in {duration(time.monotonic() - begun)}")
            if done == recipe.training.steps:
                self._checkpoint_written()  # again: a run may have been killed between its last checkpoint and this file
            self.engine.barrier()
            number = stop.agreed(self.engine.any)
            self.engine.close()
            self.context.leave()
            if done < recipe.training.steps:
                raise Stopped(self.folder.path, done, number)
            if is_main:
                self._finish(tracker)
        return self.folder.path

    def _engine(self, method: Method) -> Engine:
        recipe, context = self.recipe, self.context
        # DeepSpeed broadcasts weights as flat bytes and so wants them contiguous; images alone carry the layout there.
        weights_too = recipe.training.channels_last and recipe.engine.name == "torch"
        layout = {"memory_format": torch.channels_last} if weights_too else {}
        for module in (method, *method.teachers().values()):
            module.to(context.device, **layout)
        self.input_dtype = input_dtype(method.backbone, recipe.training.precision, self.views)
        if recipe.training.compile:
            compile_networks(method, context.device)
        name, arguments = recipe.optimizer.name, recipe.optimizer.arguments
        common = {
            "device": context.device,
            "precision": recipe.training.precision,
            "accumulation": recipe.training.accumulation,
            "gradient_clip": recipe.training.gradient_clip,
            "skip_nonfinite": recipe.training.skip_nonfinite > 0,
            "probe": build_probe(recipe, self.mixture, method, context.device),
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

    def _resumed_step(self) -> tuple[int, int, list[str]]:
        """Load the newest whole checkpoint: its step, steps skipped in a row before it, and words on newer damaged ones."""

        def found() -> tuple[int | None, int, list[str]]:
            newest, faults = self.checkpoints.newest()
            metadata = {} if newest is None else self.checkpoints.metadata(newest)
            check_same_items(self.recipe, metadata.get("items"), self.engine.metadata["items"])
            return newest, metadata.get("skipped_in_a_row", 0), faults

        newest, skipped, faults = self.context.broadcast_from_main(found)
        if newest is None:
            return 0, 0, []
        if newest > self.recipe.training.steps:
            raise RunError(
                f"{self.folder.path} has done {newest} steps already, more than training.steps {self.recipe.training.steps}"
            )
        self.engine.load(self.checkpoints.path(newest))
        if self.engine.probe is not None and not self.engine.probe.steps:
            faults = [*faults, f"the checkpoint knows no online probe: it begins to learn after step {newest}"]
        return newest, skipped, faults

    def _backbone_state(self) -> dict[str, Tensor]:
        """The weights that evaluation takes, whole, on the CPU; called on every rank."""
        backbone = self.engine.method.eval_backbone()
        with self.engine.gather(backbone.parameters()):
            return {name: value.detach().cpu().clone() for name, value in backbone.state_dict().items()}

    def _checkpoint_written(self) -> None:
        state = self._backbone_state()
        if self.context.is_main:
            self.folder.write_backbone(state)
            self.folder.note_skipped(self.mixture.skipped | self.views.skipped)

    def _evaluation(
        self,
        state: dict[str, Tensor],
        protocols: Sequence[str],
        few_shot: Sequence[int],
        announce: Callable[[str], None] = lambda text: None,
    ) -> EvaluationResult:
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
        found = scores(self._evaluation(state, self.recipe.evaluation.protocols, ())) if self.context.is_main else {}
        self.engine.barrier()
        return found

    def _finish(self, tracker: Tracker) -> None:
        """The first process alone: the others are gone, however long this takes."""
        wanted = self.recipe.evaluation
        if wanted.on:
            state = load_file(self.folder.path / "backbone.safetensors")
            evaluation = self._evaluation(state, wanted.protocols, wanted.few_shot, tracker.message)
            self.folder.write_json("evaluation.json", merged(self.folder, evaluation.as_json()))
        tracker.sync()
        write_report([self.folder.path], self.folder.path / "report.html")
