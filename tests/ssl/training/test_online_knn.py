"""Online kNN against a plain loop, on two ranks, in checkpoints; it does not influence the backbone."""

import math
import shutil

import pytest
import torch
from engine_ranks import advance, build
from forked_ranks import two_ranks_of
from online_knn_ranks import BATCH, CLASSES, CPU, IMAGES, PARTS, STEPS, WIDTH, batches, made, trained, worker
from safetensors.torch import load_file, save_file
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.tracking import read_records
from wildfern.ssl.training import OnlineKNN, OnlineProbe, SeveralOnlineEvaluations
from wildfern.ssl.training.whole_state import FILE, write


def plain_vote(bank, row, k, temperature):
    """The class with the most votes of the k nearest of `bank`, a list of (unit row, label), by the formula in Python."""
    near = sorted(((sum(a * b for a, b in zip(row, other, strict=True)), label) for other, label in bank), reverse=True)
    votes = [0.0] * CLASSES
    for similarity, label in near[:k]:
        votes[label] += math.exp(similarity / temperature)
    return votes.index(max(votes))


def test_it_equals_a_plain_loop_over_the_latest_labeled_images():
    knn, latest = made(), []
    for step in range(STEPS):
        right, new = [], []
        for features, labels in batches(step):
            knn.observe(features, labels)
            for row, label in zip(features.double(), labels.tolist(), strict=True):
                unit = (row / row.norm()).tolist()
                if label >= 0:
                    new.append((unit, label))
                    right.append(bool(latest) and plain_vote(latest, unit, 4, 0.2) == label)
        knn.step()
        expected = {"online_knn_accuracy": sum(right) / len(right)} if latest else {}
        latest = [*latest, *new][-IMAGES:]
        assert knn.take_accuracy() == expected
        assert knn.take_accuracy() == {}
    assert len(latest) == IMAGES < int(knn.added)  # old images were replaced
    start = int(knn.added) % IMAGES
    rows, labels = torch.tensor([row for row, _ in latest]), torch.tensor([label for _, label in latest])
    torch.testing.assert_close(knn.bank.roll(-start, 0), rows)
    assert torch.equal(knn.labels.roll(-start, 0), labels)


def test_the_accuracy_is_of_all_images_since_it_was_taken():
    each, whole = made(), made()
    counts = [0, 0]
    for step in range(3):
        known = 0
        for features, labels in batches(step):
            for knn in (each, whole):
                knn.observe(features, labels)
            known += int((labels >= 0).sum())
        each.step()
        whole.step()
        if found := each.take_accuracy():
            counts = [counts[0] + round(found["online_knn_accuracy"] * known), counts[1] + known]
    assert whole.take_accuracy() == {"online_knn_accuracy": counts[0] / counts[1]}


def test_a_step_of_more_images_than_the_bank_leaves_the_latest():
    features, labels = torch.randn(9, WIDTH), torch.arange(9) % CLASSES
    knn = OnlineKNN(WIDTH, CLASSES, k=1, temperature=1.0, images=4, device=CPU)
    for some in (slice(0, 2), slice(2, 9)):
        knn.observe(features[some], labels[some])
        knn.step()
    order = [8, 5, 6, 7]  # the n-th image is at place n modulo 4
    assert torch.equal(knn.labels, labels[order])
    torch.testing.assert_close(knn.bank, features[order] / features[order].norm(dim=1, keepdim=True))


def test_of_equal_images_the_lowest_label_wins():
    knn = OnlineKNN(2, 3, k=2, temperature=0.1, images=9, device=CPU)
    same = torch.ones(3, 2)
    knn.observe(same, torch.tensor([2, 1, 0]))  # the first two are the neighbors
    knn.step()
    knn.observe(same, torch.tensor([1, 1, 2]))
    knn.step()
    assert knn.take_accuracy() == {"online_knn_accuracy": 2 / 3}


def test_discarded_and_unlabeled_images_have_no_effect():
    knn, other = made(), made()
    for step in range(3):
        for features, labels in batches(step + 10):
            knn.observe(features, labels)
        knn.forget()
        for features, labels in batches(step):
            knn.observe(features, labels)
            other.observe(features[labels >= 0], labels[labels >= 0])
        knn.step()
        other.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in knn.state_dict().items())


def test_nothing_is_counted_before_a_labeled_image():
    knn = made()
    for _ in range(2):
        knn.observe(torch.randn(4, WIDTH), torch.full((4,), -1))
        knn.step()
    assert knn.take_accuracy() == {}
    knn.observe(torch.randn(4, WIDTH), torch.tensor([0, -1, 1, 2]))
    knn.step()
    assert knn.take_accuracy() == {}
    assert int(knn.added) == 3


