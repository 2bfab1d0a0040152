"""Ranks that see other images, or have read another recipe, end at the start with one message on every rank."""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked_runs import ForkedRun
from PIL import Image
from small_runs import TINY

from wildfern.launch.builders import open_mixture, open_second_images
from wildfern.launch.cluster.first_contact import _Contact, described, difference
from wildfern.launch.cluster.same_data import check_same_data, check_same_facts, facts
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.ssl.data import DataError

HOST = socket.gethostname()
DATA = [change for change in TINY if not change.startswith("data.")]
DATA += ["data={source: 'folder:images', fingerprint: contents}", "evaluation.online_probe=null"]
DATA += ["training.steps=2", "engine={name: deepspeed, timeout_minutes: 1}"]
needs_deepspeed = pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")


def images(folder, number, value=0, names="{}.bmp"):
    for n in range(number):
        file = folder / "images" / names.format(n)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), value + n, np.uint8)).save(file)
    return folder


def other_rank(own, other):
    """An all_gather in which rank 1, on host b, has the facts of `other`."""
    return lambda value: [("a", own), ("b", other)]


def seen_in(folder, monkeypatch, *changes):
    monkeypatch.chdir(folder)
    recipe = read_recipe("quickstart", [*DATA, *changes])
    return facts(recipe, open_mixture(recipe), open_second_images(recipe))


@pytest.mark.parametrize(
    ("number", "value", "names", "changes", "message"),
    [
        (6, 0, "{}.bmp", [], None),
        (
            5,
            0,
            "{}.bmp",
            [],
            r"5 against 6 items, 5 against 6 files, \d+ against \d+ bytes, other names or sizes of files",
        ),
        (6, 0, "x{}.bmp", [], "folder:images is not the same: other names or sizes of files"),
        (6, 9, "{}.bmp", [], "folder:images is not the same: other contents of files"),
        (6, 9, "{}.bmp", ["data.fingerprint=names"], "folder:images is not the same: other contents of files"),
        (
            5,
            0,
            "{}.bmp",
            ["data={source: ifs, size: 32, points: 200}", "views={pixmix: {data: 'folder:images'}}"],
            "views.pixmix: folder:images is not the same: 5 against 6 items",
        ),
    ],
)
def test_a_difference_is_named_with_both_numbers(tmp_path, monkeypatch, number, value, names, changes, message):
    own = seen_in(images(tmp_path / "a", 6), monkeypatch, *changes)
    other = seen_in(images(tmp_path / "b", number, value, names), monkeypatch, *changes)
    if message is None:
        check_same_facts(own, other_rank(own, other))
        return
    with pytest.raises(RunError, match=message) as error:
        check_same_facts(own, other_rank(own, other))
    assert "(rank 1 on host b, against rank 0 on host a)" in str(error.value)
    assert "Every rank must see the same data" in str(error.value)


def test_classes_are_compared_if_labels_are_used(tmp_path, monkeypatch):
    found = []
    for name, kinds in (("a", "xy"), ("b", "xz"), ("c", "xy")):
        for kind in kinds:
            images(tmp_path / name, 2, names=f"{kind}/{{}}.bmp")
        monkeypatch.chdir(tmp_path / name)
        recipe = read_recipe("quickstart", [*DATA, "data.labels=folders"])
        mixture = open_mixture(recipe)
        mixture.sources[0].labels[0] = name == "c"
        found.append(facts(recipe, mixture, {}))
        mixture.skip_labels()
        assert "classes" not in facts(recipe, mixture, {})["0 folder:images"]
    with pytest.raises(RunError, match="other names of classes"):
        check_same_facts(found[0], other_rank(found[0], found[1]))
    with pytest.raises(RunError, match="folder:images is not the same: other labels"):
        check_same_facts(found[0], other_rank(found[0], found[2]))


def test_many_ranks_are_listed_in_short():
    facts = [{"0 x": {"items": number}} for number in (3, 2, 2, 2, 2, 2)]
    with pytest.raises(
        RunError, match="rank 1 on host h1, rank 2 on host h2, rank 3 on host h3 and 2 more, against rank 0"
    ):
        check_same_facts(facts[0], lambda own: [(f"h{rank}", one) for rank, one in enumerate(facts)])


