"""`model.freeze`: the backbone's weights do not change in the first steps."""

import torch
from small_runs import TINY

from wildfern.launch import load_backbone, pretrain


def test_only_the_heads_train_in_the_first_steps(tmp_path, capsys):
    changes = [*TINY, "training.precision=fp32", "training.checkpoint_every=1", "model.freeze=2"]
    pretrain("quickstart", [*changes, "training.steps=2"], run=tmp_path)
    assert "model.freeze is 2 and training.steps 2: only the heads are trained" in " ".join(
        capsys.readouterr().out.split()
    )
    start, frozen = load_backbone(tmp_path, trained=False), load_backbone(tmp_path)
    for name, weight in start.named_parameters():
        assert torch.equal(frozen.get_parameter(name), weight), name
    pretrain("quickstart", [*changes, "training.steps=3"], run=tmp_path, resume=True)
    assert "only the heads" not in capsys.readouterr().out
    moved = load_backbone(tmp_path)
    assert not torch.equal(moved.get_parameter("network.conv1.weight"), start.get_parameter("network.conv1.weight"))