def test_features_that_are_not_finite_are_zero():
    knn = made()
    features = torch.ones(8, WIDTH)
    features[::3, 1] = torch.tensor([math.nan, math.inf, -math.inf])
    for _ in range(2):
        knn.observe(features, torch.zeros(8, dtype=torch.int64))
        knn.step()
    expected = torch.full((8, WIDTH), WIDTH**-0.5)
    expected[::3] = 0
    torch.testing.assert_close(knn.bank[:16], expected.repeat(2, 1))
    assert knn.take_accuracy() == {"online_knn_accuracy": 1.0}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"k": 0}, "k and temperature are positive"),
        ({"temperature": 0.0}, "k and temperature are positive"),
        ({"images": 3}, "at least k=4 images, got images=3"),
        ({"classes": 1}, "at least 2 classes, got 1"),
    ],
)
def test_impossible_settings_are_refused(changes, what):
    settings = {"features": 5, "classes": 3, "k": 4, "temperature": 0.1, "images": 8, "device": CPU, **changes}
    with pytest.raises(ValueError, match=what):
        OnlineKNN(**settings)


@pytest.mark.parametrize(
    ("features", "labels", "what"),
    [
        (None, [0, 1], "sets no features: .* or disable the online kNN"),
        (torch.randn(2, 5), None, "the online kNN needs exactly one label"),
        (torch.randn(2, 5), [[0, 1], [1, 1]], "the online kNN needs exactly one label"),
        (torch.randn(2, 5), [0, 3], "declares 3 classes but has the label 3"),
    ],
)
def test_what_is_missing_is_named(features, labels, what):
    with pytest.raises(ValueError, match=what):
        made().observe(features, None if labels is None else torch.tensor(labels))