def test_files_that_one_rank_cannot_read_are_an_error_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(images(tmp_path / "a", 3))
    recipe = read_recipe("quickstart", DATA)
    mixture = open_mixture(recipe)
    (tmp_path / "a" / "images" / "1.bmp").unlink()

    def raise_on_all(error):
        raise error

    with pytest.raises(DataError, match="cannot be read for its fingerprint"):
        check_same_data(recipe, mixture, {}, {}, SimpleNamespace(world_size=2, raise_on_all=raise_on_all))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["seed=7"], "seed is 7 there and 0 on rank 0"),
        (["training.batch_size=4", "method.temperature=0.5"], "training.batch_size is 4 there and 8 on rank 0"),
        (["data.points=300"], "data.points is 300 there and 200 on rank 0"),
        (["tracking.run_name=x"], None),
        (["model.weights=/disk/weights.pth"], None),
    ],
)
def test_another_recipe_is_refused_by_its_keys(changes, message):
    own, other = (described(read_recipe("quickstart", [*TINY, *more])) for more in ((), changes))
    found = difference([{"host": "a", "keys": own}, {"host": "b", "keys": other}])
    if message is None:
        assert found is None
    else:
        assert found.startswith("rank 1 on host b has another recipe than rank 0 on host a: ")
        assert message in found


def test_what_an_earlier_start_left_in_the_store_is_not_read(monkeypatch):
    store, recipe = torch.distributed.HashStore(), read_recipe("quickstart", TINY)
    ranks = threading.local()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(store, ranks.own, 3)]))

    def verdict(rank, failing, begins):
        time.sleep(begins[rank])
        ranks.own = rank
        return _Contact(20.0).verdict(recipe, ValueError("the first start") if rank == failing else None)

    with ThreadPoolExecutor(3) as pool:
        for begins in ([0, 0, 0], [0.1, 0, 0], [0, 0.1, 0.2]):
            for failing, problem in ((1, "the first start"), (None, None)):
                found = pool.map(partial(verdict, failing=failing, begins=begins), range(3))
                assert [one and one.partition(": ")[2] for one in found] == [problem] * 3


def test_a_rank_that_does_not_come_is_waited_for_in_vain(monkeypatch):
    store = torch.distributed.HashStore()
    torch.distributed.PrefixStore("wildfern", store).set("start of 1", "of an earlier start")
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    with pytest.raises(RuntimeError):
        _Contact(0.1).verdict(read_recipe("quickstart", TINY), None)


def test_data_may_have_another_path_on_every_host(tmp_path, monkeypatch):
    monkeypatch.chdir(images(tmp_path, 1))
    recipes = [
        read_recipe("quickstart", [*DATA, f"data={{source: '{where}'}}"]) for where in ("folder:images", "folder:.")
    ]
    assert described(recipes[0]) == described(recipes[1])


def test_plugins_are_compared_by_content(tmp_path):
    keys = []
    for number in range(3):
        file = tmp_path / str(number) / "mine.py"
        file.parent.mkdir()
        file.write_text(f"NUMBER = {number // 2}\n")
        keys.append(described(read_recipe("quickstart", TINY, plugins=[file])))
    assert keys[0] == keys[1]
    found = difference([{"host": "a", "keys": keys[0]}, {"host": "b", "keys": keys[2]}])
    assert "the plugin mine.py is SHA-256 " in found


@needs_deepspeed
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (5, f"5 against 6 items, .* (rank 1 on host {HOST}, against rank 0 on host {HOST})"),
        (None, "there is no images"),
    ],
)
def test_every_rank_of_a_run_ends_with_the_message(tmp_path, number, message):
    first = images(tmp_path / "a", 6)
    (tmp_path / "b").mkdir()
    if number is not None:
        images(tmp_path / "b", number)
    prepare = {0: partial(os.chdir, first), 1: partial(os.chdir, tmp_path / "b")}
    started = ForkedRun(tmp_path / "run", DATA, processes=2, prepare=prepare)
    assert started.wait(60) == 2, started.output()
    assert started.processes[1].exitcode == 2
    assert started.output().count(message.partition(", .*")[0]) == 2
    assert f"rank 1 on host {HOST}" in started.output()
    assert "Traceback" not in started.output()
    assert not (tmp_path / "run").exists()


@needs_deepspeed
@pytest.mark.parametrize("failing", [0, 1])
def test_a_recipe_that_only_one_rank_cannot_use_ends_all(tmp_path, failing):
    plugin = "plugins=[mine.py]"
    folders = [images(tmp_path / name, 4) for name in "ab"]
    changes = [*DATA, plugin]
    (folders[1 - failing] / "mine.py").write_text("")
    prepare = {rank: partial(os.chdir, folder) for rank, folder in enumerate(folders)}
    started = ForkedRun(tmp_path / "run", changes, processes=2, prepare=prepare)
    assert started.wait(60) == 2, started.output()
    assert started.processes[1].exitcode == 2
    assert started.output().count("mine.py: cannot be read") == 2
