"""Scores in a notebook and in a plain shell."""

import io
import re
from html import unescape

from rich.console import Console

from wildfern.ssl.evaluation import EvaluationResult

ROW = {"metric": "accuracy", "n": 50, "share": True, "detail": "", "low": 0.5, "high": 0.75}


def result(backbones=("random", "pretrained"), dataset="digits", **more):
    rows = [
        {**ROW, "dataset": dataset, "protocol": "knn", "backbone": name, "value": 0.25 * (number + 1)}
        for number, name in enumerate(backbones)
    ]
    rows[-1] |= {"train_images": 1258, "test_images": 539, "train_split": "", "test_split": "folder valid"}
    return EvaluationResult(tuple(rows), {"knn": "nearest neighbors"}, **more)


def html_cells(html):
    lines = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)] for line in lines]


def text_cells(text):
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    return [cells for cells in lines if len(cells) > 2]


def test_the_html_has_the_cells_of_the_text():
    for scores in (result(), result(("resnet18 random", "mine", "other"), baseline={"mine": "resnet18 random"})):
        text, html = str(scores), scores._repr_html_()
        head, dataset, *lines = html_cells(html)
        assert [[cell for cell in line if cell] for line in (head, *lines)] == text_cells(text)
        assert re.sub("<.*?>", " ", dataset[0]) == "digits  train: 1,258 images · test: 539 images (folder valid) "
        assert [words for words in ("knn: nearest neighbors", "95 %: intervals") if words not in html] == []


def test_the_text_is_what_a_shell_shows():
    scores = result()
    assert repr(scores) == str(scores)
    assert text_cells(str(scores)) == [
        ["protocol", "metric", "pretrained", "value 95 %", "n", "random", "gain"],
        ["knn", "accuracy", "50.0 %", "50.0–75.0", "50", "25.0 %", "+25.0"],
    ]


def test_names_of_strangers_are_escaped():
    html = result(dataset="<script>", notes={"<script>": ["<img>"]})._repr_html_()
    assert "<script>" not in html
    assert "<img>" not in html
    assert "&lt;script&gt;" in html


def test_no_rows_are_an_empty_table():
    nothing = EvaluationResult((), {})
    assert "Scores on test" in nothing._repr_html_()
    assert "Scores on test" in str(nothing)


def test_each_interval_is_headed_by_what_it_is_of():
    rows = [row | ({"difference_low": 12.0, "difference_high": 38.0} if row["backbone"] == "mine" else {})
            for row in result(("pixels", "mine")).rows]  # fmt: skip
    scores = EvaluationResult(tuple(rows), {"knn": "nearest neighbors"}, baseline="pixels")
    head, cells = text_cells(str(scores))
    assert head == ["protocol", "metric", "mine", "value 95 %", "n", "pixels", "gain", "gain 95 %"]
    assert dict(zip(head, cells, strict=True))["value 95 %"] == "50.0–75.0"
    assert dict(zip(head, cells, strict=True))["gain 95 %"] == "+12.0…+38.0"
    assert len(max(str(scores).splitlines(), key=len)) <= 80
    assert "95 %: intervals of the value and of the gain over the n test images" in " ".join(str(scores).split())


def test_intervals_stand_below_their_numbers_where_a_line_is_too_narrow():
    rows = [
        {
            **ROW,
            "dataset": "digits",
            "protocol": "regression",
            "backbone": name,
            "value": 0.5,
            "low": 0.4706,
            "high": 0.5324,
        }
        | {"metric": "r2", "share": False, "difference_low": low, "difference_high": 0.3276}
        for name, low in (("vit_tiny_patch16_224 random", None), ("a long name of a run", 0.2508), ("another", 0.25))
    ]
    scores = EvaluationResult(
        tuple(rows), {}, {name: rows[0]["backbone"] for name in ("a long name of a run", "another")}
    )
    console = Console(width=72, file=io.StringIO(), color_system=None)
    console.print(scores.table())
    text = console.file.getvalue()
    for whole in ("0.4706–0.5324", "+0.2508…+0.3276", "value 95 %", "gain 95 %"):
        assert whole in text  # broken nowhere


def test_rows_that_are_compared_with_nothing_say_how_they_can_be():
    three = result(("resnet18 random", "mine", "pixels"), baseline={"mine": "resnet18 random"})
    assert "--against ROW compares all with one" in " ".join(str(three).split())
    assert "--against ROW" not in str(result())
