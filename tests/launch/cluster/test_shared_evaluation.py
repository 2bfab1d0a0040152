"""Ranks share the extraction of features in the evaluation of a run, or say why they do not."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from counted_features import CountedFeatures
from forked_runs import ForkedRun
from small_runs import TINY, few_digits

from wildfern.launch import evaluate, pretrain
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.cluster.shared_evaluation import sharing_ranks
from wildfern.launch.components import read_recipe
from wildfern.launch.evaluation_data import evaluation_sources
from wildfern.ssl.evaluation.ranks import ALONE
from wildfern.ssl.tracking import read_records

CHANGES = [*TINY[:-1], "training.steps=4", "training.precision=fp32", "evaluation.on=[digits]", "evaluation.every=2"]
CHANGES += ["evaluation.protocols=[linear, knn]", "evaluation.few_shot=[]"]
TWO = [*CHANGES, "engine={name: deepspeed, zero_stage: 3}"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")


@linux
@pytest.mark.slow
def test_two_ranks_extract_half_each_and_score_like_one_process(tmp_path):
    run = tmp_path / "run"
    prepare = {rank: CountedFeatures(tmp_path, rank) for rank in (0, 1)}
    started = ForkedRun(run, TWO, processes=2, prepare=prepare)
    assert started.wait() == 0, started.output()
    assert "do not share" not in started.output()
    images = [sum(map(int, (tmp_path / f"rank_{rank}.txt").read_text().split())) for rank in (0, 1)]
    # 1797 digits, 1440 of train in 6 chunks and 357 of test in 2, for two networks, after steps 2 and 4 and at the end.
    assert sum(images) == 3 * 2 * 1797
    assert 0.4 < images[1] / sum(images) < 0.6
    stored = json.loads((run / "evaluation.json").read_text())["rows"]
    shutil.copytree(run, tmp_path / "alone")
    (tmp_path / "alone" / "evaluation.json").unlink()
    alone = evaluate(tmp_path / "alone", "digits", ["linear", "knn"], threads=1)
    assert [(r["backbone"], r["metric"], r["value"]) for r in stored] == [
        (r["backbone"], r["metric"], r["value"]) for r in alone.rows
    ]
    assert (run / "report.html").is_file()
    scores = [row for row in read_records(run / "metrics.jsonl") if "digits/knn" in row]
    assert [row["step"] for row in scores] == [1, 3]


@linux
@pytest.mark.slow
def test_a_protocol_that_fails_at_the_end_ends_all_ranks_with_the_other_scores_kept(tmp_path):
    plugin = tmp_path / "failing.py"
    plugin.write_text(
        "from wildfern.registry import register\nfrom wildfern.ssl.evaluation import Evaluator\n\n"
        "@register('evaluator', 'failing')\nclass Failing(Evaluator):\n"
        "    def __call__(self, train, test):\n        raise ValueError('too few images of a kind')\n\n"
        "    def describe(self):\n        return 'fails'\n"
    )
    run = tmp_path / "run"
    changes = [one for one in TWO if not one.startswith("evaluation.protocols")]
    changes += ["evaluation.protocols=[failing, knn]", f"plugins=[{plugin}]"]
    started = ForkedRun(run, changes, processes=2)
    assert started.wait() == 2, started.output()
    output = " ".join(started.output().split())
    assert "failing: too few images of a kind. All other scores are complete" in output
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    assert {row["protocol"] for row in rows} == {"knn"}
    assert (run / "report.html").is_file()
    assert [row["step"] for row in read_records(run / "metrics.jsonl") if "digits/knn" in row] == [1, 3]


class Ranks(DistributedContext):
    """Two ranks of which this process plays both, in turn; the first call of each is answered with what both said."""

    said: dict[int, object] = {}  # noqa: RUF012

    def all_gather(self, value):
        self.said[self.rank] = value
        return [self.said.get(rank, value) for rank in range(2)]


def asked(recipe, sources, networks=("random", "pretrained")):
    """What each of two ranks is told, with these data sets and networks on the second; messages of the first."""
    messages: list[str] = []
    told = []
    Ranks.said = {}
    for _ in range(2):  # the second time each knows what both said
        told = [
            sharing_ranks(recipe, Ranks(rank, 2, torch.device("cpu")), sources[rank], networks[rank], messages.append)
            for rank in range(2)
        ]
    return told, messages


def test_ranks_that_do_not_read_the_same_images_leave_the_evaluation_to_rank_0(monkeypatch, tmp_path):
    recipe = read_recipe("quickstart", ["evaluation.on=[digits]"])
    names = [["random", "pretrained"]] * 2
    whole = evaluation_sources(["digits"])
    told, messages = asked(recipe, [whole, dict(whole)], names)
    assert [one.rank for one in told] == [0, 1]
    assert messages == []
    with pytest.MonkeyPatch.context() as other:
        few_digits(other)
        few = evaluation_sources(["digits"])
    told, messages = asked(recipe, [whole, few], names)
    assert told == [ALONE, None]
    assert messages[-1] == (
        "the ranks do not share the evaluation, rank 0 computes all features: rank 1 does not have the same data sets and "
        "networks as rank 0"
    )
    told, messages = asked(recipe, [whole, dict(whole)], [names[0], ["random"]])
    assert told == [ALONE, None]


def test_a_rank_that_cannot_open_a_data_set_says_which(tmp_path):
    recipe = read_recipe("quickstart", ["evaluation.on=[digits]"])
    missing = SimpleNamespace(evaluation=SimpleNamespace(on=[f"folder:{tmp_path / 'missing'}"]))
    sources = evaluation_sources(["digits"])
    Ranks.said = {}
    messages: list[str] = []
    names = ["random"]
    for _ in range(2):
        first = sharing_ranks(recipe, Ranks(0, 2, torch.device("cpu")), sources, names, messages.append)
        second = sharing_ranks(missing, Ranks(1, 2, torch.device("cpu")), {}, names, messages.append)
    assert (first, second) == (ALONE, None)
    assert "rank 1 on host" in messages[-1]
    assert str(tmp_path / "missing") in messages[-1]


def test_one_process_shares_with_nobody():
    context = DistributedContext(0, 1, torch.device("cpu"))
    assert sharing_ranks(None, context, {}, [], pytest.fail) is ALONE


def test_a_protocol_that_fails_is_a_message_while_training(tmp_path):
    """And an error at the end, once all other scores are written."""
    from wildfern.launch.evaluate_datasets import Unfinished

    plugin = tmp_path / "failing.py"
    plugin.write_text(
        "from wildfern.registry import register\nfrom wildfern.ssl.evaluation import Evaluator\n\n"
        "@register('evaluator', 'failing_alone')\nclass Failing(Evaluator):\n"
        "    def __call__(self, train, test):\n        raise ValueError('too few images of a kind')\n\n"
        "    def describe(self):\n        return 'fails'\n"
    )
    run = tmp_path / "run"
    changes = [*CHANGES[:-2], "evaluation.protocols=[failing_alone, knn]", "evaluation.few_shot=[]"]
    with pytest.raises(Unfinished, match="failing_alone: too few images of a kind") as caught:
        pretrain("quickstart", changes, run=run, plugins=[plugin])
    assert {row["protocol"] for row in caught.value.evaluation.rows} == {"knn"}
    assert (run / "report.html").is_file()
    assert [row["step"] for row in read_records(run / "metrics.jsonl") if "digits/knn" in row] == [1, 3]


def test_an_evaluation_without_any_score_does_not_end_training(tmp_path):
    plugin = tmp_path / "failing.py"
    plugin.write_text(
        "from wildfern.registry import register\nfrom wildfern.ssl.evaluation import Evaluator\n\n"
        "@register('evaluator', 'failing_always')\nclass Failing(Evaluator):\n"
        "    def __call__(self, train, test):\n        raise RuntimeError('out of memory')\n\n"
        "    def describe(self):\n        return 'fails'\n"
    )
    run = tmp_path / "run"
    changes = [*CHANGES[:-2], "evaluation.protocols=[failing_always]", "evaluation.few_shot=[]"]
    with pytest.raises(ValueError, match=r"failing_always: RuntimeError: out of memory \(failing.py, line 7\)"):
        pretrain("quickstart", changes, run=run, plugins=[plugin])
    assert [row["step"] for row in read_records(run / "metrics.jsonl") if "loss" in row] == [0, 1, 2, 3]
    assert (run / "backbone.safetensors").is_file()
