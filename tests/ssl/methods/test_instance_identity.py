"""Instance identity against plain loops over views and images."""

import pytest
import torch
from two_ranks import SmallNet

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.methods import Batch, InstanceIdentity

ITEMS = torch.tensor([4, -1, 0, 6, 4])


def method_and_batch(**arguments):
    torch.manual_seed(0)
    method = InstanceIdentity(SmallNet(), 10, instances=7, projection_hidden=6, projection_size=5, **arguments)
    method.double().eval()  # batch normalization would depend on which views are normalized together
    views = torch.rand(2, len(ITEMS), 3, 8, 8, dtype=torch.float64)
    return method, Batch.from_views([views], items=ITEMS)


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_loss_of_the_plain_loop(temperature):
    method, batch = method_and_batch(temperature=temperature)
    total = torch.zeros((), dtype=torch.float64)
    for view in batch.views[0]:
        features = method.backbone(view)
        outputs = method.classifier(features) if temperature is None else method.projection(features)
        for output, item in zip(outputs, ITEMS.tolist(), strict=True):
            if item < 0:
                continue
            scores = output
            if temperature is not None:
                weights = method.classifier.weight
                scores = torch.stack([output @ w / (output.norm() * w.norm()) / temperature for w in weights])
            total = total - (scores[item].exp() / scores.exp().sum()).log()
    torch.testing.assert_close(method(batch).loss, total / (2 * len(ITEMS)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data={source: digits}", "method.instances=1000"], "method.instances is 1000, but the data has 1258 images"),
        (["method.instances=10"], r"come again, but ifs is endless: data=\{source: finite"),
    ],
)
def test_a_run_without_a_class_for_each_image_does_not_start(changes, message, tmp_path):
    tiny = ["training.steps=1", "evaluation.on=[]", "training.device=cpu", "data.points=100"]
    tiny = tiny if len(changes) == 1 else tiny[:-1]
    with pytest.raises(RunError, match=message):
        pretrain("quickstart", [*tiny, "method={name: instance_identity}", *changes], run=tmp_path / "run")
