"""Data sets as their authors publish them, in small: the folders and files that `folder:` and the sets of torchvision read."""

import bz2
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.torchvision_sets import TORCHVISION_SETS
from wildfern.ssl.tracking import Progress
from wildfern.ssl.tracking.current_progress import shown_by


def image(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (red, 0, 0)).save(path, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")


def reds(source) -> list[int]:
    """The first value of each image, which JPEG may change by one."""
    return [int(pixels[0, 0, 0]) for pixels in source.read(np.arange(source.num_items)).pixels]


def close(found: list[int], expected: list[int]) -> bool:
    return len(found) == len(expected) and bool(np.abs(np.subtract(found, expected)).max() <= 1)


def labeled(source) -> list[str]:
    """The class of each image by its name."""
    return [source.class_names[label] for label in source.read(np.arange(source.num_items)).labels]


def opened(name: str, root: Path, **arguments):
    arguments |= {"labels": "folders"} if name.startswith("folder:") else {"root": str(root)}
    return [open_source(name, split, **arguments) for split in ("train", "test")]


def test_imagenet(tmp_path):
    for number, wnid in enumerate(("n01440764", "n01443537")):
        image(tmp_path / f"train/{wnid}/{wnid}_10026.JPEG", 10 + number)
        image(tmp_path / f"train/{wnid}/{wnid}_10027.JPEG", 20 + number)
        image(tmp_path / f"val/{wnid}/ILSVRC2012_val_0000029{number}.JPEG", 30 + number)
    train, test = opened(f"folder:{tmp_path}", tmp_path)
    assert labeled(train) == ["n01440764", "n01440764", "n01443537", "n01443537"]
    assert labeled(test) == ["n01440764", "n01443537"]
    assert close(reds(train), [10, 20, 11, 21])
    assert close(reds(test), [30, 31])
    assert (train.split_words, test.split_words) == ("folder train", "folder val")


def test_the_validation_images_of_imagenet_need_their_folders(tmp_path):
    image(tmp_path / "train/n01440764/n01440764_10026.JPEG", 1)
    image(tmp_path / "val/ILSVRC2012_val_00000001.JPEG", 2)
    with pytest.raises(DataError, match=r"no image under .*val is in a folder of a class"):
        open_source(f"folder:{tmp_path}", "test", labels="folders")


def eurosat(root):
    for number, name in enumerate(("AnnualCrop", "Forest", "SeaLake")):
        for count in range(1, 21):
            image(root / f"2750/{name}/{name}_{count}.jpg", 60 * number + count)
    return root


def test_eurosat_as_a_folder(tmp_path):
    train, test = opened(f"folder:{eurosat(tmp_path)}/2750", tmp_path, test_fraction=0.2)
    assert train.num_items + test.num_items == 60
    assert train.class_names == test.class_names == ["AnnualCrop", "Forest", "SeaLake"]
    for part in (train, test):
        assert close([red // 60 for red in reds(part)], part.labels.tolist())
    with pytest.raises(DataError, match=rf"give folder:{tmp_path}/2750"):
        open_source(f"folder:{tmp_path}", labels="folders")


def test_resisc45_as_a_folder(tmp_path):
    for number, name in enumerate(("airplane", "wetland")):
        for count in range(1, 31):
            image(tmp_path / f"NWPU-RESISC45/{name}/{name}_{count:03}.jpg", 100 * number)
    train, test = opened(f"folder:{tmp_path}/NWPU-RESISC45", tmp_path, test_fraction=0.2)
    assert {*labeled(train)} == {*labeled(test)} == {"airplane", "wetland"}


def test_eurosat_of_torchvision(tmp_path):
    eurosat(tmp_path / "eurosat")
    train, test = opened("eurosat", tmp_path)
    assert np.bincount(train.labels).tolist() == [14, 14, 14]
    assert np.bincount(test.labels).tolist() == [6, 6, 6]
    assert train.class_names == ["AnnualCrop", "Forest", "SeaLake"]
    assert test.split_words == "30 % of the images of each class"


def test_dtd_of_torchvision(tmp_path):
    root = tmp_path / "dtd/dtd"
    lists = {"train1": ["banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg"], "val1": ["banded/banded_0005.jpg"]}
    lists |= {"test1": ["zigzagged/zigzagged_0009.jpg"], "test2": ["banded/banded_0002.jpg"]}
    (root / "labels").mkdir(parents=True)
    for part, names in lists.items():
        (root / f"labels/{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image(root / "images" / name, int(name[-8:-4]) * 10)
    # torchvision numbers the classes of each part on its own; the real parts have all 47.
    train, test = opened("dtd", tmp_path)
    assert close(reds(train), [20, 10, 50])
    assert labeled(train) == ["banded", "zigzagged", "banded"]
    assert close(reds(test), [90])


def test_clevr_of_torchvision(tmp_path):
    root = tmp_path / "clevr/CLEVR_v1.0"
    for part, counts in (("train", [3, 10, 4]), ("val", [5, 3])):
        scenes = []
        for number, count in enumerate(counts):
            image(root / f"images/{part}/CLEVR_{part}_{number:06}.png", count)
            scenes.append({"image_filename": f"CLEVR_{part}_{number:06}.png", "objects": [{}] * count})
        (root / "scenes").mkdir(exist_ok=True)
        (root / f"scenes/CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    train, test = opened("clevr", tmp_path)
    assert (labeled(train), labeled(test)) == (["3", "10", "4"], ["5", "3"])
    assert reds(train) == [3, 10, 4]


def test_country211_of_torchvision(tmp_path):
    for part, red in (("train", 10), ("valid", 20), ("test", 30)):
        for number, country in enumerate(("AD", "ZW")):
            image(tmp_path / f"country211/{part}/{country}/{part}.jpg", red + number)
    train, test = opened("country211", tmp_path)
    assert close(reds(train), [10, 11, 20, 21])
    assert close(reds(test), [30, 31])
    assert (labeled(train), labeled(test)) == (["AD", "ZW"] * 2, ["AD", "ZW"])


def test_rendered_sst2_of_torchvision(tmp_path):
    for part, red in (("train", 10), ("valid", 20), ("test", 30)):
        for number, sentiment in enumerate(("negative", "positive")):
            image(tmp_path / f"rendered-sst2/{part}/{sentiment}/{part}.png", red + number)
    train, test = opened("rendered_sst2", tmp_path)
    assert (reds(train), reds(test)) == ([10, 11, 20, 21], [30, 31])
    assert (labeled(train), labeled(test)) == (["negative", "positive"] * 2, ["negative", "positive"])


def sun397(root: Path) -> Path:
    classes = ("abbey", "bakery/shop")
    for number, name in enumerate(classes):
        for count in range(20):
            image(root / f"SUN397/{name[0]}/{name}/sun_a{count:02}.jpg", 100 * number + count)
    (root / "SUN397/ClassName.txt").write_text("".join(f"/{name[0]}/{name}\n" for name in classes))
    return root


def test_sun397_of_torchvision_has_one_order_on_each_disk(tmp_path, monkeypatch):
    train, test = opened("sun397", sun397(tmp_path))
    assert sorted([*reds(train), *reds(test)])[-1] >= 118
    assert np.bincount(test.labels).tolist() == [6, 6]
    assert {*labeled(train)} == {"abbey", "bakery/shop"}
    assert close([red // 100 for red in reds(train)], train.labels.tolist())
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: sorted(listed(path, pattern), reverse=True))
    again = opened("sun397", tmp_path)
    assert [reds(part) for part in again] == [reds(train), reds(test)]
    assert again[1].labels.tolist() == test.labels.tolist()


def test_usps_of_torchvision(tmp_path):
    for file, digits in (("usps.bz2", [5, 1]), ("usps.t.bz2", [10])):
        pixels = " ".join(f"{place}:{-1.0 if place > 1 else 1.0}" for place in range(1, 257))
        (tmp_path / file).write_bytes(bz2.compress("".join(f"{digit} {pixels}\n" for digit in digits).encode()))
    train, test = opened("usps", tmp_path)
    assert (labeled(train), labeled(test)[0], reds(test)) == (["4", "0"], "9", [255])
    assert train.read([0]).pixels.shape == (1, 16, 16, 3)


def test_cifar100_of_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part, labels in (("train", [7, 0, 7]), ("test", [3])):
        rows = np.stack([np.r_[np.full(1024, 10 * label), np.zeros(2048)] for label in labels]).astype(np.uint8)
        (folder / part).write_bytes(pickle.dumps({"data": rows, "fine_labels": labels, "coarse_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list("abcdefgh")}))
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda part: True)  # of the published bytes
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *file: True)
    train, test = opened("cifar100", tmp_path)
    assert (labeled(train), labeled(test), reds(train), reds(test)) == (["h", "a", "h"], ["d"], [70, 0, 70], [30])


def test_svhn_of_torchvision(tmp_path, monkeypatch):
    import scipy.io
    import torchvision.datasets

    for part, digits in (("train", [1, 10]), ("test", [5, 2])):  # 10 is the digit 0
        pixels = np.zeros((32, 32, 3, len(digits)), np.uint8)
        pixels[..., 0, :] = digits
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.array(digits)[:, None]})
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda part: True)
    train, test = opened("svhn", tmp_path)
    assert (labeled(train), labeled(test), reds(train)) == (["1", "0"], ["5", "2"], [1, 10])


def test_flowers102_of_torchvision(tmp_path, monkeypatch):
    import scipy.io
    import torchvision.datasets

    root = tmp_path / "flowers-102"
    for number in range(1, 5):
        image(root / f"jpg/image_{number:05}.jpg", 10 * number)
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([[1, 102, 1, 102]])})
    scipy.io.savemat(root / "setid.mat", {"trnid": [[3, 2]], "valid": [[1, 2]], "tstid": [[4, 1]]})
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda part: True)
    train, test = opened("flowers102", tmp_path)
    assert close(reds(train), [30, 20, 10, 20])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 101, 0, 101], [101, 0])


