"""Export the pretrained backbone, or a segmenter: write it in one of several formats, read it back, and compare the outputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wildfern.files import write_text
from wildfern.launch.errors import RunError
from wildfern.launch.export_code import indented, loading_code
from wildfern.launch.export_folder import check_folder_out, writing_folder
from wildfern.launch.export_huggingface import folder_code, front_matter, read_folder, write_folder
from wildfern.launch.export_network import ExportNetwork, export_network, features, largest_difference
from wildfern.launch.export_onnx import OnnxNetwork, onnx_code, onnx_program
from wildfern.launch.export_segmenter import SEGMENTER_NAMES, SEGMENTER_TOLERANCE, ExportSegmenter, export_segmenter
from wildfern.launch.export_torch_export import described, program_code, read_program, traced
from wildfern.launch.export_torchvision import as_torchvision
from wildfern.launch.model_card import model_card, write_model_card
from wildfern.launch.output_paths import check_not_of_a_run, writing
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable

__all__ = ["FORMATS", "NAMES", "SUFFIXES", "export_backbone", "loading_code"]

# Suffixes of the files of each format; the first is the default, none: a folder.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "timm": (".pth", ".pt", ".bin", ".ckpt"),
    "torchvision": (".pth", ".pt", ".bin", ".ckpt"),
    "huggingface": (),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "torch_export": (".pt2",),
}
FORMATS = tuple(SUFFIXES)
NAMES = {
    "timm": "exported.pth",
    "torchvision": "exported_torchvision.pth",
    "huggingface": "exported_huggingface",
    "safetensors": "exported.safetensors",
    "onnx": "exported.onnx",
    "torch_export": "exported.pt2",
}
# Largest difference of the features, relative to the largest feature. Other code for convolutions and attention adds up numbers
# in another order: up to 8e-7 for a small ViT in ONNX, 7e-7 for a ViT-B of torchvision, more for deeper networks.
TOLERANCE = 1e-6
TOLERANCES = {"onnx": 1e-5, "torchvision": 1e-5}


def export_backbone(run: Path, format: str = "timm", out: Path | None = None, segmenter: bool = False) -> str:
    """Write the backbone, or with `segmenter` the backbone with its decoder, in one of `FORMATS`; return how to load it.

    timm: a PyTorch state dict with timm's names, for `timm.create_model(…).load_state_dict(…)`. torchvision: one for the same
    network in torchvision. safetensors: timm's tensors, with a description. huggingface: a folder for
    `timm.create_model("local-dir:…")` and transformers. onnx and torch_export: the network with a dynamic batch size. Missing
    folders of `out` are made.

    What was written is read back: its features of random images must be those of the run, to 1e-6 of the largest one (onnx and
    torchvision: 1e-5), or nothing is replaced. All formats come with model_card.md in the same folder; that of huggingface has
    README.md instead.

    A segmenter, for onnx and torch_export, maps images to probabilities (see `ExportSegmenter`), which must be those of the run
    to 1e-4 of the largest one.

    Raises RunError for an unknown format, a suffix of another format, what cannot be written, a folder without weights, a missing
    package, a network that the format does not have, a segmenter of a run without one, and outputs that differ.
    """
    if format not in FORMATS:
        raise RunError(f"--format must be one of {', '.join(FORMATS)}; got {format!r}")
    if segmenter and format not in SEGMENTER_NAMES:
        raise RunError(f"--segmenter is for {' and '.join(SEGMENTER_NAMES)}, not for {format}: choose one by --format")
    folder = RunFolder.for_reading(Path(run))
    name = (SEGMENTER_NAMES if segmenter else NAMES)[format]
    out = folder.path / name if out is None else Path(out)
    _check_out(out, format, name)
    source = export_segmenter(folder) if segmenter else export_network(folder)
    if format == "huggingface":
        return _export_folder(source, _Check(source, format, out), out)
    target, checked = _first_written(source, format, out)
    described = target.described() if isinstance(target, ExportSegmenter) else ()
    card = write_model_card(folder, out, _code(target, format, Path(out.name)), checked, described)
    code = _code(target, format, out)
    return f"{_written_words(target, format, out)}, with {printable(card.name)}; {checked}; load it with\n\n{code}"


def _export_folder(source: ExportNetwork, check: "_Check", out: Path) -> str:
    with _write_errors(out), writing_folder(out) as folder:
        write_folder(source, folder)
        checked = check(lambda: read_folder(source, folder), folder)
        code = indented(folder_code(source, Path(out.name)))
        card = [*front_matter(source), *model_card(source.folder, out.name, code, checked)]
        write_text(folder / "README.md", "\n".join(card) + "\n")
    return (
        f"written to {printable(out)}/, with README.md; {checked}; load it with\n\n{indented(folder_code(source, out))}"
    )


def _check_out(out: Path, format: str, default: str) -> None:
    """Raise RunError for a suffix that says another format, for a folder, and for a file of a run."""
    others = [name for name, suffixes in SUFFIXES.items() if out.suffix in suffixes]
    if others and format not in others:
        raise RunError(
            f"--out {out} has the suffix of the format {others[0]}, but --format is {format}: change one of them"
        )
    if format == "huggingface":
        check_folder_out(out)
    elif out.is_dir():
        raise RunError(f"--out {out} is a folder: give the file to write, for example {out / default}")
    else:
        check_not_of_a_run(out)


def _first_written(source: ExportNetwork, format: str, out: Path) -> tuple[ExportNetwork, str]:
    """Write the first of the source's attempts that can be, and say what comparing it with the run found."""

    def write(attempt: ExportNetwork) -> tuple[ExportNetwork, str]:
        target = as_torchvision(attempt) if format == "torchvision" else attempt
        return target, _written(target, format, out, _Check(attempt, format, out))

    *attempts, last = source.attempts()
    for attempt in attempts:
        with suppress(RunError):
            return write(attempt)
    return write(last)


