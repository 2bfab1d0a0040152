"""An exported segmenter gives the probabilities of the run, from images that are not normalized, or says why it cannot."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import export_segmenter as module
from wildfern.launch import pretrain
from wildfern.launch.builders import build_method, build_views
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.export_segmenter import SEGMENTER_NAMES, IntensityOrder, export_segmenter
from wildfern.launch.exporting import NAMES, export_backbone
from wildfern.launch.run_decoder import write_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.segmenting import segment
from wildfern.ssl.augmentation import LocalIntensityOrder, local_intensity_order
from wildfern.ssl.augmentation.color import grayscale

SMALL = [
    *["data.0.size=64", "data.1.source=retina", "views.size=48", "views.crop_pixels=[48, 48]"],
    *["model.arguments.widths=[4, 6, 8]", "method.discriminator_width=4", "method.contrast_width=4"],
    *["training.steps=4", "training.batch_size=8", "training.log_every=1", "training.threads=1", "training.device=cpu"],
    *["training.checkpoint_every=2", "optimizer.learning_rate=0.05"],
]
RGB = ["views.local_intensity_order=false", "views.mean=[0.5, 0.3, 0.2]", "views.std=[0.2, 0.2, 0.1]"]
CHOSEN_ON = "a photograph of a retina"
CHANGES = {"order": [], "rgb": [*RGB, "model.arguments.in_chans=3"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trained runs by the preprocessing of their images, with a threshold in the midst of the probabilities of a photograph."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, changes in CHANGES.items():
        run = found[name] = pretrain("freecos_quick", [*SMALL, *changes], run=folder / name)
        ordered = probabilities(run, photograph()).flatten().sort().values
        middle = ordered[len(ordered) // 4 : -len(ordered) // 4].double()
        widest = middle.diff().argmax()  # no probability is at the threshold
        threshold = {"threshold": middle[widest : widest + 2].mean().item(), "chosen_on": CHOSEN_ON}
        write_decoder(run, load_file(run / "decoder.safetensors"), RunFolder(run).backbone_sha256(), threshold)
    return found


@pytest.fixture(scope="module")
def exported(runs):
    """What an export with --segmenter to its default file says, each done once."""
    said = {}

    def export(name, format):
        if format == "onnx":
            for package in ("onnx", "onnxscript", "onnxruntime"):
                pytest.importorskip(package, reason="the extra `onnx` is not installed")
        if (name, format) not in said:
            said[name, format] = export_backbone(runs[name], format, segmenter=True)
        return said[name, format]

    return export


def loaded(run, format):
    """The network of an exported file, from and to torch."""
    file = run / SEGMENTER_NAMES[format]
    if format == "torch_export":
        return torch.export.load(file).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def probabilities(run, images):
    """Those of backbone and decoder of the run, put together by hand."""
    folder = RunFolder(run)
    views, method = build_views(folder.recipe()), build_method(folder.recipe())
    method.decoder.load_state_dict(load_file(run / "decoder.safetensors"))
    with torch.no_grad():
        normalized = (images - views.mean) / views.std
        inputs = normalized if views.intensity_order is None else views.intensity_order(images)
        return method.decoder.eval()(folder.backbone().maps(inputs), images.shape[-1]).sigmoid()


def window():
    """uint8[48, 48, 3] of a photograph."""
    from skimage.data import retina

    return np.ascontiguousarray(retina()[600:648, 900:948])


def photograph():
    """The window as float32[1, 3, 48, 48]."""
    return torch.from_numpy(window()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", ["order", "rgb"])
def test_the_probabilities_are_those_of_the_run(name, format, runs, exported):
    said = exported(name, format)
    assert "read back, the probabilities of 4 random images" in said
    network = loaded(runs[name], format)
    random = [
        torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))
        for count, side in ((1, 48), (3, 48), (2, 80), (1, 8))
    ]
    for images in (photograph(), (random[1] * 255).round() / 255, *random):
        expected = probabilities(runs[name], images)
        found = network(images)
        assert found.shape == expected.shape == images.shape[:1] + images.shape[2:]
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_the_printed_code_gives_the_mask_that_segment_writes(format, runs, exported, tmp_path):
    Image.fromarray(window()).save(tmp_path / "window.png")
    found = segment(runs["order"], tmp_path / "window.png", tmp_path / "out")
    names = {"images": photograph().numpy() if format == "onnx" else photograph()}
    lines = exported("order", format).splitlines()
    exec("\n".join(line[4:] for line in lines if line.startswith("    ")), names)
    assert f"masks = probabilities >= {found.threshold!r}" in "\n".join(lines)
    expected = np.asarray(Image.open(tmp_path / "out" / "window.png")) > 0
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(names["masks"][0], expected)


def described(run, format):
    if format == "torch_export":
        files = {"metadata.json": ""}
        torch.export.load(run / SEGMENTER_NAMES[format], extra_files=files)
        return json.loads(files["metadata.json"])
    import onnxruntime

    return onnxruntime.InferenceSession(run / SEGMENTER_NAMES[format]).get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_the_file_says_how_it_is_applied(format, runs, exported):
    for name in ("order", "rgb"):
        exported(name, format)
        found = described(runs[name], format)
        settings = export_segmenter(RunFolder(runs[name])).settings
        assert float(found["threshold"]) == settings.threshold
        assert found["threshold_chosen"] == f"chosen on {CHOSEN_ON}"
        assert (found["window"], found["stride"], found["scale"]) == ("48", "4", "1")
        assert json.loads(found["input_size"]) == [3, 48, 48]
        assert found["run_id"] == RunFolder(runs[name]).run_id()
        assert found["weights_sha256"] == RunFolder(runs[name]).backbone_sha256()
        if name == "rgb":
            assert found["preprocessing"] == "mean and std"
            assert (json.loads(found["mean"]), json.loads(found["std"])) == ([0.5, 0.3, 0.2], [0.2, 0.2, 0.1])
        else:
            assert found["preprocessing"] == "local intensity order"
            assert not {"mean", "std"} & found.keys()


def test_the_model_card_has_a_section_only_for_a_segmenter(runs, exported, tmp_path):
    export_backbone(runs["rgb"], "timm", tmp_path / "backbone" / "x.pth")
    export_backbone(runs["rgb"], "torch_export", tmp_path / "segmenter" / "x.pt2", segmenter=True)
    plain = (tmp_path / "backbone" / "model_card.md").read_text()
    card = (tmp_path / "segmenter" / "model_card.md").read_text()
    assert "## Segmenter" not in plain
    assert "A backbone without a classifier, from the run" in plain
    section = card[card.index("## Segmenter") : card.index("## Images")]
    threshold = export_segmenter(RunFolder(runs["rgb"])).threshold
    assert "float32 RGB images [batch, 3, 48, 48] in [0, 1], not normalized" in section
    assert "probabilities float32 [batch, 48, 48]; normalization and sigmoid are in the file" in section
    assert f"a probability of {threshold:g} on, a threshold chosen on {CHOSEN_ON}" in section
    assert "48 px, or another multiple of 4 px from 8 on" in section
    assert "A segmenter: a backbone and its decoder, from the run" in card


@pytest.mark.parametrize("shape", [(3, 20, 23), (1, 5, 19), (2, 1, 1)])
def test_codes_are_those_of_the_views_bit_for_bit(shape):
    count, height, width = shape
    gray = torch.randint(0, 6, (count, 1, height, width), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(module.summed_codes(gray), local_intensity_order(gray).float())


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch's kernels for this processor round twice"
)
def test_gray_levels_are_those_of_the_views_bit_for_bit():
    generator = torch.Generator().manual_seed(1)
    for images in (
        torch.rand(4, 3, 160, 160, generator=generator),
        torch.randint(0, 256, (4, 3, 160, 160), generator=generator).float() / 255,
    ):
        assert torch.equal(module.exact_grayscale(images), grayscale(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_intensity_order_is_that_of_the_views(channels):
    images = torch.rand(3, channels, 40, 30, generator=torch.Generator().manual_seed(2))
    images[2] = 0.25  # flat: codes at the border alone
    torch.testing.assert_close(
        IntensityOrder()(images), LocalIntensityOrder(standardize=True)(images), rtol=0, atol=2e-6
    )
    assert torch.equal(IntensityOrder()(0 * images), torch.zeros(3, 4, 40, 30))


NETWORK = [
    "model.backbone=vit_tiny_patch16_224",
    "model.arguments={img_size: 48, depth: 2, embed_dim: 32, num_heads: 2, in_chans: 3}",
]


def begun(folder, changes):
    """A run with random weights, as after its first step."""
    run = RunFolder(folder)
    run.begin(read_recipe("freecos_quick", changes))
    method = build_method(run.recipe())
    run.write_backbone(method.eval_backbone().network.state_dict())
    write_decoder(run.path, method.decoder.state_dict(), run.backbone_sha256())
    return run


def test_a_network_of_one_image_size_is_exported_with_that_size(tmp_path):
    run = begun(tmp_path / "run", [*(change for change in SMALL if not change.startswith("model.")), *RGB, *NETWORK])
    said = export_backbone(run.path, "torch_export", segmenter=True)
    assert "# images: height and width: 48 px\n" in said
    assert "masks = probabilities >= 0.5  # not chosen by the run" in said
    assert "the probabilities of 3 random images" in said
    assert described(run.path, "torch_export")["stride"] == "none: the size is fixed"
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loaded(run.path, "torch_export")(images), probabilities(run.path, images))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["views.crop_pixels=[64, 128]"], "resized by 0.5"),
        (
            ["views.fourier_adaptation=null", "views.crop_pixels=null", "views.crop_scale=[0.25, 0.25]"],
            "resized so that 0.5 of the shorter side is 48 px",
        ),
        (
            ["data.1.source=folder:images", "data.1.bands=[4, 2, 1]", "data.1.value_range=[0, 4095]"],
            "folder:images was read with bands=[4, 2, 1], value_range=[0.0, 4095.0]: scale the values of files",
        ),
    ],
)
def test_how_images_are_prepared_is_said(changes, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    source = export_segmenter(begun(tmp_path / "run", [*SMALL, *changes]))
    assert any(words in line for line in source.applying("call"))
    assert any(words in line for line in source.described())


def test_probabilities_that_differ_are_an_error_and_nothing_is_replaced(runs, tmp_path, monkeypatch):
    out = tmp_path / "x.pt2"
    out.write_bytes(b"earlier")
    right = module.Normalization.forward
    monkeypatch.setattr(module.Normalization, "forward", lambda self, images: 1.01 * right(self, images))
    with pytest.raises(RunError, match=r"was not written: read back, its probabilities differ from the run's by \d"):
        export_backbone(runs["rgb"], "torch_export", out, segmenter=True)
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]


@pytest.mark.parametrize("format", [name for name in NAMES if name not in SEGMENTER_NAMES])
def test_other_formats_have_no_segmenter(format, runs, tmp_path):
    with pytest.raises(RunError, match=f"--segmenter is for onnx and torch_export, not for {format}"):
        export_backbone(runs["rgb"], format, tmp_path / "x", segmenter=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_missing(runs, wildfern):
    done = wildfern("export", str(runs["rgb"]), "--segmenter")
    assert done.returncode == 2
    assert "--segmenter is for onnx and torch_export, not for timm" in done.stdout + done.stderr


def test_a_run_without_a_segmenter_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(read_recipe("quickstart", TINY))
    run.write_backbone(run.backbone(trained=False).network.state_dict())
    with pytest.raises(RunError, match=r"has no decoder\.safetensors: its method \(simclr\) trains no segmenter"):
        export_backbone(run.path, "torch_export", segmenter=True)
    assert not list(run.path.glob("exported*"))


def test_a_damaged_decoder_is_refused(runs, tmp_path):
    run = shutil.copytree(runs["rgb"], tmp_path / "run", ignore=shutil.ignore_patterns("exported*", "model_card.md"))
    content = (run / "decoder.safetensors").read_bytes()
    (run / "decoder.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="resuming the run writes"):
        export_backbone(run, "torch_export", segmenter=True)
    state = load_file(runs["rgb"] / "decoder.safetensors")
    write_decoder(run, {**state, "classify.bias": torch.full((1,), float("nan"))}, RunFolder(run).backbone_sha256())
    with pytest.raises(RunError, match="gives probabilities that are not finite"):
        export_backbone(run, "torch_export", segmenter=True)
    assert not list(run.glob("exported*"))
    assert not (run / "model_card.md").exists()
