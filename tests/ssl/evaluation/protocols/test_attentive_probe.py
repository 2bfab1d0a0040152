import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wildfern.ssl.evaluation import Chunk, ChunkStream, Features, HeldOut, linear_probe
from wildfern.ssl.evaluation.protocols.attentive_probe import AttentiveHead, AttentiveProbe, TrainTokens
from wildfern.ssl.evaluation.protocols.probe_training import shuffled
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.backbone import Tokens

SMALL = {"queries": 4, "learning_rate": (3e-3, 1e-2), "epochs": 12, "batch_size": 16}


class Stream:
    """Chunks of tokens in which one patch, in any place, carries the class; `passes` counts the iterations."""

    def __init__(self, n, seed=0, *, ordered=False, scale=1.0, offset=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(n) % 3 * 10
        if ordered:
            self.y = self.y.sort().values
        codes = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(9)), dim=1) * 6
        self.x = torch.randn(n, 20, 16, generator=generator)
        place = torch.randint(20, (n,), generator=generator)
        self.x[torch.arange(n), place] = codes[3] + codes[self.y // 10]
        self.x = self.x * scale + offset
        self.prefix = torch.randn(n, 1, 16, generator=generator) * scale + offset
        self.passes = 0

    def open(self):
        self.passes += 1
        for at in range(0, len(self.y), 7):
            part = slice(at, at + 7)
            yield Chunk(Tokens(self.x[part], self.prefix[part]), self.y[part])

    @property
    def chunks(self):
        return ChunkStream(self.open)


def test_the_head_matches_the_loop():
    head = AttentiveHead(6, 4, 3, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        head.queries.mul_(100)
        head.bias.copy_(torch.arange(4))
    x = torch.randn(5, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = head(x)
    for image in range(5):
        parts = []
        for j in range(3):
            energy = [(head.queries[j] @ x[image, t] / 6**0.5).exp() for t in range(7)]
            weights = torch.stack(energy) / sum(energy)
            torch.testing.assert_close(head.attention(x)[image, j], weights)
            parts.append(sum(weights[t] * (x[image, t] @ head.values[j]) for t in range(7)))
        torch.testing.assert_close(found[image], torch.cat(parts) @ head.weight + head.bias)
    one = torch.arange(12.0, dtype=torch.float64).view(1, 2, 6)
    torch.testing.assert_close(head(one), head(one.flip(1)))
    with pytest.raises(ValueError, match="queries: 4 does not divide the 6 channels of the tokens; 3 would"):
        AttentiveHead(6, 2, 4, torch.Generator())


def test_it_finds_the_patch_that_a_probe_on_the_average_cannot():
    train, test = Stream(240), Stream(120, seed=1)
    scores = AttentiveProbe(**SMALL)(train.chunks, HeldOut(test.chunks))
    averaged = (Features(one.x.mean(1), one.y) for one in (train, test))
    assert scores[0].value > 0.95 > 0.8 > linear_probe(*averaged, strengths=(0.1, 0.01)).accuracy
    assert (train.passes, test.passes) == (1, 1)
    assert scores[0].predictions.classes.tolist() == [0, 10, 20]
    assert scores[0].value == (scores[0].predictions.ranked[:, 0] == test.y).float().mean().item()
    assert [score.metric for score in scores] == ["accuracy", "balanced_accuracy"]
    assert scores[0].n == len(scores[0].per_image) == 120
    assert "right of 24 train images held out); tokens kept as float16; 95 % Wilson" in scores[0].detail


def test_test_is_read_once_and_last_and_changes_nothing():
    train = Stream(60)

    class Last(HeldOut):
        def read(self):
            self.passes_before = train.passes
            return super().read()

    small = {**SMALL, "epochs": 2, "cache_mb": 1}
    test = Last(Stream(30, seed=1).chunks)
    first = AttentiveProbe(**small)(train.chunks, test)
    assert train.passes == test.passes_before == 1
    with pytest.raises(RuntimeError, match="read before"):
        test.read()
    other = Stream(30, seed=1)
    other.y = torch.full_like(other.y, 20)
    again = AttentiveProbe(**small)(Stream(60).chunks, HeldOut(other.chunks))
    assert torch.equal(again[0].predictions.logits, first[0].predictions.logits)
    assert again[0].predictions.temperature == first[0].predictions.temperature
    state = torch.random.get_rng_state()
    seeded = AttentiveProbe(**small, seed=1)(Stream(60).chunks, HeldOut(Stream(30, seed=1).chunks))
    assert not torch.equal(seeded[0].predictions.logits, first[0].predictions.logits)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_prefix_tokens_only_patches_count():
    def logits(prefix, change):
        train, test = Stream(30), Stream(15, seed=1)
        train.prefix[:], test.prefix[:] = train.prefix + change * train.y[:, None, None], test.prefix
        found = AttentiveProbe(**{**SMALL, "epochs": 1}, prefix=prefix)(train.chunks, HeldOut(test.chunks))
        return found[0].predictions.logits

    assert torch.equal(logits(False, 0), logits(False, 1))
    assert not torch.equal(logits(True, 0), logits(True, 1))


def test_tokens_are_standardized_by_all_of_train_and_small_differences_survive():
    stream = Stream(40, scale=1e-4, offset=5.0)
    tokens = TrainTokens(stream.chunks, True, 2**20, 8)
    every = torch.ones(40, dtype=torch.bool)
    x = torch.cat([part for part, _ in tokens.in_order(every, 16)])
    original = torch.cat([stream.prefix, stream.x], dim=1).double()
    expected = (original - original.mean((0, 1))) / original.var((0, 1), correction=0).sqrt()
    torch.testing.assert_close(x.double(), expected, atol=5e-3, rtol=1e-2)
    plain = original.half().double()
    lost = (plain - plain.mean((0, 1))) / original.var((0, 1), correction=0).sqrt()
    assert (lost - expected).abs().max() > 1


def test_kept_and_streamed_tokens_are_the_same_and_in_blocks_of_the_order():
    stream = Stream(50)
    kept = TrainTokens(stream.chunks, True, 50 * 2 * 21 * 16, 4)
    streamed = TrainTokens(stream.chunks, True, 18 * 2 * 21 * 16, 4)
    assert kept.kept is not None
    assert streamed.kept is None
    assert streamed.block == 16
    assert streamed.describe() == "tokens computed again in each epoch, shuffled within 16 images"
    mask = torch.arange(50) % 5 != 0
    for one, other in zip(kept.in_order(mask, 16), streamed.in_order(mask, 16), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    whole = torch.cat([x for x, _ in kept.in_order(torch.ones(50, dtype=torch.bool), 50)])
    images = mask.nonzero()[:, 0].numpy()
    for tokens, blocks in ((kept, [images]), (streamed, [images[:16], images[16:32], images[32:]])):
        order = [image for block in blocks for image in shuffled(block, 2, 3).tolist()]
        found = [*tokens.in_random_order(mask, 4, 2, 3)]
        assert torch.cat([numbers for _, numbers in found]).tolist() == order
        for x, numbers in found:
            assert torch.equal(x, whole[numbers])
    assert len([*kept.in_random_order(mask, 16, 0, 0)]) == len([*streamed.in_random_order(mask, 16, 0, 0)]) == 2


def test_a_stream_that_does_not_fit_is_read_again_in_each_epoch():
    train = Stream(150)
    train.x = train.x.repeat(1, 20, 1)
    one = AttentiveProbe(**{**SMALL, "epochs": 3}, cache_mb=1)
    scores = one(train.chunks, HeldOut(Stream(60, seed=1).chunks))
    assert train.passes == 1 + 3 + 1  # labels, epochs, held-out images
    assert "tokens computed again in each epoch, shuffled within 80 images" in scores[0].detail
    assert scores[0].value > 0.6


def test_images_sorted_by_class_are_refused_if_they_cannot_be_shuffled():
    image = 2 * 21 * 16
    with pytest.raises(ValueError, match=r"sorted by class, and cache_mb: 0 holds the tokens of 10 of 60, too few"):
        TrainTokens(Stream(60, ordered=True).chunks, True, 10 * image, 4)
    assert TrainTokens(Stream(60, ordered=True).chunks, True, 60 * image, 4).kept is not None
    assert TrainTokens(Stream(60).chunks, True, 10 * image, 4).kept is None


def test_the_description_names_the_settings():
    assert AttentiveProbe().describe() == (
        "attentive probe on frozen patch and prefix tokens, standardized by train: 32 learned queries pool the values by "
        "attention (efficient probing), then a linear layer; AdamW, learning rate 0.0001, 0.0003, 0.001, 0.003, 0.01, weight "
        "decay 0.001, cosine, 20 epochs, batches of 256, no augmentation; 5 learning rates trained side by side, one chosen on "
        "10% of train held out, its head scored as trained without them; last epoch"
    )
    alone = AttentiveProbe(queries=1, prefix=False, learning_rate=0.01, epochs=1).describe()
    assert "frozen patch tokens, standardized by train: 1 learned query pools" in alone
    assert "1 epoch, batches of 256, no augmentation; trained on all of train; last epoch" in alone


def test_bad_input_is_refused():
    probe, test = AttentiveProbe(**{**SMALL, "epochs": 1}), HeldOut(Stream(6).chunks)
    with pytest.raises(ValueError, match="queries and cache_mb are at least 1, got queries=0"):
        AttentiveProbe(queries=0)
    with pytest.raises(ValueError, match="no images to train"):
        probe(Stream(0).chunks, test)
    hot = Stream(9)
    hot.y = F.one_hot(hot.y // 10, 3)
    with pytest.raises(ValueError, match=r"attentive\(\) is for one label per image"):
        probe(hot.chunks, test)
    broken = Stream(9)
    broken.x[8, 3, 2] = torch.inf
    with pytest.raises(ValueError, match="tokens of train contain NaN or infinity"):
        probe(broken.chunks, test)
    with pytest.raises(ValueError, match="queries: 5 does not divide the 16 channels of the tokens; 4 would"):
        AttentiveProbe(queries=5)(Stream(9).chunks, test)
    assert len([*test.read()]) == 1  # none of these read it
    with pytest.raises(ValueError, match="no images to score"):
        probe(Stream(9).chunks, HeldOut(Stream(0).chunks))
    with pytest.raises(ValueError, match="tokens of test contain NaN or infinity"):
        probe(Stream(9).chunks, HeldOut(broken.chunks))
    changing = Stream(60)
    tokens = TrainTokens(changing.chunks, True, 2 * 21 * 16 * 20, 4)
    changing.y = changing.y.flip(0)
    with pytest.raises(ValueError, match="labels of train changed between two passes"):
        [*tokens.in_order(torch.ones(60, dtype=torch.bool), 4)]


def test_networks_are_checked_before_training():
    vit = Backbone("vit_tiny_patch16_224", img_size=12, patch_size=4, depth=1, embed_dim=12, num_heads=2)
    with pytest.raises(ValueError, match="queries: 32 does not divide the 12 channels of the tokens; 12 would"):
        AttentiveProbe().check_network(vit, 12)
    AttentiveProbe(queries=6).check_network(vit, 12)
    with pytest.raises(ValueError, match="Linear has no method tokens"):
        AttentiveProbe().check_network(nn.Linear(2, 2), 12)
