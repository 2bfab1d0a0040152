"""Features kept on the disk: each image once, by network, through kills and damage."""

import hashlib

import numpy as np
import pytest
import torch
from curated_images import scene
from safetensors.numpy import load_file, save_file

from wildfern.ssl.curation import feature_store
from wildfern.ssl.curation.curate import Tools, decide_again, scan
from wildfern.ssl.curation.feature_store import FeatureStore
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.policy import Features, Policy, Selection, Similar
from wildfern.ssl.data import DataError


class MeanColors:
    """Stands for a network: the mean color of the quarters of an image, times `scale`; counts its images."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.seen = scale, 0

    def of(self, pixels: np.ndarray) -> torch.Tensor:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        quarters = [pixels[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
        return self.scale * torch.tensor(np.concatenate([one.mean((0, 1)) for one in quarters]) - 128)

    def __call__(self, source, items):
        self.seen += len(items)
        try:
            pixels = source.read(items).as_lists().pixels
        except DataError:  # none of them can be read
            return items[:0], torch.zeros(0, 1)
        readable = np.array([source.item_name(item) not in source.skipped for item in items.tolist()], bool)
        features = [self.of(one) for one, there in zip(pixels, readable, strict=True) if there]
        return items[readable], torch.stack(features)


@pytest.fixture
def places(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for number in range(12):
        path = folder / f"{number:02d}.png"
        scene(number).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Place(digest, "folder", str(folder), path.name, -1, path.stat().st_size))
    return found


def expected(numbers) -> torch.Tensor:
    rows = torch.stack([MeanColors().of(np.asarray(scene(number))) for number in numbers])
    return rows / rows.norm(dim=1, keepdim=True)


def extracted(folder, network, places, extract) -> FeatureStore:
    store = FeatureStore(folder, network)
    store.extract(iter(places), len(places), extract, lambda done, total: None)
    return store


def digests(places) -> list[str]:
    return [place.sha256 for place in places]


def test_features_are_found_by_digest_in_any_order(tmp_path, places):
    store = extracted(tmp_path, "net", places, MeanColors())
    assert len(store) == 12
    wanted = [places[7].sha256, None, "0" * 64, places[2].sha256, places[7].sha256]
    found = store.of(wanted)
    assert (found.images.tolist(), found.values.dtype) == ([0, 3, 4], torch.float32)
    torch.testing.assert_close(found.values.double(), expected([7, 2, 7]), atol=1e-3, rtol=0)
    again = FeatureStore(tmp_path, "net").of(wanted)
    assert torch.equal(found.values, again.values)
    nothing = store.of([None, "0" * 64])
    assert (len(nothing.images), len(nothing.values)) == (0, 0)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_very_large_and_small_features_keep_their_direction(tmp_path, places, scale):
    found = extracted(tmp_path, "net", places, MeanColors(scale)).of(digests(places))
    torch.testing.assert_close(found.values.double(), expected(range(12)), atol=1e-3, rtol=0)


def test_no_image_is_extracted_twice(tmp_path, places):
    first = MeanColors()
    extracted(tmp_path, "net", [*places[:5], *places[:5]], first)  # files with the same bytes
    assert first.seen == 5
    second = MeanColors()
    store = extracted(tmp_path, "net", places, second)
    assert (second.seen, len(store)) == (7, 12)
    third = MeanColors()
    extracted(tmp_path, "net", places, third)
    assert third.seen == 0
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_another_network_is_extracted_again(tmp_path, places):
    extracted(tmp_path, "net, weights 1", places, MeanColors())
    other = MeanColors(-1.0)
    store = extracted(tmp_path, "net, weights 2", places, other)
    assert other.seen == 12
    torch.testing.assert_close(store.of(digests(places)).values.double(), -expected(range(12)), atol=1e-3, rtol=0)
    back = MeanColors()
    assert len(extracted(tmp_path, "net, weights 1", places, back)) == 12
    assert back.seen == 0


def test_a_kill_loses_the_part_that_was_being_extracted(tmp_path, places, monkeypatch):
    monkeypatch.setattr(feature_store, "AT_ONCE", 5)
    told = []

    def killed(source, items):
        if len(told) == 1:
            raise KeyboardInterrupt
        return MeanColors()(source, items)

    store = FeatureStore(tmp_path, "net")
    with pytest.raises(KeyboardInterrupt):
        store.extract(iter(places), 12, killed, lambda done, total: told.append((done, total)))
    assert told == [(5, 12)]
    (tmp_path / "features" / ".partial_01234567_part-000001.safetensors").write_bytes(b"cut off")
    rest = MeanColors()
    store = FeatureStore(tmp_path, "net")
    assert len(store) == 5
    store.extract(iter(places), 12, rest, lambda done, total: told.append((done, total)))
    assert rest.seen == 7
    assert told[1:] == [(10, 12), (12, 12)]
    torch.testing.assert_close(store.of(digests(places)).values.double(), expected(range(12)), atol=1e-3, rtol=0)


def test_damaged_and_foreign_parts_are_extracted_again(tmp_path, places):
    folder = tmp_path / "features"
    extracted(tmp_path, "net", places, MeanColors())
    part = folder / "part-000000.safetensors"
    whole, tensors = part.read_bytes(), load_file(part)
    part.write_bytes(whole[: len(whole) // 2])
    (folder / "part-000001.safetensors").write_bytes(b"")
    about = {"network": "net"}
    save_file({"sha256": tensors["sha256"]}, folder / "part-000002.safetensors", about)
    save_file(tensors | {"sha256": tensors["sha256"][:4]}, folder / "part-000003.safetensors", about)
    save_file(tensors | {"features": tensors["features"][:, 0]}, folder / "part-000004.safetensors", about)
    save_file(tensors | {"sha256": tensors["sha256"].astype(np.int64)}, folder / "part-000005.safetensors", about)
    save_file(tensors, folder / "part-000006.safetensors")
    (folder / "part-new.safetensors").write_bytes(whole)
    again = MeanColors()
    store = extracted(tmp_path, "net", places, again)
    assert (again.seen, len(store)) == (12, 12)
    assert (folder / "part-000007.safetensors").exists()  # none is overwritten
    assert part.read_bytes() == whole[: len(whole) // 2]


def test_images_that_cannot_be_read_have_no_features(tmp_path, places):
    (tmp_path / "images" / "03.png").unlink()
    (tmp_path / "images" / "04.png").write_bytes(b"\x89PNG")
    store = extracted(tmp_path, "net", places, MeanColors())
    assert store.of(digests(places)).images.tolist() == [0, 1, 2, *range(5, 12)]
    later = MeanColors()
    extracted(tmp_path, "net", places, later)  # they are tried again
    assert later.seen == 2
    assert len(list((tmp_path / "features").iterdir())) == 1  # without a part of nothing


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_an_error_that_names_the_image(tmp_path, places, bad):
    def broken(source, items):
        kept, features = MeanColors()(source, items)
        features[4, 2] = bad
        return kept, features

    with pytest.raises(CurationError, match=r"net: the features of 04.png contain NaN or infinity"):
        extracted(tmp_path, "net", places, broken)
    assert len(FeatureStore(tmp_path, "net")) == 0


def test_a_curation_extracts_features_of_what_passed_once(tmp_path, places):
    scene(0, (20, 15)).save(tmp_path / "images" / "tiny.png")
    scene(3).crop((2, 2, 62, 46)).save(tmp_path / "images" / "crop.png")
    network = MeanColors()
    tools = Tools(network="net", extract=network)
    similar = Policy(features=Features(backbone="net"), similar=Similar(action="reject", similarity=0.9))
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", similar, tools=tools)
    assert network.seen == 13
    reasons = {
        row["path"]: [(one["rule"], one["detail"]) for one in row["reasons"]]
        for row in found.manifest.table(["path", "reasons"]).to_pylist()
        if row["reasons"]
    }
    assert reasons == {"tiny.png": [("tiny", "20 x 15 pixels")], "crop.png": [("similar", "like 03.png")]}
    assert "features: net" in found.manifest.info.checked
    balance = Policy(features=Features(backbone="net"), selection=Selection(clusters=(4, 2), balance=6))
    again = decide_again(tmp_path / "c", balance, tools=tools)
    assert network.seen == 13
    assert again.manifest.info.counts["keep"] == 6
    clusters = again.manifest.table(["path", "cluster"]).to_pylist()
    assert {row["cluster"] for row in clusters if row["path"] not in ("tiny.png", "crop.png")} == {0, 1, 2, 3}
    assert [row["cluster"] for row in clusters if row["path"] == "tiny.png"] == [-1]
