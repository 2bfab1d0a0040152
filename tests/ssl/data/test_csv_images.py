"""Tables of images: real formats of WILDS in small, splits, groups, labels, and tables that are damaged or hostile."""

import csv
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wildfern.ssl.data.csv_images  # noqa: F401  (registers the source)
from wildfern.ssl.data import DataError, csv_table, open_source
from wildfern.ssl.data.csv_faults import first_fault
from wildfern.ssl.data.fingerprint import fingerprint

# The first lines of waterbird_complete95_forest2water2/metadata.csv have these columns.
WATERBIRDS = """img_id,img_filename,y,split,place,place_filename
1,001.Albatross/a.png,1,0,1,/o/ocean/1.jpg
2,001.Albatross/b.png,1,0,0,/b/bamboo_forest/2.jpg
3,002.Cardinal/c.png,0,1,0,/b/bamboo_forest/3.jpg
4,002.Cardinal/d.png,0,2,1,/o/ocean/4.jpg
5,001.Albatross/e.png,1,2,0,/b/bamboo_forest/5.jpg
6,002.Cardinal/f.png,0,2,,/b/bamboo_forest/6.jpg
"""
IWILDCAM = """,split,location_remapped,location,sequence_remapped,datetime,y,filename
0,train,10,300,7,2013-06-05 05:44:19,0,a.png
1,id_test,10,300,7,2013-06-05 05:44:20,36,b.png
2,val,9,301,8,2013-06-05 05:44:20,7,c.png
3,test,2,302,9,2013-06-05 05:44:21,36,d.png
4,test,2,302,9,2013-06-05 05:44:22,7,e.png
"""