def _converted(target: ExportNetwork, format: str) -> Any:
    """What is to be written: tensors, or a program."""
    if format not in ("onnx", "torch_export"):
        return target.state()
    try:
        return onnx_program(target) if format == "onnx" else traced(target)
    except RunError:
        raise
    except Exception as error:  # tracing raises any kind for operations that it does not know
        words = f"{target.recipe.model.backbone} cannot be converted ({_first_line(error)})"
        if isinstance(target, ExportSegmenter):
            other = "torch_export" if format == "onnx" else "onnx"
            raise RunError(f"the segmenter of {words}: choose --format {other}, or use wildfern segment") from error
        raise RunError(f"{words}: choose --format timm or safetensors") from error


def _written(target: ExportNetwork, format: str, out: Path, check: "_Check") -> str:
    """Write the file, and say what `check` found. `out` stays as it was after any error."""
    content = _converted(target, format)
    with _write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with writing(out) as path:
            if format == "onnx":
                content.save(path, external_data=False)
            elif format == "safetensors":
                save_file(content, path, {"format": "pt", **target.metadata})
                path.chmod(out.parent.stat().st_mode & 0o666)  # safetensors writes files that only their owner can read
            else:
                with path.open("wb") as file:  # to a path, torch would not say why a write failed
                    if format == "torch_export":
                        torch.export.save(content, file, extra_files=described(target))
                    else:
                        torch.save(content, file)
            return check(lambda: _read(target, format, path), path)


def _read(target: ExportNetwork, format: str, path: Path) -> Callable[[Tensor], Tensor]:
    if format == "onnx":
        return OnnxNetwork(path)
    if format == "torch_export":
        return read_program(path)
    return target.rebuilt(load_file(path) if format == "safetensors" else torch.load(path, weights_only=True))


def _code(target: ExportNetwork, format: str, out: Path) -> str:
    if format == "onnx":
        return indented(onnx_code(target, out))
    if format == "torch_export":
        return indented(program_code(target, out))
    load = "safetensors.torch.load_file({})" if format == "safetensors" else "torch.load({}, weights_only=True)"
    return loading_code(target.recipe, target.network, load.format(repr(str(out))))


def _written_words(target: ExportNetwork, format: str, out: Path) -> str:
    words = f"written to {printable(out)}"
    if format == "onnx" or isinstance(target, ExportSegmenter):
        words += f": {target.images_words()} -> {target.output_words()}"
    return words


@dataclass(frozen=True)
class _Check:
    """Compares the output of what was written, features or probabilities, with that of the run, on random images."""

    source: ExportNetwork
    format: str
    out: Path

    def __call__(self, read: Callable[[], Callable[[Tensor], Tensor]], path: Path) -> str:
        """What was found, in words. Raises RunError for outputs that differ, or are not finite."""
        if not (path.is_file() or path.is_dir()):
            return "not compared with the run, as it cannot be read back"
        source, output = self.source, self.source.output
        limit = TOLERANCES.get(self.format, TOLERANCE)
        if isinstance(source, ExportSegmenter):
            limit = SEGMENTER_TOLERANCE
        batches = source.compared_images()
        expected = [source.expected(images) for images in batches]
        if not all(one.isfinite().all() for one in expected):
            raise RunError(
                f"the backbone of {source.folder.path} gives {output} that are not finite; {self.out} was not written"
            )
        try:
            network = read()
            difference = max(
                largest_difference(one, features(network, images))
                for one, images in zip(expected, batches, strict=True)
            )
        except Exception as error:  # of many libraries
            raise RunError(f"{self.out} was not written: read back, it fails: {_first_line(error)}") from error
        if not difference <= limit:  # also not a number
            raise RunError(
                f"{self.out} was not written: read back, its {output} differ from the run's by {difference:.1e} of the largest "
                f"one, more than {limit:.0e}"
            )
        words = "are those of the run"
        if difference:
            words = f"differ from the run's by at most {difference:.1e} of the largest one (limit {limit:.0e})"
        return f"read back, the {output} of {sum(map(len, batches))} random images {words}"


@contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    """Turn errors of the disk, and of torch's and safetensors' writers, into RunErrors."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    except (RuntimeError, SafetensorError) as error:
        cause = error.__context__.strerror if isinstance(error.__context__, OSError) else str(error)
        raise RunError(f"cannot write {out}: {((cause or '').splitlines() or [type(error).__name__])[0]}") from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