def test_oxford_pets_of_torchvision(tmp_path):
    root = tmp_path / "oxford-iiit-pet"
    rows = {
        "trainval": [("Abyssinian_1", 1, 1), ("beagle_7", 2, 2)],
        "test": [("Abyssinian_2", 1, 1), ("beagle_9", 2, 2)],
    }
    (root / "annotations").mkdir(parents=True)
    for part, images in rows.items():
        (root / f"annotations/{part}.txt").write_text("".join(f"{name} {a} {b} 1\n" for name, a, b in images))
        for name, *_ in images:
            image(root / f"images/{name}.jpg", 10 * int(name[-1]))
    train, test = opened("oxford_pets", tmp_path)
    assert (labeled(train), labeled(test)) == (["Abyssinian", "Beagle"], ["Abyssinian", "Beagle"])
    assert close(reds(test), [20, 90])


def test_caltech101_of_torchvision(tmp_path):
    root = tmp_path / "caltech101"
    for number, name in enumerate(("BACKGROUND_Google", "accordion", "anchor")):
        for count in range(1, 11):
            image(root / f"101_ObjectCategories/{name}/image_{count:04}.jpg", 50 * number)
    for name in ("accordion", "anchor"):
        (root / f"Annotations/{name}").mkdir(parents=True)
    train, test = opened("caltech101", tmp_path)
    assert {*labeled(train)} == {*labeled(test)} == {"accordion", "anchor"}
    assert (train.num_items, test.num_items) == (14, 6)
    assert close([red // 50 - 1 for red in reds(train)], train.labels.tolist())


def test_the_size_is_told_before_a_download(tmp_path, monkeypatch):
    events = []

    class Made:
        classes, targets = ["a", "b"], [0, 1]

        def __init__(self, root, download, train):
            events.append("download" if download else "look")
            if not download and not events.count("download"):
                raise RuntimeError("not there")

        def __len__(self):
            return 2

    module = SimpleNamespace(CIFAR10=Made)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=module))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    with pytest.raises(DataError, match=r"set download=true to fetch it \(about 170 MB\), or root to its folder"):
        open_source("cifar10", root=str(tmp_path))
    progress = Progress(lambda text: None, every=0.0)
    monkeypatch.setattr(progress, "detail", events.append)
    with shown_by(progress):
        assert open_source("cifar10", root=str(tmp_path), download=True).num_items == 2
        open_source("cifar10", root=str(tmp_path), download=True)
    assert events == ["look", "look", "downloading cifar10, about 170 MB", "download", "look"]


def test_sizes_are_in_words():
    assert TORCHVISION_SETS["mnist"].size == "about 12 MB"
    assert TORCHVISION_SETS["sun397"].size == "about 39.0 GB"
