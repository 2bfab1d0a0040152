"""Where training resumes, and run folders that not every rank sees."""

from types import SimpleNamespace

import pytest
import torch
from small_runs import TINY

from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.resuming import SHOWN, ResumePoint, changed_settings, load_newest_checkpoint
from wildfern.launch.run_folder import RunFolder


class OtherRank(DistributedContext):
    """Rank 1, which gets from rank 0 the checkpoint at step 2."""

    def broadcast_from_main(self, work):
        return 2, 1, ["step 3 is damaged"], "0" * 32

    def raise_on_all(self, error):
        if error is not None:
            raise error


@pytest.fixture
def load(tmp_path):
    """Runs `load_newest_checkpoint` on rank 1; `loaded` collects the folders that its engine reads."""
    loaded = []
    engine = SimpleNamespace(load=loaded.append, probe=None)
    assembly = SimpleNamespace(
        engine=engine, checkpoints=SimpleNamespace(path=lambda step: tmp_path / f"step_{step:08d}")
    )
    recipe = read_recipe("quickstart", [*TINY, "training.steps=4"])

    def run():
        return load_newest_checkpoint(recipe, RunFolder(tmp_path), OtherRank(1, 2, torch.device("cpu")), assembly)

    run.loaded = loaded
    return run


def test_a_rank_loads_the_checkpoint_that_rank_0_found(load, tmp_path):
    (tmp_path / "step_00000002").mkdir()
    assert load() == ResumePoint(2, 1, ["step 3 is damaged"], "0" * 32)
    assert load.loaded == [tmp_path / "step_00000002"]


def test_a_rank_that_does_not_see_the_checkpoint_of_rank_0_says_so(load):
    with pytest.raises(RunError, match=r"rank 1 does not see .*step_00000002, which rank 0 does: .* all hosts share"):
        load()
    assert load.loaded == []


def test_changed_settings_are_listed_in_one_line():
    then = read_recipe("quickstart", TINY)
    changes = ["training.steps=7", "evaluation.on=[digits]", "data.threads=2", "tracking.run_name=" + 60 * "n"]
    now = read_recipe("quickstart", [*TINY, *changes])
    assert changed_settings(then, then) == []
    assert changed_settings(then, now) == [
        f"changed settings: data.threads 1 → 2, training.steps {then.training.steps} → 7, "
        'evaluation.on [] → ["digits"], tracking.run_name null → "' + 38 * "n" + "…"
    ]


def test_many_changed_settings_are_counted():
    then = read_recipe("quickstart", TINY)
    names = ("checkpoint_every", "keep_checkpoints", "loader_threads", "log_every", "steps", "threads", "gradient_clip")
    more = ["evaluation.seeds=9", "evaluation.diagnostics=false", "tracking.project=p"]
    now = read_recipe("quickstart", [*TINY, *(f"training.{name}=33" for name in names), *more])
    message = changed_settings(then, now)[0]
    assert message.endswith(f" and {len(names) + len(more) - SHOWN} more")
