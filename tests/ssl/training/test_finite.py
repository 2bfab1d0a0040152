"""Losses and gradients that are NaN or infinite: detected, reported, recorded with their images, and skipped if allowed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from finite_ranks import watch_two
from forked_runs import forked
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.ssl.methods import METHODS
from wildfern.ssl.training import NotFinite
from wildfern.ssl.training.finite import FiniteWatch, restore_buffers, snapshot_buffers


class OneProcess:
    rank, world_size = 0, 1

    def any(self, flag):
        return flag


def watch(allowed, rows):
    return FiniteWatch(OneProcess(), allowed, lambda step, part: 100 * step + 10 * part + np.arange(3), rows.extend)


def test_the_first_nonfinite_step_and_micro_batch_are_named():
    rows = []
    w = watch(0, rows)
    for step, losses in ((4, [1.0, 2.0]), (5, [1.0, math.nan]), (6, [math.nan, math.nan])):
        w.note(step, [torch.tensor(loss) for loss in losses], torch.tensor(losses[1]))
    with pytest.raises(NotFinite, match=r"loss is nan at step 5 of rank 0 on .*nonfinite\.jsonl"):
        w.check()
    assert [(r["step"], r["part"], r["loss"], r["indices"]) for r in rows] == [(5, 1, "nan", [510, 511, 512])]


def test_a_nonfinite_gradient_names_all_micro_batches():
    rows = []
    w = watch(0, rows)
    w.note(7, [torch.tensor(1.0), torch.tensor(2.0)], torch.tensor(math.inf))
    with pytest.raises(NotFinite, match="gradient_norm is inf at step 7"):
        w.check()
    assert [(r["part"], r["loss"]) for r in rows] == [(0, 1.0), (1, 2.0)]


def test_number_of_skipped_steps_in_a_row():
    rows, verdicts = [], []
    w = watch(2, rows)
    for step, loss in enumerate([math.nan, math.nan, 1.0, math.nan, math.inf]):
        w.note(step, [torch.tensor(loss)], torch.tensor(1.0))
        verdicts.append(w.check())
    assert verdicts == [False, False, True, False, False]
    w.note(5, [torch.tensor(-math.inf)], torch.tensor(1.0))
    with pytest.raises(NotFinite, match=r"loss is -inf at step 5 .* after 2 skipped steps in a row"):
        w.check()
    assert [row["step"] for row in rows] == [0, 1, 3, 4, 5]


def test_buffers_are_restored():
    norm = torch.nn.BatchNorm1d(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    kept = snapshot_buffers([norm])
    norm(torch.full((4, 3), math.nan))
    assert norm.running_mean.isnan().all()
    restore_buffers(kept)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


@pytest.fixture
def poisoned(monkeypatch):
    """SimCLR with a NaN loss at the steps in this set."""
    steps = set()
    embed, compare = METHODS["simclr"].embed, METHODS["simclr"].compare

    def poisoned_embed(self, batch):
        if batch.step in steps:
            batch = replace(batch, views=[v * math.nan for v in batch.views])
        return embed(self, batch)

    def poisoned_compare(self, embeddings, step):
        output = compare(self, embeddings, step)
        if -step in steps:  # an infinite loss whose gradient is finite
            output = replace(output, loss=output.loss + math.inf)
        return output

    monkeypatch.setattr(METHODS["simclr"], "embed", poisoned_embed)
    monkeypatch.setattr(METHODS["simclr"], "compare", poisoned_compare)
    return steps


def records(path):
    return [json.loads(line) for line in path.open()]


def test_a_stopped_run_resumes_from_its_last_checkpoint(tmp_path, poisoned):
    poisoned.add(5)
    changes = [*TINY, "training.steps=8", "training.checkpoint_every=3", "training.accumulation=2"]
    with pytest.raises(NotFinite, match="loss is nan at step 5 of rank 0"):
        pretrain("quickstart", changes, run=tmp_path / "run")
    rows = records(tmp_path / "run" / "nonfinite.jsonl")
    assert [row["indices"] for row in rows] == [[40, 41, 42, 43], [44, 45, 46, 47]]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000003"]
    poisoned.clear()
    pretrain("quickstart", changes, run=tmp_path / "run", resume=True)
    pretrain("quickstart", changes, run=tmp_path / "whole")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_step_with_an_infinite_loss_and_a_finite_gradient_is_skipped(tmp_path, poisoned):
    changes = [*TINY, "training.skip_nonfinite=1", "schedule.name=constant", "training.checkpoint_every=1"]
    poisoned.add(-2)
    run = pretrain("quickstart", [*changes, "training.steps=3", "training.keep_checkpoints=2"], run=tmp_path / "run")
    before, after = (load_file(run / f"checkpoints/step_0000000{n}/training.safetensors") for n in (2, 3))
    assert records(run / "metrics.jsonl")[-1]["loss"] == "inf"
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_nonfinite_weights_are_not_evaluated(tmp_path, poisoned):
    poisoned.add(2)
    changes = [*TINY, "training.steps=8", "training.log_every=8", "evaluation.on=[digits]", "evaluation.every=4"]
    with pytest.raises(NotFinite, match="loss is nan at step 2"):
        pretrain("quickstart", changes, run=tmp_path / "run")


def test_skipped_steps_change_nothing_and_training_continues(tmp_path, poisoned):
    poisoned.update({2, 3})
    changes = [*TINY, "training.steps=6", "training.skip_nonfinite=2", "optimizer.name=sgd", "training.accumulation=2"]
    run = pretrain("quickstart", changes, run=tmp_path / "run")
    losses = [row["loss"] for row in records(run / "metrics.jsonl")]
    assert [loss == "nan" for loss in losses] == [False, False, True, True, False, False]
    state = load_file(next((run / "checkpoints").iterdir()) / "training.safetensors")
    assert all(value.isfinite().all() for value in state.values())
    assert [row["step"] for row in records(run / "nonfinite.jsonl")] == [2, 2, 3, 3]  # each part


def test_a_resumed_run_continues_the_count_of_skipped_steps(tmp_path, poisoned):
    poisoned.update({2, 3, 4})
    changes = [*TINY, "training.skip_nonfinite=2", "schedule.name=constant"]
    run = pretrain("quickstart", [*changes, "training.steps=4"], run=tmp_path / "run")
    with pytest.raises(NotFinite, match=r"at step 4 .* after 2 skipped steps in a row"):
        pretrain("quickstart", [*changes, "training.steps=6"], run=run, resume=True)


def test_every_rank_names_the_rank_with_the_nonfinite_loss(tmp_path):
    processes = [forked(watch_two, rank, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(120)
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert main["error"] == other["error"]
    assert "loss is nan at step 3 of rank 1 on " in main["error"]
    assert [(row["rank"], row["indices"]) for row in main["rows"]] == [(1, [1030, 1031])]
    assert other["rows"] == []  # only rank 0 records
