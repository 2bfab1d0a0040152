"""DINOv2 (Oquab et al., 2023): DINO and iBOT with heads of their own, Sinkhorn-Knopp centering and the KoLeo regularizer."""

from collections.abc import Iterator
from math import log
from typing import Annotated, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from wildfern.registry import register
from wildfern.ssl.losses import koleo_loss, masked_token_loss
from wildfern.ssl.losses.dino import cross_view_entropy
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.losses.sinkhorn_offsets import sinkhorn_offsets
from wildfern.ssl.methods.base import Count, Fraction, Needs, NotNegative, ParameterGroup, Positive
from wildfern.ssl.methods.batch import Batch, Embedded, Metrics, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import logaddexp_over_ranks, own_images, world_size
from wildfern.ssl.methods.layer_decay import layer_decay_groups
from wildfern.ssl.methods.masked_patches import MaskedPatches, check_patches, masked_patches
from wildfern.ssl.methods.prototype_teacher import prototype_metrics, prototype_use, warmed_up
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import DINOHead
from wildfern.ssl.models.teacher import cosine_momentum


class _TeacherOutputs(NamedTuple):
    """What the teacher says about one micro-batch, before prototypes: l2-normalized outputs of its heads."""

    classes: Tensor  # float[2n, bottleneck]
    patches: Tensor  # float[2n, K, bottleneck], at `hidden.places`
    hidden: MaskedPatches
    features: Tensor  # float[n, F] of the first view


