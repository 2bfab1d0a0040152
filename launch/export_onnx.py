"""Export to ONNX, with a dynamic batch size."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wildfern.launch.errors import RunError
from wildfern.launch.export_network import ExportNetwork

MOST_BYTES = 2**31 - 2**20  # of a file, which is one message of protobuf


def onnx_program(source: ExportNetwork) -> Any:
    """The network as torch's ONNXProgram: images -> `source.output`.

    Raises RunError for missing packages and too large networks.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise RunError("exporting to ONNX needs two more packages: pip install 'wildfern[onnx]'") from None
    size = sum(tensor.nbytes for tensor in source.state().values())
    if size > MOST_BYTES:
        raise RunError(
            f"the weights have {size / 2**30:.1f} GiB, but a file of ONNX at most 2: choose --format torch_export"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # of height and width, which are equal
        program = torch.onnx.export(
            source.network,
            (source.random_images(2),),
            input_names=["images"],
            output_names=[source.output],
            dynamic_shapes=(source.dynamic_shapes(),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(source.metadata)
    return program


class OnnxNetwork:
    """A file of ONNX as a function of images: in onnxruntime where it is installed, else in ONNX's slow reference."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            from onnx import load
            from onnx.reference import ReferenceEvaluator

            self.session: Any = ReferenceEvaluator(load(path))
        else:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


def onnx_code(source: ExportNetwork, out: Path) -> list[str]:
    return [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(out)!r})",
        *source.applying(
            f'[{source.output}] = session.run(None, {{"images": images}})  # numpy: {source.images_words()}'
        ),
    ]