def test_two_ranks_have_the_bank_and_the_counts_of_one_also_from_its_state(tmp_path):
    one = made()
    trained(one, range(3))
    torch.save(one.state_dict(), tmp_path / "one.pt")
    expected = trained(made(), range(STEPS))
    known = [[int((labels[:half] >= 0).sum()) for _, labels in batches(3)] for half in (BATCH // 2, BATCH)]
    assert [2 * n for n in known[0]] != known[1]  # the ranks have unequal numbers of labels
    for found in two_ranks_of(worker, tmp_path):
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
            since = value[3:] if name == "accuracies" else value
            assert torch.equal(found[f"resumed {name}"], since), name
    assert len(set(expected["accuracies"].tolist())) > 2
    assert int(expected["added"]) > IMAGES > PARTS * BATCH


def test_several_evaluations_measure_as_alone():
    alone = [OnlineProbe(WIDTH, CLASSES, 0.1, CPU), made()]
    parts = [OnlineProbe(WIDTH, CLASSES, 0.1, CPU), made()]
    both = SeveralOnlineEvaluations(parts)
    for step in range(3):
        for features, labels in batches(step):
            for one in (*alone, both):
                one.observe(features, labels)
        for one in (*alone, both):
            if step == 1:
                one.forget()
            else:
                one.step()
    assert both.take_accuracy() == alone[0].take_accuracy() | alone[1].take_accuracy()
    for one, part in zip(alone, parts, strict=True):
        assert all(torch.equal(value, part.state_dict()[name]) for name, value in one.state_dict().items())


CASE = "simclr-sgd"


def with_both(images=20):
    """An engine with an online probe and online kNN."""
    engine = build(CASE, None)
    bank = OnlineKNN(engine.method.backbone.width, 3, k=3, temperature=0.1, images=images, device=CPU)
    engine.probe = SeveralOnlineEvaluations([engine.probe, bank])
    return engine


def test_a_state_with_only_a_probe_loads_into_both_and_back(tmp_path):
    engine = build(CASE, None)
    advance(engine, CASE, 0, 2)
    (tmp_path / "probe").mkdir()
    write(engine.snapshot(), tmp_path / "probe")
    other = with_both()
    other.load(tmp_path / "probe")
    probe, knn = other.probe.parts
    assert torch.equal(probe.weight, engine.probe.weight)
    assert int(knn.steps) == int(knn.added) == 0
    advance(other, CASE, 2, 4)
    (tmp_path / "both").mkdir()
    write(other.snapshot(), tmp_path / "both")
    engine.load(tmp_path / "both")
    assert torch.equal(probe.weight, engine.probe.weight)
    again = with_both()
    again.load(tmp_path / "both")
    assert all(torch.equal(value, again.snapshot()[name]) for name, value in other.snapshot().items())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s["online_knn/labels"].fill_(7), "the bank of online kNN does not hold"),
        (lambda s: s["online_knn/labels"].fill_(-1), "the bank of online kNN does not hold"),
        (lambda s: s["online_knn/bank"].fill_(math.nan), "the bank of online kNN does not hold"),
        (lambda s: s["online_knn/added"].fill_(-1), "the bank of online kNN does not hold"),
        (lambda s: s["online_knn/added"].fill_(2**63 - 1), "the bank of online kNN does not hold"),
        (lambda s: s.pop("online_knn/labels"), "online_knn/labels is missing"),
        (lambda s: s.update({"online_knn/bank": torch.zeros(3, 6)}), r"online_knn/bank is \[3, 6\], not \[20, 6\]"),
        (lambda s: s.update({"online_knn/more": torch.zeros(3)}), "unexpected weight online_knn/more"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, what, tmp_path):
    engine = with_both()
    advance(engine, CASE, 0, 2)
    write(engine.snapshot(), tmp_path)
    state = load_file(tmp_path / FILE)
    change(state)
    save_file(state, tmp_path / FILE)
    with pytest.raises(ValueError, match=f"does not fit this recipe: .*{what}"):
        with_both().load(tmp_path)


WITHOUT = [*TINY, "training.steps=12", "training.checkpoint_every=4", "training.log_every=3", "data.classes=4"]
PROBE = [*WITHOUT, "evaluation.online_probe={learning_rate: 0.01}"]
WITH = [*PROBE, "evaluation.online_knn={k: 5, images: 50}"]


@pytest.fixture(scope="module")
def with_knn(tmp_path_factory):
    return pretrain("quickstart", WITH, run=tmp_path_factory.mktemp("knn") / "run")


def test_backbone_and_probe_are_bit_identical_with_and_without(with_knn, tmp_path):
    without = pretrain("quickstart", PROBE, run=tmp_path / "run")
    assert (without / "backbone.safetensors").read_bytes() == (with_knn / "backbone.safetensors").read_bytes()
    ours, theirs = (read_records(run / "metrics.jsonl") for run in (with_knn, without))
    accuracies = [row.pop("online_knn_accuracy", None) for row in ours]
    assert ours == theirs
    assert accuracies[0] is None  # of step 0, whose bank was empty
    assert all(0 <= a <= 1 for a in accuracies[1:])
    assert len(set(accuracies)) > 2


def test_it_resumes_exactly(with_knn, tmp_path):
    run = shutil.copytree(with_knn, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/step_00000012")  # step 8 is in the middle of the mean that is logged next
    pretrain("quickstart", WITH, run=run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == (with_knn / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"evaluation\.online_knn\.images differ"):
        pretrain("quickstart", [*WITH, "evaluation.online_knn.images=60"], run=run, resume=True)


def test_it_can_be_added_to_a_resumed_run(tmp_path, capsys):
    run = pretrain("quickstart", [*PROBE, "training.checkpoint_every=8"], run=tmp_path / "run")
    before = read_records(run / "metrics.jsonl")
    shutil.rmtree(run / "checkpoints/step_00000012")
    capsys.readouterr()
    pretrain("quickstart", [*WITH, "training.checkpoint_every=8"], run=run, resume=True)
    printed = capsys.readouterr().out
    assert "no online kNN: its bank starts empty at step 8" in printed
    assert "no online probe" not in printed
    after = read_records(run / "metrics.jsonl")
    assert ["online_knn_accuracy" in row for row in after] == [False] * 4 + [True]  # step 8 is logged alone
    assert [row["online_probe_accuracy"] for row in after] == [row["online_probe_accuracy"] for row in before]


@pytest.mark.parametrize(
    ("evaluation", "data", "what"),
    [
        (["online_knn"], "[{source: ifs, size: 32}, {source: contours, size: 32}]", "^evaluation.online_knn needs the"),
        (
            ["online_knn"],
            "{source: dead_leaves, size: 32}",
            "online_knn needs labels, but dead_leaves .* set it to null",
        ),
        (
            ["online_probe", "online_knn"],
            "{source: ifs, size: 32, classes: 1000000}",
            r"^evaluation\.online_probe and evaluation\.online_knn support up to 100000 classes, .* set both to null",
        ),
    ],
)
def test_unsuitable_sources_are_refused(evaluation, data, what, tmp_path):
    arguments = [f"data={data}", *(a for a in TINY if not a.startswith("data"))]
    with pytest.raises(RunError, match=what):
        pretrain("quickstart", [*arguments, *(f"evaluation.{e}={{}}" for e in evaluation)], run=tmp_path / "run")


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e38])
def test_features_of_any_finite_length_have_their_cosine_similarities(scale):
    knn = OnlineKNN(8, 3, k=3, temperature=0.07, images=20, device=torch.device("cpu"))
    labels = torch.arange(12) % 3
    features = torch.eye(3, 8)[labels] * scale
    for _ in range(2):
        knn.observe(features, labels)
        knn.step()
    assert knn.take_accuracy() == {"online_knn_accuracy": 1.0}
    torch.testing.assert_close(knn.bank.norm(dim=1), torch.ones(20))
