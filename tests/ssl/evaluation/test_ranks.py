"""Ranks that share the reading of images and the extraction of features give what one process gives; here they are threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.data import Images, Source, open_source
from wildfern.ssl.evaluation import KNN, Finetune, LinearProbe, Preprocessing, evaluate_backbones
from wildfern.ssl.evaluation.labeled_chunks import CHUNK, labeled_chunks
from wildfern.ssl.evaluation.ranks import hand_over

W = 3
DRAWING = threading.Lock()


class Threads:
    """Ranks that meet in memory."""

    world_size = W

    def __init__(self, rank, meeting, values):
        self.rank, self._meeting, self._values = rank, meeting, values

    def _all(self, value):
        self._values[self.rank] = value
        self._meeting.wait(timeout=60)
        found = list(self._values)
        self._meeting.wait(timeout=60)
        return found

    def raise_on_all(self, error):
        errors = self._all(error)
        if error is not None:
            raise error
        if found := [one for one in errors if one is not None]:
            raise ValueError(f"another rank: {found[0]}")

    def gather(self, value):
        found = self._all(value)
        return found if self.rank == 0 else []


def on_ranks(work):
    """What `work(ranks)` returns or raises, by rank."""
    meeting, values = threading.Barrier(W), [None] * W

    def run(rank):
        try:
            return work(Threads(rank, meeting, values))
        except (ValueError, OSError) as error:
            return error

    with ThreadPoolExecutor(W) as pool:
        return list(pool.map(run, range(W)))


class Noise(Source):
    """Random images of two classes; every seventh has no label."""

    class_names = ("a", "b")

    def __init__(self, num_items, seed, fails_at=None):
        super().__init__()
        self.num_items, self.seed, self.fails_at = num_items, seed, fails_at
        self.items_read = []

    def read(self, items):
        self.items_read += list(items)
        if self.fails_at in items:
            raise OSError(5, "Input/output error", "noise")
        rng = np.random.default_rng(self.seed)
        pixels = rng.integers(0, 256, (self.num_items, 8, 8, 3)).astype(np.uint8)
        labels = np.where(np.arange(self.num_items) % 7 == 6, -1, np.arange(self.num_items) % 2)
        return Images(pixels[items], labels[items])


def networks():
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten()) for name in ("random", "mine")}


def evaluated(train, test, evaluators=None, **settings):
    evaluators = evaluators or {"linear": LinearProbe(strengths=(0.1,)), "knn": KNN(k=5)}
    settings = {"preprocessing": Preprocessing(size=8), **settings}
    with DRAWING:  # the weights are drawn from torch's global generator, which the threads share
        backbones = networks()
    return evaluate_backbones(backbones, train, test, dataset="noise", evaluators=evaluators, **settings)


def test_ranks_read_a_share_each_and_rank_0_gets_the_scores_of_one_process():
    finetune = Finetune(epochs=1, batch_size=64, learning_rate=0.01)  # of images, not of features
    evaluators = {"linear": LinearProbe(strengths=(0.1,)), "finetune": finetune}
    alone = evaluated(Noise(5 * CHUNK + 3, 0), Noise(CHUNK + 1, 1), evaluators, details=True)
    sources = [(Noise(5 * CHUNK + 3, 0), Noise(CHUNK + 1, 1)) for _ in range(W)]
    first, *others = on_ranks(lambda ranks: evaluated(*sources[ranks.rank], evaluators, ranks=ranks, details=False))
    assert first == alone
    assert all(other.rows == () for other in others)
    assert [len(train.items_read) for train, _ in sources] == [2 * CHUNK, 2 * CHUNK, CHUNK + 3]
    assert [len(test.items_read) for _, test in sources] == [CHUNK, 1, 0]


def test_unreadable_images_of_any_rank_are_left_out_and_told(tmp_path):
    for number in range(2 * CHUNK + 10):
        file = tmp_path / ("even" if number % 2 == 0 else "odd") / f"{number:04d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 + number % 160, np.uint8)).save(file)
    for number in (4, CHUNK + 7, 2 * CHUNK + 4):  # one in the share of each rank, as the files are ordered
        file = tmp_path / ("even" if number % 2 == 0 else "odd") / f"{number:04d}.png"
        file.write_bytes(file.read_bytes()[:40])

    def score(ranks=None):
        settings = {} if ranks is None else {"ranks": ranks}
        train, test = (open_source(f"folder:{tmp_path}", "train", labels="folders") for _ in range(2))
        return evaluated(train, test, {"knn": KNN(k=3)}, **settings)

    alone = score()
    first, *_ = on_ranks(score)
    assert first.rows == alone.rows
    assert {row["train_images"] for row in first.rows} == {2 * CHUNK + 10 - 3}
    assert any(note.startswith("3 images of train could not be read") for note in first.notes["noise"])


def test_an_error_of_one_rank_is_raised_on_all():
    """Of the last rank, in its second chunk, while the others have read theirs."""
    sources = [(Noise(6 * CHUNK, 0, fails_at=5 * CHUNK + 1), Noise(20, 1)) for _ in range(W)]
    found = on_ranks(lambda ranks: evaluated(*sources[ranks.rank], ranks=ranks))
    assert [str(error).replace("another rank: ", "") for error in found] == [
        "[Errno 5] Input/output error: 'noise'"
    ] * W


def test_an_error_of_rank_0_after_reading_is_raised_on_all():
    """Train has one class only, which rank 0 notices once it has all labels."""

    class OneClass(Noise):
        def read(self, items):
            return Images(super().read(items).pixels, np.zeros(len(items), np.int64))

    found = on_ranks(lambda ranks: evaluated(OneClass(20, 0), Noise(20, 1), ranks=ranks))
    assert all(isinstance(error, ValueError) for error in found)
    assert len({str(error).replace("another rank: ", "") for error in found}) == 1


@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 4, 7])
def test_parts_arrive_in_the_order_of_their_chunks(chunks):
    """Also where some chunks have no labeled image, and so no part."""

    def work(ranks):
        parts = iter([(c, f"part {c}") for c in range(ranks.rank, chunks, W) if c % 5 != 3])
        taken = []
        hand_over(parts, chunks, ranks, taken.append)
        return taken

    assert on_ranks(work) == [[f"part {c}" for c in range(chunks) if c % 5 != 3], [], []]


def test_an_error_in_taking_a_part_is_raised_on_all():
    def full(part):
        raise OSError(28, "No space left on device", "rows")

    found = on_ranks(lambda ranks: hand_over(iter([(ranks.rank, 1)]), W, ranks, full))
    assert ["No space left" in str(error) for error in found] == [True] * W


def test_the_shares_of_labeled_chunks_are_all_chunks():
    whole = [chunk.first for chunk in labeled_chunks(Noise(4 * CHUNK + 1, 0), "noise")]
    shares = [[c.first for c in labeled_chunks(Noise(4 * CHUNK + 1, 0), "noise", share=(r, W))] for r in range(W)]
    assert sorted(first for share in shares for first in share) == whole == [c * CHUNK for c in range(5)]
    assert shares[1] == [CHUNK, 4 * CHUNK]