@register("method", "dinov2")
class DINOv2(ComparingMethod):
    """DINO's loss on class tokens, iBOT's on masked patches, and `koleo_weight` times KoLeo (section 4).

    The teacher's outputs are assigned to prototypes by `sinkhorn_iterations` of Sinkhorn-Knopp, over the class tokens of the
    global batch and over all its masked patches. KoLeo acts on the student's class tokens of the first global view, before the
    head, over the global batch (in the paper over the images of one GPU, so that there the loss depends on the number of GPUs;
    here W ranks train as one). The loss of patches is the mean over an image's masked patches, then over all images, masked or
    not. With `layer_decay`, blocks nearer to the image have smaller learning rates, and the patch embedding `patch_embed_rate`
    times its own. The teacher's backbone is evaluated.
    """

    needs = Needs(views=(2, None), full_size_views=2, float32_views=False, images=2)
    usual = Usual("Oquab et al., 2023, section 4", optimizers=("adamw",), warmup=True, weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        prototypes: Annotated[int, Field(ge=2)] = 65536,
        patch_prototypes: Annotated[int, Field(ge=2)] = 65536,
        head_hidden: Count = 2048,
        head_bottleneck: Count = 256,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        teacher_temperature_warmup: Fraction = 0.3,
        sinkhorn_iterations: Count = 3,
        momentum: Fraction = 0.992,
        mask_probability: Fraction = 0.5,
        mask_ratio: tuple[Fraction, Fraction] = (0.1, 0.5),
        patch_weight: NotNegative = 1.0,
        koleo_weight: NotNegative = 0.1,
        freeze_last_layer: Fraction = 0.0,
        layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0,
        patch_embed_rate: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        super().__init__()
        check_patches(backbone, "DINOv2")
        if not mask_ratio[0] <= mask_ratio[1]:
            raise ValueError(f"mask_ratio is the least and the largest share of masked patches, got {list(mask_ratio)}")
        self.backbone = backbone
        self.head = DINOHead(backbone.width, head_hidden, head_bottleneck, prototypes, batch_norm=False)
        self.patch_head = DINOHead(backbone.width, head_hidden, head_bottleneck, patch_prototypes, batch_norm=False)
        self.mask_token = nn.Parameter(torch.zeros(backbone.width))
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "head", "patch_head"), lambda step: cosine_momentum(momentum, step, total_steps)
        )
        self.temperatures = (teacher_temperature_start, teacher_temperature, teacher_temperature_warmup * total_steps)
        self.student_temperature, self.iterations = student_temperature, sinkhorn_iterations
        self.mask_probability, self.mask_ratio = mask_probability, mask_ratio
        self.patch_weight, self.koleo_weight = patch_weight, koleo_weight
        self.frozen_steps = freeze_last_layer * total_steps
        self.layer_decay, self.patch_embed_rate = layer_decay, patch_embed_rate
        self._teacher_outputs: dict[int, _TeacherOutputs] = {}  # by micro-batch of this step
        self._prototypes = prototypes, patch_prototypes  # their weights are empty where ranks share them
        self._offsets: tuple[Tensor, Tensor] | None = None  # of class and patch prototypes in this step
        self._metrics: Metrics = {}  # of the last micro-batch

    @torch.no_grad()
    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """Keeps the teacher's outputs for `prepare` and `embed`."""
        backbone, head, patch_head = cast("tuple[Backbone, DINOHead, DINOHead]", self.teacher.module)
        hidden = masked_patches(
            batch, "dinov2", cast(int, self.backbone.patch_size), self.mask_probability, self.mask_ratio
        )
        tokens = backbone.tokens(batch.views[0].flatten(0, 1))
        classes = backbone.pool(tokens)
        if batch.part == 0:
            self._teacher_outputs.clear()
        self._teacher_outputs[batch.part] = _TeacherOutputs(
            head.bottleneck(classes),
            patch_head.bottleneck(hidden.take(tokens.patches)),
            hidden,
            classes[: len(batch)],
        )
        return {}

    def prepare(self, step: int) -> None:
        """Sinkhorn-Knopp over all micro-batches and ranks."""
        _, head, patch_head = cast("tuple[Backbone, DINOHead, DINOHead]", self.teacher.module)
        temperature, outputs = warmed_up(*self.temperatures, step), self._teacher_outputs.values()

        def classes() -> Iterator[tuple[Tensor, Tensor]]:
            for part in outputs:
                yield head.prototypes(part.classes), torch.ones_like(part.classes[:, 0])

        def patches() -> Iterator[tuple[Tensor, Tensor]]:
            for part in outputs:
                yield patch_head.prototypes(part.patches.flatten(0, 1)), part.hidden.weights.flatten()

        self._offsets = (
            sinkhorn_offsets(classes, temperature, self.iterations, logaddexp_over_ranks),
            sinkhorn_offsets(patches, temperature, self.iterations, logaddexp_over_ranks),
        )

    def embed(self, batch: Batch) -> Embedded:
        """The losses of each image, which need no other images once the assignments are known, and class tokens for KoLeo."""
        frozen, n = batch.step < self.frozen_steps, len(batch)
        self.head.prototypes.frozen = self.patch_head.prototypes.frozen = frozen
        teacher = self._teacher_outputs[batch.part]
        class_targets, patch_targets = self._assignments(teacher, batch.step)
        tokens = self.backbone.tokens(
            batch.views[0].flatten(0, 1), masked=teacher.hidden.mask, mask_token=self.mask_token
        )
        smaller = [self.backbone(group.flatten(0, 1)) for group in batch.views[1:]]
        classes = torch.cat([self.backbone.pool(tokens), *smaller])
        student = self.head(classes).unflatten(0, (-1, n))
        student_patches = self.patch_head(teacher.hidden.take(tokens.patches)).unflatten(0, (2, n))
        class_loss = cross_view_entropy(student, class_targets, self.student_temperature)
        patch_loss = masked_token_loss(
            student_patches, patch_targets, teacher.hidden.weights.unflatten(0, (2, n)), self.student_temperature
        )
        metrics = prototype_metrics(class_targets, student.detach())
        metrics["patch_prototype_use"] = prototype_use(patch_targets)
        self._metrics = metrics
        losses = torch.stack([class_loss, patch_loss])
        class_tokens = full_precision(classes[: 2 * n]).unflatten(0, (2, n))
        return Embedded({"losses": losses, "class_tokens": class_tokens}, teacher.features)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        class_loss, patch_loss = embeddings["losses"].mean(dim=1)
        class_tokens = embeddings["class_tokens"]
        koleo = world_size() * koleo_loss(class_tokens[0], rows=own_images(class_tokens.shape[1]))
        loss = class_loss + self.patch_weight * patch_loss + self.koleo_weight * koleo
        terms = {"class_loss": class_loss, "patch_loss": patch_loss, "koleo": koleo}
        metrics = {name: value.detach() for name, value in terms.items()} | self._metrics
        return Output(loss, metrics, embeddings=class_tokens.detach())

    @torch.no_grad()
    def _assignments(self, teacher: _TeacherOutputs, step: int) -> tuple[Tensor, Tensor]:
        """Probabilities float[2, n, P] of class tokens and float[2, n, K, P] of masked patches."""
        _, head, patch_head = cast("tuple[Backbone, DINOHead, DINOHead]", self.teacher.module)
        temperature, n = warmed_up(*self.temperatures, step), len(teacher.features)
        class_offsets, patch_offsets = cast("tuple[Tensor, Tensor]", self._offsets)
        logits = full_precision(head.prototypes(teacher.classes))
        patch_logits = full_precision(patch_head.prototypes(teacher.patches))
        class_targets = (logits / temperature - class_offsets).softmax(dim=-1)
        patch_targets = (patch_logits / temperature - patch_offsets).softmax(dim=-1)
        return class_targets.unflatten(0, (2, n)), patch_targets.unflatten(0, (2, n))

    def collapsed_loss(self, images: int) -> float:
        # Of prototypes. KoLeo adds koleo_weight times about 0 to 1, and more only if class tokens collapse too.
        prototypes, patch_prototypes = self._prototypes
        return log(prototypes) + self.patch_weight * self.mask_probability * log(patch_prototypes)

    def parameter_groups(self) -> list[ParameterGroup]:
        rest = [
            (name, p) for name, p in self.named_parameters() if p.requires_grad and not name.startswith("backbone.")
        ]
        found = [ParameterGroup(rest, name="heads")]
        for group in layer_decay_groups(self.backbone, self.layer_decay):
            for embedding in (True, False):
                chosen = [(name, p) for name, p in group.parameters if (".patch_embed." in name) == embedding]
                factor = group.learning_rate * (self.patch_embed_rate if embedding else 1.0)
                named = f"{group.name}{', patch embedding' * embedding}"
                found += [ParameterGroup(chosen, named, learning_rate=factor)] if chosen else []
        return found

    def eval_backbone(self) -> Backbone:
        return cast(Backbone, self.teacher.module.get_submodule("0"))