def table(root: Path, text: str, folder: str = "", name: str = "metadata.csv") -> Path:
    """A table, and for each name of a .png in it an image; the first pixel of the n-th is n."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    files = (cell for line in text.splitlines() for cell in line.split(",") if cell.endswith(".png"))
    for color, file in enumerate(files):
        path = root / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (color, 0, 0)).save(path)
    return root


def reds(source) -> list[int]:
    return [int(p[0, 0, 0]) for p in source.read(np.arange(source.num_items)).pixels]


def groups(source) -> dict[str, list[str | None]]:
    return {g.name: [g.names[code] if code >= 0 else None for code in g.codes] for g in source.groups}


def test_waterbirds(tmp_path):
    root = table(tmp_path, WATERBIRDS)
    train = open_source(f"csv:{root}", "train", groups=("place",))
    test = open_source(f"csv:{root}", "test", groups=("place", ("y", "place")))
    assert (reds(train), train.labels.tolist(), train.class_names, train.split_words) == (
        [0, 1],
        [1, 1],
        ["0", "1"],
        "split 0",
    )
    assert (reds(test), test.read([0, 1]).labels.tolist(), test.split_words) == ([3, 4, 5], [0, 1], "split 2")
    assert groups(train) == {"place": ["1", "0"]}
    assert groups(test) == {"place": ["1", "0", None], "y × place": ["y 0, place 1", "y 1, place 0", None]}
    assert test.notes == [f"{root}/metadata.csv: rows of other splits, which are left out: 1 (1)"]
    assert test.item_name(0) == str(root / "002.Cardinal/d.png")
    assert [file.name for file in test.files()] == ["002.Cardinal/d.png", "001.Albatross/e.png", "002.Cardinal/f.png"]
    assert fingerprint(test.files()).bytes == sum(os.path.getsize(file.path) for file in test.files())


def test_iwildcam(tmp_path):
    root = table(tmp_path, IWILDCAM, "train")
    arguments = {"image_column": "train/{filename}", "groups": ("location_remapped",)}
    train, test = (open_source(f"csv:{root}", split, **arguments) for split in ("train", "test"))
    same_cameras = open_source(f"csv:{root}", "test", test=("id_test",), **arguments)
    assert (reds(train), reds(test), reds(same_cameras)) == ([0], [3, 4], [1])
    # Classes are those of the whole table, so they have one number in all of its splits.
    assert train.class_names == test.class_names == ["0", "7", "36"]
    assert (test.labels.tolist(), same_cameras.labels.tolist()) == ([2, 1], [2])
    assert groups(test) == {"location_remapped": ["2", "2"]}
    assert test.notes == [f"{root}/metadata.csv: rows of other splits, which are left out: id_test (1), val (1)"]


def test_a_name_may_be_made_of_several_columns_and_a_split_of_another_column(tmp_path):
    """As for Camelyon17, whose hospitals are the domains."""
    lines = [
        f"{row},{patient:03},{node},{row},tumor{row % 2},{row % 3}"
        for row, (patient, node) in enumerate([(4, 4), (17, 0), (20, 1)])
    ]
    for row, (patient, node) in enumerate([(4, 4), (17, 0), (20, 1)]):
        path = tmp_path / f"patches/patient_{patient:03}_node_{node}/x_{row}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (row, 0, 0)).save(path)
    (tmp_path / "metadata.csv").write_text("\n".join([",patient,node,x_coord,tumor,center", *lines]))
    arguments = {
        "image_column": "patches/patient_{patient}_node_{node}/x_{x_coord}.png",
        "label_column": "tumor",
        "split_column": "center",
        "train": (0, "1"),
        "test": (2,),
    }
    train, test = (open_source(f"csv:{tmp_path}", split, **arguments) for split in ("train", "test"))
    assert (reds(train), train.labels.tolist(), train.class_names) == ([0, 1], [0, 1], ["tumor0", "tumor1"])
    assert (reds(test), test.labels.tolist(), test.split_words) == ([2], [0], "center 2")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_another_program(tmp_path, delimiter):
    """BOM, CRLF, quotation marks, spaces, an empty line, labels written as floats."""
    text = '\ufefffile_name,y,who\r\n"a b.png" , 3.0,"Ø, ""x""\nz"\r\n\r\nc.png,1.0,\r\n'
    (tmp_path / "my.csv").write_bytes(text.replace(",", delimiter).encode())
    for color, name in enumerate(["a b.png", "c.png"]):
        Image.new("RGB", (4, 4), (color, 0, 0)).save(tmp_path / name)
    source = open_source(f"csv:{tmp_path / 'my.csv'}", groups=("who",))
    assert (reds(source), source.labels.tolist(), source.class_names) == ([0, 1], [1, 0], ["1", "3"])
    assert groups(source) == {"who": [f'Ø{delimiter} "x"\nz', None]}


def test_labels_may_be_missing(tmp_path):
    root = table(tmp_path, "filename,y\na.png,fern\nb.png,\nc.png,12\n")
    source = open_source(f"csv:{root}")
    assert (source.labels.tolist(), source.class_names) == ([1, -1, 0], ["12", "fern"])
    assert source.notes == [f"{root}/metadata.csv: column y: empty or -1, so without a label: 1 of 3 images"]
    assert open_source(f"csv:{root}", label_column=None).labels is None
    table(root, "filename,class\na.png,fern\n")
    source = open_source(f"csv:{root}")
    assert source.read([0]).labels is None
    with pytest.raises(DataError, match="column y does not exist; label_column could be class"):
        _ = source.labels


def test_without_a_split_column_a_share_is_held_out(tmp_path):
    root = table(tmp_path, "filename\n" + "".join(f"{n}.png\n" for n in range(40)))
    assert open_source(f"csv:{root}").num_items == 40
    train, test = (open_source(f"csv:{root}", split, test_fraction=0.3) for split in ("train", "test"))
    assert sorted(reds(train) + reds(test)) == list(range(40))
    assert 5 < test.num_items < 20
    with pytest.raises(DataError, match="no column 'split', and so no test split: set split_column, or test_fraction"):
        open_source(f"csv:{root}", "test")
    table(root, WATERBIRDS)  # a column goes before a share
    assert reds(open_source(f"csv:{root}", "test", test_fraction=0.3)) == [3, 4, 5]


@pytest.mark.parametrize("check_headers", [True, False])
def test_unusable_images_are_left_out_or_replaced_and_their_groups_are_unknown(tmp_path, check_headers):
    root = table(tmp_path / "set", "filename,y,place\n" + "".join(f"{n}.png,{n % 2},{n % 3}\n" for n in range(12)))
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (root / "1.png").unlink()
    (root / "2.png").write_text("no image")
    (root / "3.png").unlink()
    (root / "3.png").symlink_to(tmp_path / "outside.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(root / "4.png")
    data = (root / "4.png").read_bytes()
    (root / "4.png").write_bytes(data[: len(data) // 2])
    with open(root / "metadata.csv", "a") as file:
        file.write(f"../outside.png,0,0\n{tmp_path}/outside.png,0,0\n.,0,0\n,0,0\n")
    source = open_source(f"csv:{root}", groups=("place",), check_headers=check_headers)
    assert source.num_items == (9 if check_headers else 10)
    assert (source.groups[0].codes >= 0).all()
    assert set(reds(source)) == {0, 5, 6, 7, 8, 9, 10, 11}
    reasons = {os.path.relpath(name, root): reason for name, reason in source.skipped.items()}
    assert reasons["1.png"] == f"there is no file {root}/1.png"
    assert "not an image" in reasons["2.png"]
    assert "which is not below" in reasons["3.png"]
    assert "image_folder allows another folder" in reasons["../outside.png"]
    assert "not a regular file" in reasons["."]
    names = [Path(source.item_name(item)).name for item in range(source.num_items)]
    unreadable = {"4.png"} if check_headers else {"2.png", "4.png"}
    assert {name for name, code in zip(names, source.groups[0].codes, strict=True) if code < 0} == unreadable
    elsewhere = open_source(f"csv:{root}", image_folder=str(tmp_path), image_column="set/{filename}")
    assert "set/3.png" in {os.path.relpath(elsewhere.item_name(item), tmp_path) for item in range(elsewhere.num_items)}


REFUSED = {
    "no table": ({"csv": "other.csv"}, r"has no table other\.csv; set csv to metadata\.csv"),
    "column": ({"label_column": "Y"}, r"has no column 'Y' \(label_column\); set label_column to 'y'\?"),
    "group": ({"groups": ("plcae",)}, r"has no column 'plcae' \(groups\); set groups to 'place'\?"),
    "crossed group": (
        {"groups": (("y", "camera"),)},
        r"'camera' \(groups\); it has img_id, img_filename, y, split, place",
    ),
    "image": ({"image_column": "x/{filename}"}, r"'filename' \(image_column\); set image_column to 'img_filename'\?"),
    "split column": ({"split_column": "center"}, r"'center' \(split_column\)"),
    "split": (
        {"train": ("training",)},
        r"no row has training in column 'split', which has 0 \(2\), 1 \(1\), 2 \(3\): set train",
    ),
    "both": ({"train": ("0", 2)}, "2 is in train and in test"),
    "share": ({"test_fraction": 1.0}, r"test_fraction must be in \[0, 1\)"),
    "folder": ({"image_folder": "/"}, r"none of the 2 images of train can be used; for example '001.Albatross/a.png'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_in_words(tmp_path, case):
    arguments, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        open_source(f"csv:{table(tmp_path, WATERBIRDS)}", **arguments)


DAMAGED = {
    "empty": ("", "needs a first line with names of columns"),
    "header alone": ("filename,y\n", "no rows below its first line"),
    "names twice": ("filename,y,y\na.png,1,2\n", "two columns 'y'"),
    "cells": ("filename,y\na.png,1\nb.png\n", "line 3 has 1 cell, but the first line names 2"),
    "not UTF-8": ("filename,y\na.png,\xe9\n", "UTF8|UTF-8|utf-8"),
    "header not UTF-8": ("filename,\xe9\na.png,1\n", "is not UTF-8"),
    "long name": ("filename," + 2**18 * "x" + "\na.png,1\n", "line 1: field larger than field limit"),
    "quotation": ('filename,y\n"a.png,1\n', "Row #2|quot|columns"),
    "other columns": ("name,y\na.png,1\n", "set image_column to the column with the file names; it has name, y"),
    "Split": ("filename,Split\na.png,test\n", "has no column 'split'.*set split_column to 'Split'"),
    "label": ("filename,y\na.png,-2\n", "a label is -2"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_table_is_refused_in_words(tmp_path, case):
    text, message = DAMAGED[case]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        _ = open_source(f"csv:{tmp_path}").labels


def test_a_table_has_limits(tmp_path, monkeypatch):
    table(tmp_path, "filename,y\na.png," + 2**21 * "x" + "\n")
    with pytest.raises(DataError, match="cannot be read"):
        open_source(f"csv:{tmp_path}")
    monkeypatch.setattr(csv_table, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        open_source(f"csv:{tmp_path}")
    os.remove(tmp_path / "metadata.csv")
    os.mkfifo(tmp_path / "metadata.csv")
    with pytest.raises(DataError, match="not a regular file"):
        open_source(f"csv:{tmp_path}")


def test_a_copy_reads_the_same(tmp_path):
    source = open_source(f"csv:{table(tmp_path, WATERBIRDS)}", "test", groups=("place",))
    copy = pickle.loads(pickle.dumps(source))
    assert (reds(copy), copy.labels.tolist(), groups(copy)) == (reds(source), source.labels.tolist(), groups(source))


def test_words_for_missing_are_names_among_names_and_refused_among_numbers(tmp_path):
    root = table(tmp_path, "filename,y\na.png,nan\nb.png,NA\nc.png,null\nd.png,None\ne.png,\nf.png,fern\n")
    source = open_source(f"csv:{root}")
    assert source.labels.tolist() == [3, 0, 4, 1, -1, 2]
    assert source.class_names == ["NA", "None", "fern", "nan", "null"]
    assert source.notes == [
        f"{root}/metadata.csv: column y: {words}"
        for words in (
            "NA, None, nan, null: taken as a name of a class; an image without a label has an empty cell",
            "empty or -1, so without a label: 1 of 6 images",
        )
    ]
    for text in ("nan", "NaN", "NA", "null", "None"):
        table(root, f"filename,y\na.png,1\nb.png,{text}\nc.png,2.0\n")
        with pytest.raises(DataError, match=f"column y: '{text}' is among whole numbers: empty the cell of an image"):
            _ = open_source(f"csv:{root}").labels
    table(root, "filename,y\na.png,NA\nb.png,NA\n")  # the label of all
    assert open_source(f"csv:{root}").class_names == ["NA"]


@pytest.mark.parametrize(
    "template", ["{filename", "filename}", "{filename}}", "{", "}", "x{/{filename}", "{{filename}}"]
)
def test_a_brace_needs_its_other_one(tmp_path, template):
    root = table(tmp_path, "filename\na.png\n")
    with pytest.raises(DataError, match=rf"image_column '{re.escape(template)}' has a brace without its other one"):
        open_source(f"csv:{root}", image_column=template)


FAULTS = {
    "long cell": (
        "a.png,1\n\nb.png," + 2**21 * "x" + "\n",
        r"line 4 has a row of more than 1,048,576 bytes.*: shorten",
    ),
    "open quotation": (
        "a.png,1\n" + 'b.png,"2\n' + 2**18 * "c.png\n",
        "line 3 has a row.*: close its quotation mark, or",
    ),
    "many empty lines": ('a.png,"2\n' + 2**20 * "\n", "line 2 has a row of more than 1,048,576 bytes"),
    "swallowed rows": (
        'a.png,1\nb.png,"2\nc.png,3\n',
        "line 3 has a quotation mark that is not closed: close it, or double it",
    ),
    "short": ("a.png,1\n\nb.png\n", "line 4 has 1 cell, but the first line names 2 columns: a row has"),
    "long": ('a.png,"1,\n""2"""\nb.png,5" disk,3\n', "line 4 has 3 cells, but the first line names 2 columns"),
    "Latin-1": ("a.png,1\nb.png,\xe9\n", "line 3 is not UTF-8: save the table as CSV in UTF-8"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_with_its_line(tmp_path, case):
    rows, message = FAULTS[case]
    (tmp_path / "metadata.csv").write_bytes(("filename,y\n" + rows).encode("latin-1"))
    with pytest.raises(DataError, match=rf"metadata\.csv cannot be read: {message}"):
        open_source(f"csv:{tmp_path}")


def test_the_line_of_a_fault_is_that_of_the_csv_module():
    rng = np.random.default_rng(0)
    pieces = ["a", '"b,\n"', '"c""d"', 'e"f', "", '"g"h']
    for _ in range(200):
        rows = [[pieces[n] for n in rng.integers(len(pieces), size=rng.choice([2, 2, 2, 2, 3]))] for _ in range(6)]
        rows = [["a", *row[1:]] for row in rows]
        text = "x,y\n" + "".join(",".join(row) + "\n" for row in rows)
        reader, begun, expected = csv.reader(io.StringIO(text)), 0, None
        for row in reader:
            if len(row) != 2 and expected is None:
                expected = begun + 1
            begun = reader.line_num
        found = first_fault(io.BytesIO(text.encode()), ",", 2, 1000)
        assert (found or "").startswith("" if expected is None else f"line {expected} has 3 cells"), (text, found)
        assert (found is None) == (expected is None)
    assert first_fault(io.BytesIO(b'x,y\n"a,b\n'), ",", 2, 1000).startswith("line 2 has a quotation mark that is not")


def test_old_line_ends_are_refused_in_words(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"filename,y,split\r0.png,1,train\r")
    with pytest.raises(DataError, match="lines that end with CR alone: save it with line ends LF or CRLF"):
        open_source(f"csv:{tmp_path}", "train")
