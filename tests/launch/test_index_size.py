"""The formulas of the sizes of indexes, against the indexes of small sets."""

import tarfile

import pytest

from wildfern.launch.index_size import folder_index_bytes, shard_index_bytes
from wildfern.ssl.data.folder_selection import Choice, _selected
from wildfern.ssl.data.folder_walk import walk_folder
from wildfern.ssl.data.shard_table import shard_table
from wildfern.ssl.data.split_folders import SplitFolder
from wildfern.ssl.data.steady_file import SteadyFile

FEW, MANY = 10, 60


def bytes_of_folder(folder, images):
    """Bytes of the arrays of an index, and of a path."""
    (folder / "class").mkdir(parents=True)
    for number in range(images):
        (folder / "class" / f"{number:07}.jpg").write_bytes(b"x")
    walk = walk_folder(str(folder))
    arrays = walk.arrays | _selected(walk, Choice(SplitFolder(folder), None, None, None))
    return sum(array.nbytes for array in arrays.values()), len(walk.names[0])


def bytes_of_shard(path, images):
    """Bytes of the arrays of an index, and of a name."""
    with tarfile.open(path, "w") as file:
        for number in range(images):
            file.addfile(tarfile.TarInfo(f"{number:07}.jpg"))
    table = shard_table([SteadyFile.of(path)], None)
    return sum(array.nbytes for array in vars(table).values()), len(table.name(0))


@pytest.mark.parametrize(
    ("measure", "formula"), [(bytes_of_folder, folder_index_bytes), (bytes_of_shard, shard_index_bytes)]
)
def test_the_formula_gives_the_bytes_of_further_images(measure, formula, tmp_path):
    (few, length), (many, _) = (measure(tmp_path / f"{images}.tar", images) for images in (FEW, MANY))
    assert formula(MANY - FEW, length) == many - few


def test_numbers_of_more_than_two_billion_images_have_64_bits():
    assert folder_index_bytes(2**31) - folder_index_bytes(2**31 - 1) == 60 + 4 * 2**31
