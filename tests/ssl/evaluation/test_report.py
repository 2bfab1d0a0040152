import hashlib
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imsave

from wildfern.ssl.evaluation import read_run, report_page, write_report
from wildfern.ssl.evaluation.curves import _averaged, _running_mean, line_chart
from wildfern.ssl.evaluation.run_record import PARTS
from wildfern.ssl.evaluation.series import Series


@pytest.fixture
def run(tmp_path):
    def make(name="run", accuracy=0.5, parts=tuple(PARTS)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        steps = range(1, 51)
        metrics = [
            {"step": s, "loss": 5 / s, "learning_rate": 1e-3, "rank_me": 10.0 + s, "note": "text"} for s in steps
        ]
        row = {"dataset": "digits", "protocol": "knn", "n": 360, "share": True, "detail": ""}
        untrained, pretrained = {**row, "backbone": "random"}, {**row, "backbone": "pretrained", "detail": "a<b"}
        bounds = {"low": accuracy - 0.011, "high": accuracy + 0.021}
        rows = [
            {**untrained, "metric": "accuracy", "value": 0.25, "low": 0.2, "high": 0.3},
            {**untrained, "metric": "balanced_accuracy", "value": 0.26, "low": None, "high": None},
            {**pretrained, "metric": "accuracy", "value": accuracy, **bounds},
            {**pretrained, "metric": "balanced_accuracy", "value": accuracy + 0.03, "low": None, "high": None},
        ]
        written = {
            "recipe.yaml": "method:\n  name: simclr\nmodel:\n  backbone: resnet18\ndata:\n  source: <ifs>\n",
            "environment.json": json.dumps({"versions": {"torch": "2.6"}, "cores": 2}),
            "metrics.jsonl": "\n".join(map(json.dumps, metrics)),
            "timings.jsonl": '{"step": 1, "images_per_second": 1000, "data_wait": 0.25}\n{"step": 2, "images_per_second": 3e3}\n',
            "evaluation.json": json.dumps({"baseline": "random", "protocols": {"knn": "cosine, k=20"}, "rows": rows}),
        }
        for part in parts:
            if part == "views.png":
                imsave(folder / part, np.zeros((4, 4, 3)))
            else:
                (folder / part).write_text(written[part])
        return folder

    return make


class Outline(HTMLParser):
    """Text of the page, the headings, and whether every tag that opens closes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def test_one_run_shows_everything_and_loads_nothing(run, tmp_path):
    page = write_report([run()], tmp_path / "new" / "report.html").read_text()
    outline = Outline(page)
    assert outline.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in outline.links)
    assert "url(http" not in page
    assert "@import" not in page
    text = "".join(outline.text)
    for words in (
        "simclr · resnet18 · <ifs>",
        "Overview",
        "Scores on test",
        "Training",
        "Speed",
        "Views",
    ):
        assert words in text
    for words in (
        "50.0 %",
        "48.9 to 52.1",
        "balanced accuracy",
        "53.0 %",
        "+27.0",
        "+25.0",
        "baseline",
        "cosine, k=20",
        "versions.torch",
        "2.6",
        "rank me",
        "2,000",
        "25.0%",
    ):
        assert words in text
    assert "<ifs>" not in page
    assert "prefers-color-scheme: dark" in page
    assert "Missing" not in text
    assert page.count("<svg") == 5  # loss, learning rate, rank_me, images/s, data wait


def test_bars_and_intervals_are_drawn_at_their_places(run, tmp_path):
    page = write_report([run()], tmp_path / "report.html").read_text()
    assert '<i style="width: 50.0%;' in page
    assert '<b style="left: 48.9%; width: 3.2%">' in page
    assert 'title="360 test images; a&lt;b"' in page


def test_rows_of_earlier_versions_are_shown(run, tmp_path):
    folder = run()
    row = {"dataset": "digits", "protocol": "knn", "detail": ""}
    rows = [
        {**row, "backbone": "random", "accuracy": 0.25, "std": None},
        {**row, "backbone": "pretrained", "accuracy": 0.5, "std": 0.011},
    ]
    (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    text = "".join(Outline(write_report([folder], tmp_path / "report.html").read_text()).text)
    for words in ("50.0 %", "48.9 to 51.1", "+25.0"):
        assert words in text


def test_a_score_that_is_not_a_share_has_no_bar_and_no_percent(run, tmp_path):
    folder = run()
    row = {"dataset": "depth", "protocol": "dense", "metric": "error_m", "n": 5, "share": False, "detail": ""}
    rows = [
        {**row, "backbone": "random", "value": 3.5, "low": 3.25, "high": 4.0},
        {**row, "backbone": "pretrained", "value": 2.25, "low": 2.0, "high": 2.5},
    ]
    (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    page = write_report([folder], tmp_path / "report.html").read_text()
    text = "".join(Outline(page).text)
    for words in ("error m", "2.25", "2 to 2.5", "-1.25"):
        assert words in text
    assert '<i style="width' not in page


def test_runs_are_compared_each_against_its_own_baseline(run, tmp_path):
    folders = [run("a/run", 0.5), run("b/run", 0.2)]
    text = "".join(Outline(write_report(folders, tmp_path / "report.html").read_text()).text)
    for words in ("2 runs compared", "a/run", "b/run", "+25.0", "-5.0"):
        assert words in text


@pytest.mark.parametrize("kept", ["recipe.yaml", "metrics.jsonl"])
def test_missing_parts_are_named(run, tmp_path, kept):
    text = "".join(Outline(write_report([run(parts=(kept,))], tmp_path / "report.html").read_text()).text)
    for part in PARTS:
        assert (f"no {part}" in text) == (part != kept)


def test_broken_parts_are_named_and_the_rest_is_shown(run, tmp_path):
    folder = run()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 3.25}\n{"step": 3, "lo')
    (folder / "evaluation.json").write_text("{")
    (folder / "recipe.yaml").write_text("a: [")
    record = read_run(folder)
    assert record.metrics["loss"] == Series([2.0], [3.25])
    assert set(record.remarks) == {
        "metrics.jsonl: 1 unreadable line left out",
        "metrics.jsonl: 1 value NaN or infinite",
        "evaluation.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "recipe.yaml cannot be read: not valid YAML: expected the node content, but found '<stream end>'",
    }
    assert "3.25" in write_report([record], tmp_path / "report.html").read_text()


def test_scores_of_an_earlier_backbone_are_left_out(run):
    folder = run()
    backbone, evaluation = folder / "backbone.safetensors", folder / "evaluation.json"
    backbone.write_bytes(b"weights")
    stored = json.loads(evaluation.read_text()) | {"backbone_sha256": hashlib.sha256(b"weights").hexdigest()}
    evaluation.write_text(json.dumps(stored))
    assert read_run(folder).evaluation == stored
    backbone.write_bytes(b"later weights")
    record = read_run(folder)
    assert record.evaluation == {}
    assert any("scores of an earlier backbone" in remark for remark in record.remarks)


def test_a_resumed_step_replaces_what_was_written_before(run):
    folder = run()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 9}\n{"step": 2, "loss": 2}\n')
    assert read_run(folder).metrics["loss"] == Series([1.0, 2.0], [3.0, 2.0])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither recipe\.yaml nor metrics\.jsonl"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ValueError, match="no such folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_same_run_gives_the_same_page(run, tmp_path):
    folder = run()
    pages = [write_report([folder], tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_a_report_is_written_as_a_whole_and_follows_no_link_in_a_run_folder(run, tmp_path, monkeypatch):
    folder = run()
    victim, inside, outside = tmp_path / "victim", folder / "report.html", tmp_path / "link.html"
    victim.write_text("precious")
    for link in (inside, outside):
        link.symlink_to(victim)
    write_report([folder], inside)
    page = inside.read_text()
    assert victim.read_text() == "precious"
    assert not inside.is_symlink()
    write_report([folder], outside)
    assert (victim.read_text(), outside.is_symlink()) == (page, True)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(OSError, match=r"No space left on device: '.*report\.html'"):
        write_report([folder], inside)
    assert inside.read_text() == page


def test_long_series_are_averaged_and_smoothed_evenly():
    series = Series(list(range(10)), [float(value) for value in range(10)])
    steps, values = _averaged(series, 4)
    assert steps.tolist() == [1, 4, 7, 9]
    assert values.tolist() == [1, 4, 7, 9]
    np.testing.assert_allclose(_running_mean(np.arange(9.0), 3), np.arange(9.0))  # a straight line stays straight


def test_a_chart_takes_its_colors_from_the_page():
    svg = line_chart([None, Series([1, 2], [0.1, 0.4])], "loss")
    assert "var(--run-2)" in svg
    assert "var(--run-1)" not in svg
    assert "currentColor" in svg
    assert "#0" not in svg


def test_images_and_notes_of_a_data_set_are_shown(run, tmp_path):
    folder = run()
    stored = json.loads((folder / "evaluation.json").read_text())
    said = {"train_images": 1258, "train_split": "", "test_images": 1, "test_split": "folder <valid>"}
    stored["rows"] = [row | said for row in stored["rows"]]
    stored["notes"] = {"digits": ["1 class of test has no train image: <fern> (3 test images)"]}
    (folder / "evaluation.json").write_text(json.dumps(stored))
    page = write_report([folder, run("other")], tmp_path / "report.html").read_text()
    text = "".join(Outline(page).text)
    assert text.count("train: 1,258 images · test: 1 image (folder <valid>)") == 1
    assert "digits: 1 class of test has no train image: <fern> (3 test images)" in text
    assert "<fern>" not in page


@pytest.mark.parametrize(
    ("data", "title", "shares"),
    [
        (
            "[{source: folder:me/<mine>, weight: 7.0}, {source: ifs, weight: 3.0}]",
            "70% folder:me/<mine> + 30% ifs",
            ["70.0%", "30.0%"],
        ),
        ("[{source: folder:me}, {source: ifs, weight: 3}]", "25% folder:me + 75% ifs", ["25.0%", "75.0%"]),
        ("[{source: folder:me}, {source: ifs, weight: many}]", "folder:me + ifs", ["–", "–"]),
        ("[{source: folder:me, weight: 2.0}]", "folder:me", []),
        ("{source: digits}", "digits", []),
    ],
)
def test_sources_of_a_mixture_are_named_with_their_shares(run, data, title, shares):
    folder = run()
    (folder / "recipe.yaml").write_text(f"method:\n  name: simclr\nmodel:\n  backbone: resnet18\ndata: {data}\n")
    page = Outline(report_page([folder]))
    assert f"simclr · resnet18 · {title}" in page.text
    start = page.text.index("Training images") if shares else page.text.index("Scores on test")
    listed = page.text[start : page.text.index("Scores on test")]
    assert [text for text in listed if text.endswith("%") or text == "–"] == shares


def test_skipped_files_are_counted_and_the_first_named(run):
    folder = run()
    rows = [{"file": f"a<{number}>.png", "reason": "Truncated"} for number in range(1200)]
    (folder / "skipped.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nbroken\n[1]\n")
    page = Outline(report_page([folder]))
    assert "1,200 files were skipped, because they could not be used:" in page.text
    assert [text for text in page.text if text.endswith("Truncated")] == [f"a<{n}>.png: Truncated" for n in range(5)]
    assert "… and 1,195 more, in skipped.jsonl" in page.text
    assert any("skipped.jsonl: 2 unreadable lines left out" in text for text in page.text)
    (folder / "skipped.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert "1 file was skipped, because it could not be used:" in Outline(report_page([folder])).text
