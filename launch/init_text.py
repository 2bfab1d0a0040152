"""The text of the recipe that `wildfern init` writes."""

import json
import re
from dataclasses import dataclass, field

from wildfern.launch.folder_survey import Survey
from wildfern.launch.network_choice import Network

FEW = 2000  # images, below which fractals are mixed in
SMALL = 64  # px of views, up to which SimCLR uses no blur


@dataclass(frozen=True)
class Choice:
    """What `wildfern init` has chosen for a folder."""

    folder: str
    network: Network
    batch_size: int
    loader_threads: int
    time: str  # as given
    plugins: list[str] = field(default_factory=list)  # relative to the recipe
    steps: int = 1000
    log_every: int = 10

    def mixes(self, survey: Survey) -> bool:
        """Whether fractals are mixed in: for few images, of as many channels as fractals have."""
        return survey.images < FEW and survey.channels == 3

    def about_few(self, survey: Survey) -> str:
        """A sentence about few images; empty for enough of them."""
        if survey.images >= FEW:
            return ""
        few = f"{survey.images:,} images are few: each is seen often, and a batch holds few different ones"
        if self.mixes(survey):
            return f"{few}; half of the training images are fractals, rendered during training"
        return f"{few}; fractals, which have three channels, cannot be mixed in"


def recipe_of_folder(survey: Survey, choice: Choice) -> str:
    """A commented recipe: SimCLR on the images of a folder, mixed with fractals if they are few."""
    lines = [
        f"# SimCLR on {survey.images:,} images of one folder, for about {choice.time} on the machine that it was made on."
    ]
    lines += ["seed: 0"]
    if choice.plugins:
        lines.append(f"plugins: [{', '.join(map(_text, choice.plugins))}]")
    for section in (_data, _views, _model, _method, _training, _evaluation):
        lines += section(survey, choice)
    return "\n".join(lines) + "\n"


def _source(survey: Survey, choice: Choice) -> list[str]:
    """The folder and how its images are read, as keys."""
    longest = max(survey.width, survey.height)
    reduced = max(64, 3 * choice.network.size)
    lines = [f"source: {_text('folder:' + choice.folder)}"]
    if "bands" in survey.decoding:
        lines.append(f"bands: {survey.decoding['bands']}")
    if "value_range" in survey.decoding:
        stored = ", ".join(survey.types)
        lines.append(f"value_range: {survey.decoding['value_range']} # {stored}: these values become 0 and 255")
    if "min_side" in survey.decoding:
        lines.append(f"min_side: {survey.decoding['min_side']} # pixels; smaller images are left out")
    if longest > 1.5 * reduced:
        lines.append(f"max_side: {reduced} # pixels; larger images are reduced while decoding")
    return lines


def _data(survey: Survey, choice: Choice) -> list[str]:
    held_out = ["test_fraction: 0.2 # held out for the evaluation below"] if survey.classes else []
    source = [*_source(survey, choice), *held_out]
    if not choice.mixes(survey):
        return ["data:", *(f"  {line}" for line in source)]
    size = choice.network.size
    fractals = [
        "source: ifs # fractals of iterated function systems, rendered during training",
        "weight: 1.0 # equal numbers of images and fractals",
        f"size: {size} # pixels",
        f"points: {max(2000, min(100_000, 2 * size * size))} # per fractal; more points are denser and slower",
        "classes: 100000 # distinct fractals",
        *(["color: false # as the images"] if survey.gray else []),
    ]
    return [
        *_wrapped(choice.about_few(survey)),
        "data:",
        *_item([source[0], "weight: 1.0 # relative to the other source", *source[1:]]),
        *_item(fractals),
    ]


def _views(survey: Survey, choice: Choice) -> list[str]:
    lines = [
        "views:",
        "  name: simclr",
        f"  size: {choice.network.size} # pixels",
        "  crop_scale: [0.2, 1.0] # share of the image's area",
        "  brightness: 0.4",
        "  contrast: 0.4",
    ]
    if survey.channels == 3 and not survey.gray:
        lines += ["  saturation: 0.4", "  hue: 0.1 # in turns of the color wheel"]
    else:
        lines += ["  saturation: 0.0 # the images have no color", "  hue: 0.0", "  gray: 0.0"]
    if choice.network.size <= SMALL:
        lines.append("  blur: 0.0 # none on small views")
    if survey.channels != 3 or survey.gray or survey.decoding.get("value_range"):
        lines += [f"  mean: {survey.mean} # of these images, in [0, 1]", f"  std: {survey.std}"]
    return lines


def _model(survey: Survey, choice: Choice) -> list[str]:
    arguments = dict(choice.network.arguments)
    lines = ["model:", f"  backbone: {choice.network.backbone} # any timm model"]
    if survey.channels != 3:
        arguments["in_chans"] = survey.channels
    if arguments:
        lines.append("  arguments:" + (" # a narrow ResNet, for CPUs" if choice.network.arguments else ""))
        lines += [f"    {key}: {json.dumps(value)}" for key, value in arguments.items()]
    return lines


def _method(survey: Survey, choice: Choice) -> list[str]:
    return [
        "method:",
        "  name: simclr",
        "  temperature: 0.2",
        "  projection_hidden: 512",
        "optimizer:",
        "  name: adamw",
        "  learning_rate: 1.0e-3 # at its peak",
        "  weight_decay: 1.0e-4",
        "schedule:",
        "  name: cosine",
        "  warmup: 0.05 # share of the run",
    ]


def _training(survey: Survey, choice: Choice) -> list[str]:
    return [
        "training:",
        f"  steps: {choice.steps} # about {choice.time} here",
        f"  batch_size: {choice.batch_size}",
        f"  checkpoint_every: {max(50, choice.steps // 10)} # steps",
        f"  log_every: {choice.log_every} # steps",
        f"  loader_threads: {choice.loader_threads}",
    ]


def _evaluation(survey: Survey, choice: Choice) -> list[str]:
    if not survey.classes:
        return [
            "evaluation:",
            "  on: [] # no classes in sub-folders; a labeled data set would be folder:PATH or digits",
        ]
    names = list(survey.classes)
    listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    comment = re.sub(r"[^\w ,.:…-]", "?", f"{len(names)} classes from the names of sub-folders: {listed}")
    reading = [line for line in _source(survey, choice) if not line.startswith("source:")]
    return [
        "evaluation:",
        f"  on: # {comment}; if these are no classes: on: []",
        *(f"  {line}" for line in _item([_source(survey, choice)[0], *reading])),
        "  protocols: [linear, knn] # on frozen features",
    ]


def _item(lines: list[str]) -> list[str]:
    """Keys as an item of a list."""
    return [f"  {'- ' if number == 0 else '  '}{line}" for number, line in enumerate(lines)]


def _wrapped(sentence: str) -> list[str]:
    """A sentence as comments of at most 100 characters."""
    lines, line = [], "#"
    for word in sentence.split():
        if len(line) + len(word) > 100:
            lines, line = [*lines, line], "#"
        line += f" {word}"
    return [*lines, line]


def _text(value: str) -> str:
    """A YAML scalar; in quotes where it must be."""
    if re.fullmatch(r"[A-Za-z][\w./:-]*[\w/]", value, re.ASCII):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # YAML knows the same escapes; it refuses or folds these characters where they stand for themselves.
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
