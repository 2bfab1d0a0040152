"""Sentences below the table of an estimate: what its rows mean, and what it leaves out."""

from wildfern.launch.estimate import KEPT_GATHERED, REDUCE_BUCKET, Estimate

FEW_IMAGES = 8  # of a micro-batch, below which kernels are too small for a GPU
GIB = 2**30


def estimate_notes(estimate: Estimate) -> list[str]:
    """The sentences that this estimate needs, each for a line of its own."""
    notes = _of_stages(estimate) if len(estimate.stages) > 1 else []
    if estimate.gpus > 1 and estimate.images < FEW_IMAGES:
        notes.append(_of_few_images(estimate))
    return [
        *notes,
        "Not included: the CUDA context and kernel workspaces, about 1 GiB, and the allocator's fragmentation.",
    ]


def _of_stages(estimate: Estimate) -> list[str]:
    """Why rows do not shrink with the stage as their names may suggest."""
    kept = min(KEPT_GATHERED, estimate.footprint.gradients)
    words = "all" if kept < KEPT_GATHERED else f"up to {kept // 4:,}"
    return [
        f"weights: whole at ZeRO 0 to 2. At ZeRO 3 a GPU stores its share, and keeps {words} gathered weights "
        f"({kept / GIB:.2g} GiB) during a step.",
        *_of_the_start(estimate),
        "the optimizer's copy of weights: ZeRO updates a GPU's share of the weights in one flat tensor.",
        "gradients: whole at ZeRO 0 and 1, a GPU's share at ZeRO 2 and 3; from ZeRO 1 on with the bucket "
        f"({REDUCE_BUCKET / GIB:.2g} GiB) in which they are reduced; its empty part, or the copy that is sent: next row.",
        "activations and temporaries: all at ZeRO 2 and 3. At ZeRO 0 and 1 whole gradients appear while activations are freed: "
        "what the peak has beside them.",
        f"sent at ZeRO 3: the weights for each forward pass ({estimate.footprint.forward_passes} here, one for each size of "
        "views) and for the backward pass, and the gradients.",
    ]


def _of_the_start(estimate: Estimate) -> list[str]:
    """Where the start decides how much memory is needed: only at ZeRO 3, as the other stages keep networks whole."""
    foot = estimate.footprint
    networks = "the whole network and its teachers" if foot.teachers or foot.frozen_teachers else "the whole network"
    return [
        f"start: at ZeRO {stage} it decides, since before weights are sharded a GPU makes {networks} once: "
        f"{gib_words(memory.start)} GiB, more than the {gib_words(memory.step)} GiB of a step."
        for stage, memory in estimate.stages.items()
        if memory.start > memory.step
    ]


def gib_words(size: int) -> str:
    """Bytes as a number of GiB."""
    gib = size / GIB
    return f"{gib:,.2f}" if gib >= 0.1 else f"{gib:.4f}"


def _of_few_images(estimate: Estimate) -> str:
    images = "1 image" if estimate.images == 1 else f"{estimate.images} images"
    accumulated = estimate.batch_size > estimate.images * estimate.gpus
    smaller = ", a smaller training.accumulation" if accumulated else ""
    return (
        f"Micro-batches of {images} use a GPU badly, and a run takes longer than the time above: plan fewer GPUs{smaller} or "
        "a larger training.batch_size."
    )
